//! Streams: a dialect's events put in order, paced, and broken where a fault says so.

use std::time::Duration;

use serde_json::Value;

use super::{Provider, anthropic, chunks, google, service::Call};
use crate::simulator::{
    exchange::{Chunk, Ending, Reply},
    fault::{Fault, Kind, Parameters},
    pace::Pace,
};

/// Between the repetitions of `stream_endless`, where the pace says nothing.
const ENDLESS_PAUSE: Duration = Duration::from_millis(10);
/// Between the pieces of an event that is cut, so that they are read one by one.
const CUT_PAUSE: Duration = Duration::from_millis(1);
/// Characters of one to four bytes.
const MULTIBYTE: &str = "héllo – 你好 🙂";
/// Comments of `stream_comments_only`.
const COMMENTS: usize = 3;

/// What a dialect is to put into events.
pub(super) struct Outline<'a> {
    /// The visible content, an event each.
    pub(super) texts: &'a [&'a str],
    /// How the answer ends; `None`: it is broken off before.
    pub(super) finish: Option<Finish>,
    /// Of the fault, for the error.
    pub(super) parameters: &'a Parameters,
}

/// Why a model says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    /// Its budget is used up.
    Length,
}

/// A stream's events, in their order.
pub(super) struct Events {
    /// What comes before anything was generated: comments, the role, the message's frame.
    pub(super) opening: Vec<Piece>,
    /// What the model thinks, up to the visible content.
    pub(super) reasoning: Vec<Piece>,
    /// As many as there are texts.
    pub(super) content: Vec<Piece>,
    /// Finish, usage and end mark, as far as they are not in the content; empty where the answer is broken off.
    pub(super) closing: Vec<Piece>,
    /// What tells that the service cannot go on.
    pub(super) error: Vec<Piece>,
    /// One more token, for streams that do not keep to their end.
    pub(super) further: Piece,
}

/// A part of a stream, not yet framed.
pub(super) enum Piece {
    Comment(&'static str),
    Data(Value),
    /// An event with a name, its data as it is written.
    Named(&'static str, String),
    /// `[DONE]`, or the array's bracket.
    End,
}

/// How a dialect's pieces become bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    ServerSentEvents,
    /// Google's elements of one JSON array, for those who do not ask for events.
    Array,
}

/// The stream of a good call, under a fault or in fair weather.
pub(super) fn stream(call: &Call<'_>, fault: Option<&Fault>) -> Reply {
    let fair = Parameters::default();
    let (kind, parameters) = fault.map_or((None, &fair), |fault| (Some(fault.kind), &fault.parameters));
    let texts = match kind {
        Some(Kind::StreamEmpty) => Vec::new(),
        Some(Kind::StreamMultibyte) => vec![MULTIBYTE],
        _ => call.pace.texts(),
    };
    let outline = Outline { texts: &texts, finish: finish(kind, parameters), parameters };
    let events = match call.provider {
        Provider::Anthropic => anthropic::events(call, &outline),
        Provider::Google => google::events(call, &outline),
        Provider::Langmart | Provider::Openai | Provider::Groq | Provider::Openrouter => {
            chunks::events(call, &outline)
        }
    };
    let framing = if google::is_array(call) { Framing::Array } else { Framing::ServerSentEvents };
    let mut body = Body { framing, pause: Duration::ZERO, chunks: Vec::new() };
    body.play(kind, events, comment(call.provider), &call.pace);
    if let Some(bytes) = call.pace.buffer {
        body.chunks = collected(body.chunks, bytes);
    }
    let bytes = body.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    let mut reply = head(call.provider, framing);
    reply.delay = call.pace.processing();
    reply.ending = ending(kind, parameters, bytes);
    reply.body = body.chunks;
    reply.streamed = true;
    reply
}

/// The chunks as a proxy passes them on that collects so many bytes (0: all of them) first.
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

/// How the answer ends; `None`: it is broken off.
fn finish(kind: Option<Kind>, parameters: &Parameters) -> Option<Finish> {
    match kind {
        None | Some(Kind::StreamAfterDone | Kind::StreamMultibyte) => Some(Finish::Stop),
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

fn comment(provider: Provider) -> &'static str {
    if provider == Provider::Openrouter { chunks::PROCESSING } else { "keep-alive" }
}

/// Status and headers, as far as they are a stream's.
fn head(provider: Provider, framing: Framing) -> Reply {
    let content_type = match (provider, framing) {
        (_, Framing::Array) => "application/json; charset=UTF-8",
        (Provider::Openai | Provider::Anthropic, _) => "text/event-stream; charset=utf-8",
        _ => "text/event-stream",
    };
    let reply = Reply::new(200, content_type, "");
    match provider {
        Provider::Google => reply.with("Content-Disposition", "attachment"),
        Provider::Openai => reply,
        Provider::Langmart | Provider::Anthropic | Provider::Groq | Provider::Openrouter => {
            reply.with("Cache-Control", "no-cache")
        }
    }
}

/// A body being put together.
struct Body {
    framing: Framing,
    /// Before the next piece.
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
                // Comments are no events: those of OpenRouter come before its errors, too.
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

    /// What the model says. Thoughts come halfway to the visible content, so that nobody takes them for it unnoticed;
    /// where there is no content, the end takes its time.
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
            // JSON knows no comments, but white space between its tokens.
            (Piece::Comment(_), Framing::Array) => "\n".to_owned(),
            (Piece::Data(value), Framing::Array) if self.chunks.is_empty() => format!("[{value}"),
            (Piece::Data(value), Framing::Array) => format!(",\r\n{value}"),
            (Piece::End, Framing::Array) => "]".to_owned(),
        };
        let pause = std::mem::take(&mut self.pause);
        self.chunks.push(Chunk { pause, ..Chunk::at_once(bytes) });
    }

    /// Cuts the last event inside each of its characters that has several bytes.
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
        // Two, three, three, three and four bytes are cut once, twice, twice, twice and three times.
        assert_eq!(body.chunks.len(), 1 + 1 + 2 + 2 + 2 + 3);
        assert_eq!(body.chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect::<Vec<_>>(), whole);
        assert!(body.chunks.iter().all(|chunk| str::from_utf8(&chunk.bytes).is_err()));
        let marked: Vec<_> = body.chunks.iter().map(|chunk| chunk.first_token).collect();
        assert_eq!(marked.iter().rposition(|marked| *marked), Some(10));
        assert_eq!(marked.iter().filter(|marked| **marked).count(), 1);
        assert_eq!(body.chunks[0].pause, Duration::from_millis(7));
    }
}
