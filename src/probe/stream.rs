//! A streamed answer, chunk by chunk: content, end, counts and times. No I/O.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    flow::Flow,
    model_name,
    sse::{Decoder, Event, TooLong},
};
use crate::{
    api::{
        self, AnswerText, Dialect, Piece, Usage,
        body::{BOM, ErrorBody},
        gate,
    },
    config::Stream,
    outcome::{Api, Detail, Emptiness, Outcome},
};

/// Bytes of a body that is no stream.
const MAX_FOREIGN: usize = 4 * 1024 * 1024;

/// Bytes of a stream, for each token that it may have: real ones have some 300, padding included.
const MAX_BYTES_PER_TOKEN: usize = 1024;

/// Maximum white space before the first byte of a stream.
const MAX_BLANK: usize = 1024;

/// Time to wait for counts, an error or the last end mark after the content is complete. They
/// arrive immediately or not at all.
const USAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Tokens of an answer that have no text, such as its end mark, at most.
const MARK_TOKENS: u64 = 16;

/// Receiver of one streamed answer.
pub(super) struct Listener {
    dialect: &'static dyn Dialect,
    stall_timeout: Duration,
    prompt_tokens: u64,
    max_tokens: u32,
    max_bytes: usize,
    bytes: usize,
    body: Body,
    decoder: Decoder,
    state: StreamState,
}

/// Kind of a body, by its first byte that is not white space.
enum Body {
    /// Nothing but white space so far, which is kept.
    Blank(Vec<u8>),
    Events,
    /// JSON or a page in place of a stream, which is kept.
    Foreign(Vec<u8>),
}

/// Facts from the events of an answer so far.
#[derive(Debug, Default, PartialEq)]
struct StreamState {
    text: Flow,
    reasoning: Flow,
    /// The text itself.
    answer: AnswerText,
    /// The model that the first event with a name names, gated.
    model: Option<String>,
    /// What is in place of content.
    instead: Option<Emptiness>,
    /// Time at which the content was complete, and the cause if there was none.
    finish: Option<(Instant, Emptiness)>,
    /// Whether the last end mark was there.
    done: bool,
    /// Arrival of the last complete event.
    last: Option<Instant>,
    /// The event that reports a failure of the answer.
    error: Option<Value>,
    malformed: Option<Detail>,
    usage: Usage,
}

/// Result of a stream.
#[derive(Debug, PartialEq)]
pub(super) enum Ending<'a> {
    /// It ended as its protocol promises, with content.
    Complete,
    /// The same without content.
    Empty(Emptiness),
    /// Its end mark came, with neither content nor a reason to finish before it.
    Silent,
    /// Not one byte came.
    Nothing,
    /// An event reports a failure of the answer.
    Failed {
        /// The event.
        event: &'a Value,
        /// Whether there was content before it.
        late: bool,
    },
    /// It is not what the API promises.
    Malformed(Detail),
    /// It ended without its end mark.
    Truncated {
        /// Whether there was content.
        late: bool,
    },
}

impl Listener {
    /// Creates a listener for one answer to this request.
    pub(super) fn new(api: Api, stream: &Stream) -> Self {
        Self {
            dialect: api::of(api),
            stall_timeout: stream.stall_timeout,
            prompt_tokens: stream.chat.estimated_input_tokens(),
            max_tokens: stream.chat.max_tokens,
            max_bytes: MAX_FOREIGN.max(stream.chat.max_tokens as usize * MAX_BYTES_PER_TOKEN),
            bytes: 0,
            body: Body::Blank(Vec::new()),
            decoder: Decoder::default(),
            state: StreamState::default(),
        }
    }

    /// Returns the maximum time to wait for the next byte.
    pub(super) fn byte_timeout(&self, now: Instant) -> Duration {
        let remaining = |(since, _)| USAGE_TIMEOUT.saturating_sub(now.saturating_duration_since(since));
        self.state.finish.map_or(self.stall_timeout, remaining)
    }

