//! Requests as the simulator reads them, and replies as data, independent of the HTTP version.

use std::time::Duration;

use hyper::{StatusCode, body::Bytes};
use serde_json::Value;

/// Maximum length of a request body in bytes.
pub(super) const MAX_REQUEST_BODY: usize = 1024 * 1024;

/// A complete request.
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Header names are in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// Returns a query parameter without decoding it. Those in use are numbers and model names.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}

/// Reaction to a request.
pub(super) enum Action {
    Reply(Reply),
    /// Never answers, as long as the client is connected.
    Stall,
    /// Sends bytes that are not HTTP, then closes the connection.
    Garbage,
    /// Ends the connection without an answer, by a reset or in order.
    Close {
        reset: bool,
    },
}

/// A response and its timing.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) phrase: String,
    /// Sent with this case and order (HTTP/2 has lower case only).
    pub(super) headers: Vec<(String, String)>,
    /// Time from the end of the request to the response head.
    pub(super) delay: Duration,
    /// Several chunks are sent in chunked coding, one with Content-Length, unless `headers`
    /// specifies the framing.
    pub(super) body: Vec<Chunk>,
    /// Whether the length is unknown, so that Content-Length is never sent.
    pub(super) streamed: bool,
    pub(super) ending: Ending,
}

/// A part of a body.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// Time after the previous part, or the head, was due. Lateness of one part does not delay the
    /// next.
    pub(super) pause: Duration,
    pub(super) bytes: Bytes,
    /// Whether it completes the first visible content of a stream.
    pub(super) first_token: bool,
}

impl Chunk {
    /// Creates a part without a pause.
    pub(super) fn at_once(bytes: impl Into<Bytes>) -> Self {
        Self { pause: Duration::ZERO, bytes: bytes.into(), first_token: false }
    }
}

/// End of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Complete,
    /// The connection is closed after that many bytes of the body.
    CloseAfter(usize),
    /// The connection is reset after that many bytes of the body.
    ResetAfter(usize),
    /// Nothing more is sent, and the connection stays open.
    Silent,
    /// The last chunk is repeated with its pause, as long as the client is connected.
    Endless,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let chunk = (!body.is_empty()).then(|| Chunk::at_once(body));
        Self {
            status,
            phrase: phrase(status).to_owned(),
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            delay: Duration::ZERO,
            body: chunk.into_iter().collect(),
            streamed: false,
            ending: Ending::Complete,
        }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Returns the body in one piece.
    pub(super) fn content(&self) -> Bytes {
        match self.body.as_slice() {
            [] => Bytes::new(),
            [chunk] => chunk.bytes.clone(),
            chunks => chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect(),
        }
    }

    pub(super) fn content_length(&self) -> usize {
        self.body.iter().map(|chunk| chunk.bytes.len()).sum()
    }

    /// Returns whether the length of the body is unknown to the client.
    pub(super) fn is_chunked(&self) -> bool {
        self.streamed || self.body.len() > 1
    }

    pub(super) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// Returns whether such a response may have a body (RFC 9110, section 6.4.1).
    pub(super) fn may_have_body(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    /// Parses a response in text form: status line, headers, an empty line, the body. Lines of the
    /// head may end with LF alone.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, &'static str> {
        let (head, body) = split_head(raw).ok_or("has no empty line after the headers")?;
        let head = str::from_utf8(head).map_err(|_| "has a head that is no text")?;
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
        if !first.next().unwrap_or_default().starts_with("HTTP/") {
            return Err("does not begin with a status line");
        }
        let status = first.next().and_then(|status| status.parse().ok());
        let status =
            status.filter(|status| (200..=599).contains(status)).ok_or("has no status from 200 to 599")?;
        let mut reply = Self::new(status, "", Bytes::copy_from_slice(body));
        first.next().unwrap_or_default().clone_into(&mut reply.phrase);
        reply.headers = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
            .collect::<Option<_>>()
            .ok_or("has a header line without a colon")?;
        Ok(reply)
    }
}

fn split_head(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = |mark: &[u8]| raw.windows(mark.len()).position(|window| window == mark);
    match (at(b"\n\n"), at(b"\r\n\r\n")) {
        (Some(lf), Some(crlf)) if crlf < lf => Some((&raw[..crlf], &raw[crlf + 4..])),
        (Some(lf), _) => Some((&raw[..lf], &raw[lf + 2..])),
        (None, Some(crlf)) => Some((&raw[..crlf], &raw[crlf + 4..])),
        (None, None) => None,
    }
}

/// Returns the registered reason phrase, or the usual one of an unregistered status.
pub(super) fn phrase(status: u16) -> &'static str {
    match status {
        498 => "Flex Tier Capacity Exceeded",
        524 => "A Timeout Occurred",
        529 => "Site Overloaded",
        _ => StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(raw: &str, expected: &str) {
        assert_eq!(Reply::parse(raw.as_bytes()).map(|reply| reply.status).unwrap_err(), expected, "{raw:?}");
    }

    #[test]
    fn parsed_response_keeps_case_order_and_bytes() {
        let raw = b"HTTP/1.1 529 Site Overloaded\nx-b: 1\nX-A:  two: parts \nx-b: 3\n\n{\"a\":1}\n\n\xff";
        let reply = Reply::parse(raw).unwrap();
        assert_eq!((reply.status, reply.phrase.as_str()), (529, "Site Overloaded"));
        let headers: Vec<_> =
            reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(headers, [("x-b", "1"), ("X-A", "two: parts"), ("x-b", "3")]);
        assert_eq!(reply.content(), &b"{\"a\":1}\n\n\xff"[..]);
    }

    #[test]
    fn parsed_response_may_have_crlf_and_no_body() {
        let reply = Reply::parse(b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\nx\n\ny").unwrap();
        assert_eq!((reply.status, reply.headers.len(), reply.content().as_ref()), (204, 1, &b"x\n\ny"[..]));
        assert!(Reply::parse(b"HTTP/1.1 200 OK\n\n").unwrap().body.is_empty());
    }

    #[test]
    fn invalid_response_is_rejected() {
        check_refused("HTTP/1.1 200 OK\nA: b", "has no empty line after the headers");
        check_refused("{}\n\n", "does not begin with a status line");
        check_refused("HTTP/1.1 100 Continue\n\n", "has no status from 200 to 599");
        check_refused("HTTP/1.1 two OK\n\n", "has no status from 200 to 599");
        check_refused("HTTP/1.1 200 OK\nno colon\n\n", "has a header line without a colon");
    }

    #[test]
    fn query_parameter_is_found_by_its_full_name() {
        let request = Request {
            method: "GET".to_owned(),
            target: "/models?xpageSize=7&pageSize=1".to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
        };
        assert_eq!(
            (request.path(), request.query("pageSize"), request.query("page")),
            ("/models", Some("1"), None)
        );
    }
}
