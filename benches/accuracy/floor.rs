//! Blocking sockets on a dedicated thread: the best result without the kernel's timestamps.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Requests each path at its time, one after the other. Returns the durations in milliseconds, from
/// before the connection to the end of the response.
pub(crate) fn run(target: SocketAddr, schedule: &[(Instant, String)]) -> io::Result<Vec<f64>> {
    let ask_at = |(due, path): &(Instant, String)| {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        Ok(ask(target, path)?.as_secs_f64() * 1e3)
    };
    schedule.iter().map(ask_at).collect()
}

fn ask(target: SocketAddr, path: &str) -> io::Result<Duration> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    let begin = Instant::now();
    let mut stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes())?;
    let (mut response, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_complete(&response) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => response.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(begin.elapsed())
}

/// Returns whether the body is complete, which is where a prober's duration ends.
fn is_complete(response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}
