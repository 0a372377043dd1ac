//! Streams: the events of a dialect in order, with their pace and faults.

use std::time::Duration;

use serde_json::Value;

use super::service::{Call, Service};
use crate::simulator::{
    exchange::{Chunk, Ending, Reply},
    fault::{Fault, Kind, Parameters},
    pace::Pace,
};

/// Default pause between the repetitions of `stream_endless`.
const ENDLESS_PAUSE: Duration = Duration::from_millis(10);
/// Pause between the pieces of a split event, so that they are read one by one.
const CUT_PAUSE: Duration = Duration::from_millis(1);
/// Characters of one to four bytes.
const MULTIBYTE: &str = "héllo – 你好 🙂";
/// Number of comments of `stream_comments_only`.
const COMMENTS: usize = 3;

/// Content of the events.
pub(super) struct Outline<'a> {
    /// The visible content of each event.
    pub(super) texts: &'a [&'a str],
    /// End of the answer. `None` if it is aborted before.
    pub(super) finish: Option<Finish>,
    /// Reported tokens of the answer, with those of its thoughts.
    pub(super) tokens: usize,
    /// Parameters of the fault, for the error.
    pub(super) parameters: &'a Parameters,
}

/// Finish reason of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    /// The token limit is reached.
    Length,
}

/// Events of a stream, in their order.
pub(super) struct Events {
    /// Events before the generation: comments, the role, the frame of the message.
    pub(super) opening: Vec<Piece>,
    /// Reasoning before the visible content.
    pub(super) reasoning: Vec<Piece>,
    /// One event for each text.
    pub(super) content: Vec<Piece>,
    /// Finish, usage and end mark, unless they are in the content. Empty if the answer is aborted.
    pub(super) closing: Vec<Piece>,
    /// The error of a service that failed.
    pub(super) error: Vec<Piece>,
    /// A further token, for streams that continue after their end.
    pub(super) further: Piece,
}

/// A part of a stream before framing.
pub(super) enum Piece {
    Comment(&'static str),
    Data(Value),
    /// An event with a name and its data.
    Named(&'static str, String),
    /// `[DONE]`, or the array's bracket.
    End,
}

/// Framing of the parts of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    ServerSentEvents,
    /// Google's JSON array, unless the request asks for events.
    Array,
}

/// Returns the stream of a valid call, with a fault or without.
pub(super) fn stream(call: &Call<'_>, fault: Option<&Fault>) -> Reply {
    let fair = Parameters::default();
    let (kind, parameters) = fault.map_or((None, &fair), |fault| (Some(fault.kind), &fault.parameters));
    let texts = match kind {
        Some(Kind::StreamEmpty) => Vec::new(),
        Some(Kind::StreamMultibyte) => vec![MULTIBYTE],
        _ => call.texts(),
    };
    let tokens = match kind {
        // Thoughts have used them up.
        Some(Kind::StreamEmpty) => call.max_tokens().unwrap_or(1),
        _ => texts.len() + call.thoughts() + call.surplus_tokens,
    };
    let outline = Outline { texts: &texts, finish: finish(kind, call, parameters), tokens, parameters };
    let service = call.service();
    let events = service.events(call, &outline);
    let framing = if service.answers_in_array(call) { Framing::Array } else { Framing::ServerSentEvents };
    let mut body = Body { framing, pause: Duration::ZERO, chunks: Vec::new() };
    body.play(kind, events, service.comment(), &call.pace);
    if let Some(bytes) = call.pace.buffer {
        body.chunks = collected(body.chunks, bytes);
    }
    let bytes = body.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    let mut reply = head(service, framing);
    reply.delay = call.pace.processing();
    reply.ending = ending(kind, parameters, bytes);
    reply.body = body.chunks;
    reply.streamed = true;
    reply
}

/// Joins chunks as a proxy does that collects that many bytes first. 0 means all.
fn collected(chunks: Vec<Chunk>, bytes: usize) -> Vec<Chunk> {
    let mut passed: Vec<Chunk> = Vec::new();
    let mut held: Option<Chunk> = None;
    for chunk in chunks {
        let all = match held.take() {
            None => chunk,
            Some(held) => Chunk {
                pause: held.pause + chunk.pause,
                bytes: [&*held.bytes, &*chunk.bytes].concat().into(),
                first_token: held.first_token || chunk.first_token,
            },
        };
        if bytes > 0 && all.bytes.len() >= bytes { passed.push(all) } else { held = Some(all) }
    }
    passed.extend(held);
    passed
}

/// Returns the end of the answer. Returns `None` if it is aborted.
fn finish(kind: Option<Kind>, call: &Call<'_>, parameters: &Parameters) -> Option<Finish> {
    match kind {
        None | Some(Kind::StreamAfterDone) => Some(call.finish()),
        Some(Kind::StreamMultibyte) => Some(Finish::Stop),
        Some(Kind::StreamEndless) if parameters.variant.is_some() => Some(Finish::Stop),
        Some(Kind::StreamEmpty) => Some(Finish::Length),
        Some(_) => None,
    }
}

fn ending(kind: Option<Kind>, parameters: &Parameters, bytes: usize) -> Ending {
    match (kind, parameters.variant.as_deref()) {
        (Some(Kind::StreamTruncated | Kind::StreamCommentsOnly), Some("close")) => Ending::CloseAfter(bytes),
        (Some(Kind::StreamTruncated | Kind::StreamCommentsOnly), Some("reset")) => Ending::ResetAfter(bytes),
        (Some(Kind::StreamStalled | Kind::StreamAfterDone), _) => Ending::Silent,
        (Some(Kind::StreamEndless), _) => Ending::Endless,
        _ => Ending::Complete,
    }
}

/// Returns status and headers of a stream.
fn head(service: &dyn Service, framing: Framing) -> Reply {
    let content_type = match framing {
        Framing::Array => "application/json; charset=UTF-8",
        Framing::ServerSentEvents => service.stream_type(),
    };
    let reply = Reply::new(200, content_type, "");
    match service.stream_header() {
        Some((name, value)) => reply.with(name, value),
        None => reply,
    }
}

/// A body under construction.
struct Body {
    framing: Framing,
    /// Pause before the next piece.
    pause: Duration,
    chunks: Vec<Chunk>,
}

impl Body {
    fn play(&mut self, kind: Option<Kind>, events: Events, comment: &'static str, pace: &Pace) {
        let Events { opening, reasoning, content, closing, error, further } = events;
        let token = pace.token().unwrap_or_default();
        match kind {
            Some(Kind::StreamCommentsOnly) => {
                for _ in 0..COMMENTS {
                    self.add(&Piece::Comment(comment));
                    self.pause = token;
                }
                return;
            }
            Some(Kind::StreamErrorFirst) => {
                // Comments are not events: OpenRouter sends them before errors as well.
                let comments = opening.iter().filter(|piece| matches!(piece, Piece::Comment(_)));
                self.extend(comments.chain(&error));
                return;
            }
            _ => {}
        }
        self.extend(&opening);
        self.generate(&reasoning, &content, pace);
        if kind == Some(Kind::StreamMultibyte) {
            self.cut_characters();
        }
        if kind == Some(Kind::StreamErrorMid) {
            self.pause += token;
            self.extend(&error);
        }
        self.extend(&closing);
        if matches!(kind, Some(Kind::StreamEndless | Kind::StreamAfterDone)) {
            self.pause = pace.token().unwrap_or(ENDLESS_PAUSE);
            self.add(&further);
        }
    }

