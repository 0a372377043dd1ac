//! A server on loopback that sends the same bytes for every request, below any HTTP library.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Sends one response repeatedly, until the test process ends.
pub struct RawServer {
    pub address: SocketAddr,
    response: Arc<Mutex<Vec<u8>>>,
}

impl RawServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let response = Arc::new(Mutex::new(Vec::new()));
        let playing = response.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let response = playing.lock().unwrap().clone();
                // A client may leave early.
                let _ = answer(stream.unwrap(), &response);
            }
        });
        Self { address, response }
    }

    /// Sets the response of all later requests.
    pub fn play(&self, response: Vec<u8>) {
        *self.response.lock().unwrap() = response;
    }
}

/// Starts a server that sends each client these answers in turn, one whenever it has received
/// something, then closes.
pub fn scripted(answers: &[&'static [u8]]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = answers.to_vec();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client may leave early.
            let _ = recite(stream.unwrap(), &answers);
        }
    });
    address
}

fn recite(mut stream: TcpStream, answers: &[&[u8]]) -> std::io::Result<()> {
    for answer in answers {
        if stream.read(&mut [0; 4096])? == 0 {
            break;
        }
        stream.write_all(answer)?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream, response: &[u8]) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
    stream.write_all(response)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

/// Converts the text of a fixture to bytes: with CRLF in the head, its own Content-Length, and
/// `Connection: close`.
pub fn on_the_wire(fixture: &str) -> Vec<u8> {
    let (head, body) = fixture.split_once("\n\n").expect("a fixture has a head and a body");
    let mut wire = head.replace('\n', "\r\n");
    let framing = format!("\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    wire.push_str(&framing);
    wire.push_str(body);
    wire.into_bytes()
}
