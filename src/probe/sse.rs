//! Bytes in, events out: the event-stream format of the WHATWG HTML standard (section 9.2.6),
//! bounded, without I/O.

use std::ops::ControlFlow;

use serde::de::IgnoredAny;

use crate::api::body::BOM;

/// Bytes of a line, its end left out.
const MAX_LINE: usize = 512 * 1024;

/// Bytes of an event's data, over all its lines.
const MAX_DATA: usize = 512 * 1024;

/// Bytes of bare JSON between events; errors have a thousand or two.
const MAX_BARE: usize = 16 * 1024;

/// Maximum number of attempts to parse an incomplete object: one for each line that may be its
/// last, of which Google's errors have about five.
const MAX_PARSES: u32 = 32;

/// One event. ID and retry time are ignored, because a probe never reconnects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Of its last `event:` line; empty without one.
    pub(super) name: String,
    /// Its `data:` lines, with a line feed between them.
    pub(super) data: String,
    /// Whether it is not an event of the standard, but a JSON object on lines of its own: Google
    /// ends a failed stream with the plain body of the error.
    pub(super) bare: bool,
}

/// A line or an event is longer than any that an API sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Decoder of a stream, however its bytes are split. An event without its blank line is ignored, by
/// the standard.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    /// The last byte was a CR that ended a line, so that an LF right after it ends none.
    after_cr: bool,
    /// Whether the first line, which may begin with a byte order mark, has ended.
    begun: bool,
    name: Vec<u8>,
    /// Each line with a line feed after it.
    data: Vec<u8>,
    /// The lines of a bare object that is not complete.
    bare: Vec<u8>,
    /// Number of times it was searched.
    looks: u32,
    recognised: bool,
}