    /// Adds the generated content. Reasoning arrives at half the time to the visible content, so
    /// that a client that mistakes it for content is noticed. Without content, the end is delayed
    /// instead.
    fn generate(&mut self, reasoning: &[Piece], content: &[Piece], pace: &Pace) {
        let thinking = if reasoning.is_empty() { Duration::ZERO } else { pace.first_token() / 2 };
        self.pause += thinking;
        self.extend(reasoning);
        self.pause += pace.first_token().saturating_sub(thinking);
        for (number, piece) in content.iter().enumerate() {
            if number > 0 {
                self.pause = pace.token().unwrap_or_default();
            }
            self.add(piece);
            if let Some(chunk) = self.chunks.last_mut() {
                chunk.first_token = number == 0;
            }
        }
    }

    fn extend<'a>(&mut self, pieces: impl IntoIterator<Item = &'a Piece>) {
        for piece in pieces {
            self.add(piece);
        }
    }

    fn add(&mut self, piece: &Piece) {
        let bytes = match (piece, self.framing) {
            (Piece::Comment(text), Framing::ServerSentEvents) => format!(": {text}\n\n"),
            (Piece::Data(value), Framing::ServerSentEvents) => format!("data: {value}\n\n"),
            (Piece::Named(name, data), _) => format!("event: {name}\ndata: {data}\n\n"),
            (Piece::End, Framing::ServerSentEvents) => "data: [DONE]\n\n".to_owned(),
            // JSON has white space between its tokens instead of comments.
            (Piece::Comment(_), Framing::Array) => "\n".to_owned(),
            (Piece::Data(value), Framing::Array) if self.chunks.is_empty() => format!("[{value}"),
            (Piece::Data(value), Framing::Array) => format!(",\r\n{value}"),
            (Piece::End, Framing::Array) => "]".to_owned(),
        };
        let pause = std::mem::take(&mut self.pause);
        self.chunks.push(Chunk { pause, ..Chunk::at_once(bytes) });
    }

    /// Splits the last event inside each of its characters of several bytes.
    fn cut_characters(&mut self) {
        let Some(Chunk { mut pause, bytes, first_token }) = self.chunks.pop() else { return };
        let mut begin = 0;
        for end in 1..=bytes.len() {
            let is_inside = bytes.get(end).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
            if is_inside || end == bytes.len() {
                let first_token = first_token && end == bytes.len();
                self.chunks.push(Chunk { pause, bytes: bytes.slice(begin..end), first_token });
                pause = CUT_PAUSE;
                begin = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_several_bytes_is_cut() {
        let mut body =
            Body { framing: Framing::ServerSentEvents, pause: Duration::from_millis(7), chunks: Vec::new() };
        body.add(&Piece::Data(Value::from(MULTIBYTE)));
        body.chunks[0].first_token = true;
        let whole = body.chunks[0].bytes.clone();
        body.cut_characters();
        // Two, three, three, three and four bytes are cut once, twice, twice, twice and three
        // times.
        assert_eq!(body.chunks.len(), 1 + 1 + 2 + 2 + 2 + 3);
        assert_eq!(body.chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect::<Vec<_>>(), whole);
        assert!(body.chunks.iter().all(|chunk| str::from_utf8(&chunk.bytes).is_err()));
        let marked: Vec<_> = body.chunks.iter().map(|chunk| chunk.first_token).collect();
        assert_eq!(marked.iter().rposition(|marked| *marked), Some(10));
        assert_eq!(marked.iter().filter(|marked| **marked).count(), 1);
        assert_eq!(body.chunks[0].pause, Duration::from_millis(7));
    }
}