    /// Returns what did not arrive in time.
    pub(super) fn silence(&self) -> Detail {
        match &self.state {
            StreamState { text: Flow { first: Some(_), .. }, .. } => {
                Detail::SilentAfterContent(self.stall_timeout)
            }
            StreamState { reasoning: Flow { first: Some(_), .. }, .. } => {
                Detail::SilentWhileReasoning(self.stall_timeout)
            }
            _ => Detail::SilentBeforeContent(self.stall_timeout),
        }
    }

    /// Receives a chunk that arrived at that time. Breaks when nothing more is wanted.
    pub(super) fn receive(&mut self, chunk: &[u8], arrived: Instant) -> ControlFlow<()> {
        let (wanted, beyond) = chunk.split_at(chunk.len().min(self.max_bytes - self.bytes));
        self.bytes += wanted.len();
        self.take(wanted, arrived)?;
        if beyond.is_empty() {
            return ControlFlow::Continue(());
        }
        self.state.reject(Detail::StreamTooLong)
    }

    fn take(&mut self, chunk: &[u8], arrived: Instant) -> ControlFlow<()> {
        match &mut self.body {
            Body::Events => self.decode(chunk, arrived),
            Body::Foreign(body) => {
                if body.len() + chunk.len() > MAX_FOREIGN {
                    return self.state.reject(Detail::NotAStreamAndTooLarge);
                }
                body.extend_from_slice(chunk);
                ControlFlow::Continue(())
            }
            Body::Blank(blank) => {
                blank.extend_from_slice(chunk);
                let (body, begun) = recognise(std::mem::take(blank));
                self.body = body;
                self.decode(&begun, arrived)
            }
        }
    }

