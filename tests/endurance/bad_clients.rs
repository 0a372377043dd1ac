//! Misbehaving clients of the listener.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{client::authorization, draw::Draw};
use crate::harness::random::Random;

/// Number of connections held open, above the listener's limit.
const HELD: usize = 150;

/// Misbehaves in a thread of its own until the end of the process, except while it is paused.
pub struct BadClients(Arc<AtomicBool>);

impl BadClients {
    pub fn start(address: SocketAddr, seed: u64) -> Self {
        let resting = Arc::new(AtomicBool::new(false));
        let rest = resting.clone();
        thread::spawn(move || {
            let mut random = Random(seed);
            let mut held = Vec::new();
            loop {
                thread::sleep(Duration::from_millis(20 + random.draw() % 60));
                if rest.load(Ordering::Relaxed) {
                    held.clear();
                    continue;
                }
                // Refused while the daemon has no descriptors, which is one of the failures.
                if let Ok(stream) = misbehave(address, &mut random) {
                    held.push(stream);
                }
                if held.len() > HELD {
                    let which = random.below(held.len());
                    held.swap_remove(which);
                }
            }
        });
        Self(resting)
    }

    pub fn rest(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens one misbehaving connection.
fn misbehave(address: SocketAddr, random: &mut Random) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    stream.set_write_timeout(Some(Duration::from_millis(50)))?;
    let let_in = authorization();
    match random.below(10) {
        // Sends nothing.
        0 | 1 => {}
        // Half of a head.
        2 => write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nX-Slow: ")?,
        // Not HTTP: the bytes of TLS and of a port scanner.
        3 => stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 255, 13, 10, 13, 10])?,
        // An endless head.
        4 => {
            write!(stream, "GET / HTTP/1.1\r\n")?;
            for number in 0..2000 {
                write!(stream, "x-flood-{number}: aaaaaaaaaaaaaaaaaaaaaaaa\r\n")?;
            }
        }
        // A page that is requested repeatedly and never read.
        5 => {
            for _ in 0..20 {
                write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n{let_in}\r\n")?;
            }
        }
        // A foreign page in a browser, and a wrong password.
        6 => write!(
            stream,
            "POST /-/reload HTTP/1.1\r\nHost: evil.example\r\nOrigin: https://evil.example\r\n{let_in}\r\n"
        )?,
        7 => {
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic eDp5\r\n\r\n")?;
            let _ = stream.read(&mut [0; 4096]);
        }
        // An announced body that never arrives.
        8 => write!(
            stream,
            "POST /metrics HTTP/1.1\r\nHost: {address}\r\n{let_in}Content-Length: 99999999\r\n\r\nabc"
        )?,
        // Reads a little of a page, and leaves.
        _ => {
            write!(stream, "GET /api/v1/results HTTP/1.1\r\nHost: {address}\r\n{let_in}\r\n")?;
            let _ = stream.read(&mut [0; 100]);
        }
    }
    Ok(stream)
}
