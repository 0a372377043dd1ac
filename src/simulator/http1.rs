//! HTTP/1.1, implemented by hand, because faults must violate the protocol and every write must be
//! recorded.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    answer::answer,
    exchange::{Action, Ending, MAX_REQUEST_BODY, Reply, Request},
    record::{Connection, Entry},
    server::Shared,
    timer::Clock,
};

/// Maximum length of a request head in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Number of bytes gathered before a write, unless a pause requires an earlier one.
const WRITE_SIZE: usize = 64 * 1024;
/// Maximum size of a TLS record in bytes (RFC 8446, section 5.1), and so of one write.
const RECORD_SIZE: usize = 16 * 1024;
/// Neither HTTP nor text.
const GARBAGE: &[u8] = b"\x00\xff\x15\x03SSH-2.0-this_is_not_HTTP\r\n\x80\x00\x00\x01\r\n\r\n";

/// Serves a connection until either side ends it.
pub(super) async fn serve<S>(stream: S, connection: &Arc<Connection>, shared: &Shared) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire { stream, buffer: Vec::new(), clock: shared.clock.clone() };
    while let Some(head) = wire.read_head().await? {
        let entry = shared.recorder.begin(connection, Instant::now(), head.version());
        let body = match wire.read_body(&head).await? {
            Ok(body) => body,
            Err(status) => {
                entry.lock().status = Some(status);
                return wire.refuse(status).await;
            }
        };
        let keeps_alive = head.keeps_alive();
        let framing = Framing { body: head.method != "HEAD", chunked: head.minor_version > 0, keeps_alive };
        let Head { method, target, headers, .. } = head;
        let received = entry.received();
        let request = Request { method, target, headers, body };
        match answer(&request, &shared.script, &entry) {
            Action::Stall => return wire.watch().await,
            Action::Close { reset } => {
                if reset {
                    connection.reset_at_end();
                }
                return Ok(());
            }
            Action::Garbage => {
                wire.write(GARBAGE).await?;
                return wire.stream.shutdown().await;
            }
            Action::Reply(reply) => {
                wire.send(&reply, received, framing, Some(&entry)).await?;
                match reply.ending {
                    Ending::Complete => {}
                    Ending::Silent | Ending::Endless => return wire.watch().await,
                    // Without the end that TLS or HTTP requires.
                    Ending::CloseAfter(_) => return Ok(()),
                    Ending::ResetAfter(_) => {
                        connection.reset_at_end();
                        return Ok(());
                    }
                }
            }
        }
        connection.flushed();
        if !keeps_alive {
            break;
        }
    }
    wire.stream.shutdown().await
}

/// A request without its body.
#[derive(Debug)]
struct Head {
    method: String,
    target: String,
    minor_version: u8,
    headers: Vec<(String, String)>,
}

/// Constraints that the request imposes on the response.
#[derive(Clone, Copy)]
struct Framing {
    body: bool,
    chunked: bool,
    keeps_alive: bool,
}