    /// Returns the body if it is not a stream.
    pub(super) fn foreign(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Foreign(body) if self.state.malformed.is_none() => Some(body),
            _ => None,
        }
    }

    /// Returns the time at which the answer was complete. Returns `None` if it is not.
    pub(super) fn complete_since(&self) -> Option<Instant> {
        self.state.last.filter(|_| self.state.is_complete())
    }

    /// Returns the end of the stream, if it ends here.
    pub(super) fn ending(&self) -> Ending<'_> {
        let StreamState { text, answer, instead, finish, error, malformed, .. } = &self.state;
        let late = text.first.is_some();
        if let Some(event) = error {
            return Ending::Failed { event, late };
        }
        if let Some(how) = malformed {
            return Ending::Malformed(how.clone());
        }
        match finish {
            _ if self.bytes == 0 => Ending::Nothing,
            _ if !self.state.is_complete() && !self.ends_in_its_mark() => {
                if self.bytes > 0 && !self.decoder.recognised() && matches!(self.body, Body::Events) {
                    return Ending::Malformed(Detail::NotAStream);
                }
                Ending::Truncated { late }
            }
            _ if answer.is_visible() => Ending::Complete,
            Some((_, why)) => Ending::Empty(instead.unwrap_or(*why)),
            None => instead.map_or(Ending::Silent, Ending::Empty),
        }
    }

    /// Returns the visible text so far.
    pub(super) fn text(&self) -> &AnswerText {
        &self.state.answer
    }

    /// Returns the model that the stream names. Returns `None` if it names none.
    pub(super) fn model(&self) -> Option<&str> {
        self.state.model.as_deref()
    }

    /// Returns whether the stream ends with its end mark without a line end, as some servers do.
    fn ends_in_its_mark(&self) -> bool {
        self.dialect.ends_with_done()
            && matches!(self.body, Body::Events)
            && self.decoder.unfinished() == "[DONE]"
    }

    /// Returns the counts if they are plausible.
    fn plausible_usage(&self) -> Option<Usage> {
        let usage = self.state.usage;
        let fits = gate::is_plausible_for(self.prompt_tokens, self.max_tokens, usage.input, usage.output);
        fits.then_some(usage)
    }

    /// Writes times and counts into the outcome of the run. `handed_over` is the time at which the
    /// request was handed to the connection.
    pub(super) fn measure(&self, outcome: &mut Outcome, handed_over: Option<Instant>) {
        let StreamState { text, reasoning, .. } = &self.state;
        let since = |first: Option<Instant>| Some(first?.saturating_duration_since(handed_over?));
        outcome.time_to_first_token = since(text.first);
        outcome.time_to_first_reasoning = since(reasoning.first);
        outcome.stream = text.shape().map(Box::new);
        if outcome.success() {
            outcome.buffered = text.is_buffered(self.visible_tokens());
            outcome.time_per_output_token = self.time_per_token().filter(|_| outcome.buffered != Some(true));
        }
        outcome.reported_processing = outcome.reported_processing.or(self.state.usage.processing);
        let Some(usage) = self.plausible_usage() else {
            outcome.detail.get_or_insert(Detail::MalformedUsage);
            return;
        };
        let spent = text.pieces + reasoning.pieces > 0;
        // 0 beside an answer is no count.
        let counted = |count: Option<u64>| count.filter(|count| *count > 0 || !spent);
        let (input, output) = (counted(usage.input), counted(usage.output));
        (outcome.input_tokens, outcome.output_tokens) = (input, output);
        outcome.cached_input_tokens = usage.cached.filter(|cached| Some(*cached) <= input);
        if spent && (input.is_none() || output.is_none()) {
            outcome.tokens_estimated = true;
            outcome.input_tokens = input.or(Some(self.prompt_tokens));
            outcome.output_tokens = output.or(Some(text.tokens() + reasoning.tokens()));
        }
    }

    /// Returns the mean time between the visible tokens. It is unknown if all pieces arrived
    /// together.
    fn time_per_token(&self) -> Option<Duration> {
        let taken = self.state.text.taken().filter(|taken| !taken.is_zero())?;
        let gaps = u32::try_from(self.visible_tokens().checked_sub(1)?).ok()?;
        taken.checked_div(gaps)
    }

    /// Returns the number of visible tokens, estimated where the service does not count them apart.
    fn visible_tokens(&self) -> u64 {
        let StreamState { text, reasoning, .. } = &self.state;
        let usage = self.plausible_usage().unwrap_or_default();
        // Where there was reasoning that is not counted apart, the count includes it. Hardly any
        // token is shorter than a byte: a larger count includes what is not shown, too.
        let is_visible = usage.reasoning.is_some() || reasoning.pieces == 0;
        let at_most = text.bytes as u64 + MARK_TOKENS;
        match usage.output.map(|output| output.saturating_sub(usage.reasoning.unwrap_or(0))) {
            Some(shown) if is_visible && (1..=at_most).contains(&shown) => shown,
            _ => text.tokens(),
        }
    }

    fn decode(&mut self, bytes: &[u8], arrived: Instant) -> ControlFlow<()> {
        let Self { dialect, decoder, state, .. } = self;
        match decoder.feed(bytes, |event| state.event(*dialect, &event, arrived)) {
            Ok(flow) => flow,
            Err(TooLong) => state.reject(Detail::EventTooLong),
        }
    }
}

impl StreamState {
    fn is_complete(&self) -> bool {
        self.finish.is_some() || self.done
    }

    fn reject(&mut self, detail: Detail) -> ControlFlow<()> {
        // What follows a complete answer cannot spoil it, an error apart.
        if !self.is_complete() {
            self.malformed = Some(detail);
        }
        ControlFlow::Break(())
    }

