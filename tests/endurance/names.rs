//! A name server on this network namespace's loopback, which answers every name with 127.0.0.1 or
//! fails as configured.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// Its address.
pub const ADDRESS: &str = "127.0.0.53";

/// Reaction to queries.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    Answers,
    Silent,
    /// Error of that code: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
    Fails(u8),
    Garbles,
    /// Nothing listens on its port.
    Gone,
}

/// Controls the server's thread, which ends with the process.
pub struct NameServer(Arc<AtomicU8>);

impl Manner {
    fn code(self) -> u8 {
        match self {
            Self::Answers => 0,
            Self::Fails(code) => code,
            Self::Silent => 100,
            Self::Garbles => 101,
            Self::Gone => 102,
        }
    }
}

impl NameServer {
    pub fn start() -> Self {
        let told = Arc::new(AtomicU8::new(0));
        let manner = told.clone();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            loop {
                if manner.load(Ordering::Relaxed) == Manner::Gone.code() {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
                let socket = UdpSocket::bind((ADDRESS, 53)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                while manner.load(Ordering::Relaxed) != Manner::Gone.code() {
                    let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                    if let Some(reply) = reply(&buffer[..length], manner.load(Ordering::Relaxed)) {
                        // The client may have left.
                        let _ = socket.send_to(&reply, client);
                    }
                }
            }
        });
        Self(told)
    }

    pub fn set(&self, manner: Manner) {
        self.0.store(manner.code(), Ordering::Relaxed);
    }
}

/// Returns a reply (RFC 1035, 4.1): one address for an A query, none for others.
fn reply(query: &[u8], manner: u8) -> Option<Vec<u8>> {
    let end = query.iter().skip(12).position(|byte| *byte == 0)? + 12 + 5;
    let question = query.get(12..end)?;
    let code = if manner < 100 { manner } else { 0 };
    let address = question[question.len() - 4..question.len() - 2] == [0, 1] && code == 0;
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(address), 0, 0, 0, 0]);
    reply.extend(question);
    if address {
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    match manner {
        100 => None,
        101 => Some(reply[..7].to_vec()),
        _ => Some(reply),
    }
}