impl Head {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target, version) = (first.next()?, first.next()?, first.next()?);
        // As a proxy is asked, which a server accepts as well (RFC 9112, 3.2.2).
        let path = target.strip_prefix("http://").and_then(|rest| Some(&rest[rest.find('/')?..]));
        let target = path.unwrap_or(target);
        let minor_version = match version {
            "HTTP/1.1" => 1,
            "HTTP/1.0" => 0,
            _ => return None,
        };
        let headers = lines.map(|line| line.split_once(':'));
        let headers =
            headers.map(|pair| pair.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())));
        let (method, target) = (method.to_owned(), target.to_owned());
        Some(Self { method, target, minor_version, headers: headers.collect::<Option<_>>()? })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn version(&self) -> &'static str {
        if self.minor_version == 0 { "1.0" } else { "1.1" }
    }

    fn keeps_alive(&self) -> bool {
        self.minor_version > 0
            && !self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

struct Wire<S> {
    stream: S,
    /// Bytes read and not yet used.
    buffer: Vec<u8>,
    clock: Clock,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads the head of the next request. Returns `None` if the client has closed the connection,
    /// or has not sent HTTP/1.
    async fn read_head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > MAX_HEAD {
                self.refuse(431).await?;
                return Ok(None);
            }
            // As web servers do: a `ClientHello` on the wrong port must not wait for the end of a
            // head.
            if self.buffer.first().is_some_and(u8::is_ascii_control) {
                self.refuse(400).await?;
                return Ok(None);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = str::from_utf8(&self.buffer[..end]).ok().and_then(Head::parse);
        self.buffer.drain(..end + 4);
        if head.is_none() {
            self.refuse(400).await?;
        }
        Ok(head)
    }

    /// Reads the body. The inner error is the status of the rejection.
    async fn read_body(&mut self, head: &Head) -> io::Result<Result<Bytes, u16>> {
        if head.header("transfer-encoding").is_some() {
            return Ok(Err(411));
        }
        let length = match head.header("content-length").map(str::parse::<usize>) {
            None => 0,
            Some(Ok(length)) if length <= MAX_REQUEST_BODY => length,
            Some(Ok(_)) => return Ok(Err(413)),
            Some(Err(_)) => return Ok(Err(400)),
        };
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Ok(self.buffer.drain(..length).collect()))
    }

    /// Rejects the request in the name of the simulator, and ends the connection.
    async fn refuse(&mut self, status: u16) -> io::Result<()> {
        let reply = Reply::new(status, "text/plain", "rejected by the simulator\n");
        let framing = Framing { body: true, chunked: false, keeps_alive: false };
        self.send(&reply, Instant::now(), framing, None).await?;
        self.stream.shutdown().await
    }

    async fn send(
        &mut self,
        reply: &Reply,
        received: Instant,
        framing: Framing,
        entry: Option<&Entry>,
    ) -> io::Result<()> {
        let may_have_body = reply.may_have_body();
        let framed = reply.has_header("content-length") || reply.has_header("transfer-encoding");
        let chunked = framing.chunked && !framed && reply.is_chunked();
        let mut out = head(reply, framing.keeps_alive);
        if may_have_body && chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if may_have_body && !framed && !reply.streamed {
            out.extend_from_slice(format!("Content-Length: {}\r\n", reply.content_length()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        let due = received + reply.delay;
        if !reply.delay.is_zero() {
            self.pause_until(due).await?;
        }
        if may_have_body && framing.body {
            self.send_body(reply, chunked, due, entry, &mut out).await?;
        }
        self.write(&out).await
    }

    /// Writes the body, except for bytes that may wait for the end of the response. `due` is when
    /// the head was due.
    async fn send_body(
        &mut self,
        reply: &Reply,
        chunked: bool,
        mut due: Instant,
        entry: Option<&Entry>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut left = match reply.ending {
            Ending::CloseAfter(bytes) | Ending::ResetAfter(bytes) => bytes,
            Ending::Complete | Ending::Silent | Ending::Endless => usize::MAX,
        };
        let again = reply.body.last().filter(|_| reply.ending == Ending::Endless);
        for chunk in reply.body.iter().chain(again.into_iter().cycle()) {
            // All bytes written with the first token must be in one write, so that they have one
            // time.
            let is_crowded = chunk.first_token && out.len() + chunk.bytes.len() > RECORD_SIZE;
            if !chunk.pause.is_zero() {
                self.write(out).await?;
                out.clear();
                due += chunk.pause;
                self.pause_until(due).await?;
            } else if out.len() >= WRITE_SIZE || is_crowded {
                self.write(out).await?;
                out.clear();
            }
            if let Some(entry) = entry.filter(|_| chunk.first_token) {
                entry.first_token_follows();
            }
            if chunked {
                out.extend_from_slice(format!("{:x}\r\n", chunk.bytes.len()).as_bytes());
            }
            let taken = chunk.bytes.len().min(left);
            out.extend_from_slice(&chunk.bytes[..taken]);
            left -= taken;
            if taken < chunk.bytes.len() {
                return Ok(());
            }
            if chunked {
                out.extend_from_slice(b"\r\n");
            }
        }
        if chunked && reply.ending == Ending::Complete {
            if reply.streamed {
                // As most servers do, which learn of the end after the last part.
                self.write(out).await?;
                out.clear();
            }
            out.extend_from_slice(b"0\r\n\r\n");
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits until `due`. Returns an error if the client leaves before.
    async fn pause_until(&mut self, due: Instant) -> io::Result<()> {
        let clock = self.clock.clone();
        tokio::select! {
            biased;
            () = clock.until(due) => Ok(()),
            gone = self.watch() => gone,
        }
    }

    /// Waits until the client leaves, then returns an error.
    async fn watch(&mut self) -> io::Result<()> {
        while self.buffer.len() <= MAX_HEAD {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        // Stop reading from a client that keeps sending.
        std::future::pending().await
    }
}

/// Renders status line and headers of the reply.
fn head(reply: &Reply, keeps_alive: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let lines = reply.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let connection =
        (!keeps_alive && !reply.has_header("connection")).then(|| "Connection: close\r\n".to_owned());
    write!(out, "HTTP/1.1 {} {}\r\n", reply.status, reply.phrase).expect("a Vec takes every byte");
    for line in lines.chain(connection) {
        out.extend_from_slice(line.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_head_is_parsed() {
        let head = Head::parse("POST /a?b HTTP/1.1\r\nX-A: 1:2 \r\nconnection: Close").unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str(), head.version()), ("POST", "/a?b", "1.1"));
        assert_eq!(head.header("x-a"), Some("1:2"));
        assert!(!head.keeps_alive());
    }

    #[test]
    fn invalid_request_head_is_rejected() {
        for text in ["", "GET /", "GET / HTTP/2", "GET / HTTP/1.1\r\nno colon"] {
            assert!(Head::parse(text).is_none(), "{text}");
        }
    }
}