impl Decoder {
    /// Calls `each` with every event that these bytes complete, until it breaks. The rest is then
    /// ignored.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TooLong> {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.extend_line(bytes)?;
                break;
            };
            self.extend_line(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(event) = self.end_line()?
                && each(event).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns whether there was a line of this format, or the beginning of one: a comment or a
    /// field of the standard.
    pub(super) fn recognised(&self) -> bool {
        const BEGINNINGS: [&[u8]; 5] = [b":", b"data:", b"event:", b"id:", b"retry:"];
        let begins = |known: &&[u8]| known.starts_with(&self.line) || self.line.starts_with(known);
        self.recognised || !self.line.is_empty() && BEGINNINGS.iter().any(begins)
    }

    /// Returns the data of an incomplete event or line at the end of the stream.
    pub(super) fn unfinished(&self) -> String {
        let line = self.line.strip_prefix(b"data:").unwrap_or_default();
        let line = line.strip_prefix(b" ").unwrap_or(line);
        text([&self.data, line].concat().trim_ascii())
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + bytes.len() > MAX_LINE {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the line in that has come to its end; a blank one may end an event.
    fn end_line(&mut self) -> Result<Option<Event>, TooLong> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.begun, true);
        let text = line.strip_prefix(BOM).filter(|_| first).unwrap_or(&line);
        let event = if text.is_empty() {
            self.dispatch()
        } else if self.field(text)? {
            self.bare.clear();
            None
        } else {
            self.add_bare(text)
        };
        // The buffer serves the next line.
        self.line = line;
        self.line.clear();
        Ok(event)
    }

    /// Takes a field in; the value is whether the standard knows it.
    fn field(&mut self, line: &[u8]) -> Result<bool, TooLong> {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon.map_or((line, &b""[..]), |colon| (&line[..colon], &line[colon + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            b"data" => {
                if self.data.len() + value.len() >= MAX_DATA {
                    return Err(TooLong);
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            // llama.cpp until late 2025: a field of its own in place of data.
            b"error" if !value.is_empty() => {
                self.name = b"error".to_vec();
                self.data.extend_from_slice(&value[..value.len().min(MAX_DATA)]);
                self.data.push(b'\n');
            }
            // Without a name it is a comment.
            b"" | b"id" | b"retry" => {}
            _ => return Ok(false),
        }
        self.recognised = true;
        Ok(true)
    }

    /// Adds a line that is not a field to a bare object, if it may belong to one. Returns the
    /// object that it completes.
    fn add_bare(&mut self, line: &[u8]) -> Option<Event> {
        if self.bare.is_empty() {
            self.looks = 0;
        }
        let begins = self.bare.is_empty() && line.starts_with(b"{");
        let fits = self.bare.len() + line.len() <= MAX_BARE && self.looks < MAX_PARSES;
        if !self.recognised || !fits || self.bare.is_empty() && !begins {
            self.bare.clear();
            return None;
        }
        self.bare.extend_from_slice(line);
        // The object is only parsed after a line that may be the last.
        let ends = line.ends_with(b"}");
        self.looks += u32::from(ends);
        let whole = ends && serde_json::from_slice::<IgnoredAny>(&self.bare).is_ok();
        whole.then(|| Event { name: String::new(), data: text(&std::mem::take(&mut self.bare)), bare: true })
    }

    fn dispatch(&mut self) -> Option<Event> {
        let data = self.data.strip_suffix(b"\n").map(text);
        let event = data.map(|data| Event { name: text(&self.name), data, bare: false });
        self.name.clear();
        self.data.clear();
        event
    }
}

/// Decodes UTF-8, with U+FFFD for invalid bytes. A line end is never part of a character, so that
/// lines can be decoded one by one.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Returns the events of these chunks.
    fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Event>, TooLong> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for chunk in chunks {
            let _ = decoder.feed(chunk, |event| {
                events.push(event);
                ControlFlow::Continue(())
            })?;
        }
        Ok(events)
    }

    #[track_caller]
    fn check(stream: &[u8], expected: &[(&str, &str)]) {
        for size in [1, 2, 3, stream.len().max(1)] {
            let events = events(stream.chunks(size)).unwrap();
            let pairs: Vec<_> = events.iter().map(|event| (&*event.name, &*event.data)).collect();
            assert_eq!(pairs, expected, "{:?} by {size}", String::from_utf8_lossy(stream));
        }
    }

    #[test]
    fn examples_of_the_standard_are_decoded() {
        check(b"data: YHOO\ndata: +2\ndata: 10\n\n", &[("", "YHOO\n+2\n10")]);
        let stream =
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        check(stream, &[("", "first event"), ("", "second event"), ("", " third event")]);
        check(b"data\n\ndata\ndata\n\ndata:", &[("", ""), ("", "\n")]);
        check(b"data:test\n\ndata: test\n\n", &[("", "test"), ("", "test")]);
        check(b"event: add\ndata: 73\n\nevent: remove\ndata: 21\n\n", &[("add", "73"), ("remove", "21")]);
    }

    #[test]
    fn lines_end_in_three_ways() {
        check(
            b"data: a\r\rdata: b\r\n\r\ndata: c\n\ndata: d\r\n\n",
            &[("", "a"), ("", "b"), ("", "c"), ("", "d")],
        );
        check(b"data: a\r\ndata: b\r\n\r\n", &[("", "a\nb")]);
    }

    #[test]
    fn cr_ends_its_line_before_the_next_byte() {
        assert_eq!(events([&b"data: a\r\n\r"[..]]).unwrap().len(), 1);
    }

    #[test]
    fn lines_outside_events_are_skipped() {
        check(b"", &[]);
        check(b"\n\n\r\n: \n:OPENROUTER PROCESSING\n\nretry: 5\n\nid: 7\n\nevent: lonely\n\n", &[]);
        check(b"event: lonely\n\ndata: nameless\n\n", &[("", "nameless")]);
        check(b"Data: a\ndata : b\n data: c\nother\n\n", &[]);
        check(b"data: cut off", &[]);
        check(b"data: cut off\n", &[]);
    }

    #[test]
    fn byte_order_mark_is_removed_at_the_start_only() {
        check(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", &[("", "a")]);
        check(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", &[]);
        check(b"\xef\xbb\xbf\ndata: a\n\n", &[("", "a")]);
    }

    #[test]
    fn invalid_utf_8_is_replaced() {
        check("data: h\u{e9}llo \u{1f642}\n\n".as_bytes(), &[("", "h\u{e9}llo \u{1f642}")]);
        check(b"event: \xff\ndata: \xf0\x9f\ndata: \xe9\n\n", &[("\u{fffd}", "\u{fffd}\n\u{fffd}")]);
    }

    #[test]
    fn lines_and_events_are_bounded() {
        let line = |length: usize| [b"data:".to_vec(), vec![b'x'; length], b"\n\n".to_vec()].concat();
        assert_eq!(events([&line(MAX_LINE - 5)[..]]).unwrap()[0].data.len(), MAX_LINE - 5);
        assert_eq!(events([&line(MAX_LINE - 4)[..]]), Err(TooLong));
        // Also where the end of the line never comes.
        assert_eq!(events(vec![b'x'; MAX_LINE + 1].chunks(1000)), Err(TooLong));
        let lines = b"data: 0123456789abcdef\n".repeat(MAX_DATA / 16);
        assert_eq!(events([&lines[..]]), Err(TooLong));
        // What is ended makes room.
        assert_eq!(events([&line(300_000).repeat(5)[..]]).unwrap().len(), 5);
    }

    #[test]
    fn bare_object_between_events_is_reported() {
        let bare = |stream: &[u8]| -> Vec<String> {
            [1, 7, stream.len()]
                .map(|size| {
                    let events = events(stream.chunks(size)).unwrap().into_iter();
                    events.filter(|event| event.bare).map(|event| event.data).collect::<Vec<_>>()
                })
                .concat()
        };
        let error: &[u8] = b"data: 1\n\n{\r\n  \"error\": {\n    \"code\": 503\n  }\n}\n";
        assert_eq!(bare(error), vec!["{  \"error\": {    \"code\": 503  }}"; 3]);
        assert_eq!(bare(b": a comment\n{\"error\":{}}\n"), vec!["{\"error\":{}}"; 3]);
        // Not before the first field, nor what is cut off, interrupted or no object.
        for none in [
            &b"{\"error\":{}}\n\ndata: 1\n\n"[..],
            b"data: 1\n\n{\"error\":{\n",
            b"data: 1\n\n{\"error\":{\ndata: 2\n}}\n",
            b"data: 1\n\nother {\"error\":{}}\n}\n",
            b"data: 1\n\n[1]\n",
        ] {
            assert_eq!(bare(none), Vec::<String>::new(), "{}", text(none));
        }
        let long = [b"data: 1\n\n{\"a\":\"".to_vec(), vec![b'x'; MAX_BARE], b"\"}\n".to_vec()].concat();
        assert_eq!(bare(&long), Vec::<String>::new());
        // Each of these lines may be the last, and causes a parse of all before it.
        let nested = |count: usize| {
            [b"data: 1\n\n{\"a\":[{}\n".to_vec(), b",{}\n".repeat(count), b"]}\n".to_vec()].concat()
        };
        assert_eq!(bare(&nested(20)).len(), 3);
        assert_eq!(bare(&nested(40)), Vec::<String>::new());
    }

    #[test]
    fn reader_that_has_enough_is_not_called_again() {
        let mut seen = 0;
        let end = Decoder::default().feed(b"data: 1\n\ndata: 2\n\n", |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!((end, seen), (Ok(ControlFlow::Break(())), 1));
    }

    /// Parts of generated streams.
    const PARTS: &[&[u8]] = &[
        b"data",
        b"event",
        b":",
        b" ",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        BOM,
        b"\xc3\xa9",
        b"\xff",
        b"{}",
        b"data: x\n",
    ];

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            parts in vec(prop::sample::select(PARTS), 0..60),
            sizes in vec(1..9_usize, 1..40),
        ) {
            let stream = parts.concat();
            let mut rest = &stream[..];
            let mut sizes = sizes.into_iter().cycle();
            let chunks = std::iter::from_fn(|| {
                let (chunk, after) = rest.split_at_checked(sizes.next()?.min(rest.len()))?;
                rest = after;
                (!chunk.is_empty()).then_some(chunk)
            });
            prop_assert_eq!(events(chunks.collect::<Vec<_>>()), events([&stream[..]]));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = events(bytes.chunks(7));
        }
    }
}