    fn event(&mut self, dialect: &dyn Dialect, event: &Event, arrived: Instant) -> ControlFlow<()> {
        let data = event.data.trim();
        if event.bare {
            return self.bare(data);
        }
        self.last = Some(arrived);
        if is_error_name(&event.name) {
            self.error = Some(serde_json::from_str(data).unwrap_or_default());
            return ControlFlow::Break(());
        }
        if data == "[DONE]" {
            self.done = dialect.ends_with_done();
            return if self.done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        if data.is_empty() {
            return ControlFlow::Continue(());
        }
        let Ok(value) = serde_json::from_str::<Value>(data) else {
            return self.reject(Detail::EventNotJson);
        };
        let Piece { text, reasoning, instead, finish, done, failed, usage } = dialect.piece(&value);
        self.usage.update(usage);
        if failed || ErrorBody::read(&value).denies_success() {
            drop(text);
            self.error = Some(value);
            return ControlFlow::Break(());
        }
        if self.model.is_none() {
            self.model = dialect.answered_model(&value).and_then(model_name::gated).map(str::to_owned);
        }
        self.answer.push(&text);
        self.text.add(text.len(), arrived);
        self.reasoning.add(reasoning, arrived);
        self.instead = self.instead.or(instead);
        self.finish = self.finish.or(finish.map(|why| (arrived, why)));
        self.done = done;
        if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Reads JSON that is not an event. Only an error counts.
    fn bare(&mut self, object: &str) -> ControlFlow<()> {
        match serde_json::from_str(object) {
            Ok(value) if ErrorBody::read(&value).denies_success() => {
                self.error = Some(value);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Returns whether the name of an event reports a failure.
fn is_error_name(name: &str) -> bool {
    matches!(name, "error" | "exception" | "failure" | "failed")
}

impl Usage {
    /// Replaces counts by later ones, because each is of the whole answer so far.
    fn update(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.cached = later.cached.or(self.cached);
        self.output = later.output.or(self.output);
        self.reasoning = later.reasoning.or(self.reasoning);
        self.processing = later.processing.or(self.processing);
    }
}

/// Recognizes a body by its beginning, and returns the bytes to decode.
fn recognise(begun: Vec<u8>) -> (Body, Vec<u8>) {
    let looked_at = &begun[..begun.len().min(MAX_BLANK)];
    let rest = looked_at.strip_prefix(BOM).unwrap_or(looked_at).trim_ascii_start();
    // Of a byte order mark the beginning alone may be there.
    let undecided = rest.is_empty() || BOM.starts_with(&begun);
    match rest.first() {
        _ if undecided && begun.len() < MAX_BLANK => (Body::Blank(begun), Vec::new()),
        // No meaningful line of an event stream begins like JSON or a page.
        Some(b'{' | b'[' | b'<') => (Body::Foreign(begun), Vec::new()),
        _ => (Body::Events, begun),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{config::Chat, probe::fuzzing};

    /// A stream of the fixtures.
    struct Case {
        file: String,
        api: Api,
        body: String,
        expect: Value,
    }

    fn cases() -> Vec<Case> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        let index = std::fs::read_to_string(format!("{folder}/index.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        let streams = index["cases"].as_array().unwrap().iter().filter(|row| row["check"] == "stream");
        let cases: Vec<_> = streams
            .map(|row| {
                let file = row["file"].as_str().unwrap().to_owned();
                let text = std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
                let body = text.split_once("\n\n").unwrap().1.to_owned();
                let api = Api::from_name(row["api"].as_str().unwrap()).unwrap();
                Case { file, api, body, expect: row["expect"].clone() }
            })
            .collect();
        assert!(cases.len() >= 19, "only {} streams were found", cases.len());
        cases
    }

    fn listener(api: Api) -> Listener {
        let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 32, ..Chat::default() };
        Listener::new(api, &Stream { chat, stall_timeout: Duration::from_secs(1), include_usage: true })
    }

    /// Returns the texts of a stream's pieces.
    fn texts(api: Api, body: &str) -> Vec<String> {
        let mut texts = Vec::new();
        let flow = Decoder::default().feed(body.as_bytes(), |event| {
            if let Ok(value) = serde_json::from_str::<Value>(&event.data) {
                texts.push(api::of(api).piece(&value).text.into_owned());
            }
            ControlFlow::Continue(())
        });
        assert!(flow.is_ok());
        texts.retain(|text| !text.is_empty());
        texts
    }

    #[test]
    fn first_content_is_the_first_visible_text() {
        for case in cases() {
            if let Some(expected) = case.expect.get("first_content") {
                let texts = texts(case.api, &case.body);
                assert_eq!(texts.first().map(String::as_str), expected.as_str(), "{}", case.file);
            }
        }
    }

    #[test]
    fn fixtures_are_as_complete_as_their_index() {
        for case in cases() {
            let mut listener = listener(case.api);
            let _ = listener.receive(case.body.as_bytes(), Instant::now());
            let complete = matches!(listener.ending(), Ending::Complete | Ending::Empty(_));
            assert_eq!(Some(complete), case.expect["complete"].as_bool(), "{}", case.file);
        }
    }

    #[test]
    fn cut_at_any_byte_changes_nothing() {
        for Case { file, api, body, .. } in cases() {
            let whole = fuzzing::stream(api, [body.as_bytes()]);
            for cut in 0..=body.len() {
                let (one, other) = body.as_bytes().split_at(cut);
                assert_eq!(fuzzing::stream(api, [one, other]), whole, "{file} at {cut}");
            }
            assert_eq!(fuzzing::stream(api, body.as_bytes().chunks(1)), whole, "{file}");
            let crlf = body.replace('\n', "\r\n");
            assert_eq!(fuzzing::stream(api, crlf.as_bytes().chunks(3)), whole, "{file} with CRLF");
        }
    }

    #[test]
    fn kind_of_a_body_is_independent_of_its_chunks() {
        let blank = " ".repeat(MAX_BLANK);
        for body in
            ["\u{feff}\n\n{}", "\u{feff}: x\n\n", "\n  <html>", &format!("{blank}{{}}"), &blank, "\u{fe00}"]
        {
            let whole = fuzzing::stream(Api::Openai, [body.as_bytes()]);
            for size in 1..5 {
                assert_eq!(fuzzing::stream(Api::Openai, body.as_bytes().chunks(size)), whole, "{body:?}");
            }
        }
    }

    #[test]
    fn stream_may_be_as_long_as_its_tokens_need() {
        let event = format!("data: {{\"pad\":\"{}\"}}\n\n", "x".repeat(1 << 18));
        let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 8192, ..Chat::default() };
        let task = Stream { chat, stall_timeout: Duration::from_secs(1), include_usage: true };
        for (mut listener, longest) in
            [(listener(Api::Openai), 4 << 20), (Listener::new(Api::Openai, &task), 8 << 20)]
        {
            let received = std::iter::repeat_with(|| listener.receive(event.as_bytes(), Instant::now()));
            let chunks = received.take_while(ControlFlow::is_continue).count();
            assert_eq!(chunks, longest / event.len());
            assert!(matches!(listener.ending(), Ending::Malformed(_)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn pieces_of_any_size_change_nothing(sizes in vec(1..200_usize, 1..50)) {
            for Case { api, body, .. } in cases() {
                let mut rest = body.as_bytes();
                let mut sizes = sizes.iter().cycle();
                let pieces = std::iter::from_fn(|| {
                    let (piece, after) = rest.split_at((*sizes.next()?).min(rest.len()));
                    rest = after;
                    (!piece.is_empty()).then_some(piece)
                });
                prop_assert_eq!(fuzzing::stream(api, pieces), fuzzing::stream(api, [body.as_bytes()]));
            }
        }

        #[test]
        fn damage_to_a_stream_panics_nowhere(
            cuts in vec((any::<prop::sample::Index>(), 0..60_usize, any::<[u8; 4]>()), 1..6),
        ) {
            for case in cases() {
                let mut body = case.body.into_bytes();
                for (place, length, replacement) in &cuts {
                    let start = place.index(body.len());
                    let end = (start + length).min(body.len());
                    body.splice(start..end, *replacement);
                }
                for &api in Api::ALL {
                    prop_assert_eq!(fuzzing::stream(api, body.chunks(5)), fuzzing::stream(api, [&body[..]]));
                }
            }
        }
    }
}
