//! Blocking sockets on a thread that does nothing else: what there is to be won.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Asks so many times a second for so many seconds, one after the other; the values are from before the connection to
/// its end, in milliseconds, in ascending order.
pub(crate) fn run(target: SocketAddr, rate: u32, seconds: u32) -> io::Result<Vec<f64>> {
    let begin = Instant::now();
    let mut durations = Vec::new();
    for number in 0..rate * seconds {
        let due = begin + Duration::from_secs(1) * number / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Late by the answer before, where that took longer than the pace: it is the answer that is measured.
        if begin.elapsed() > Duration::from_secs(seconds.into()) {
            break;
        }
        durations.push(ask(target)?.as_secs_f64() * 1e3);
    }
    durations.sort_unstable_by(f64::total_cmp);
    Ok(durations)
}

fn ask(target: SocketAddr) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.write_all(REQUEST)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(begin.elapsed())
}
