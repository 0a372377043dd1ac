//! One HTTP request to the daemon, with the password that it asks for.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

/// Who may ask, and the password that must never be seen.
pub const USER: &str = "soak";
pub const PASSWORD: &str = "basic-cAnArY-password";

/// No answer takes longer unless something is broken; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The header that lets in.
pub fn authorization() -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

/// Status and body.
pub fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\n",
        authorization()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let parsed = text.split_once("\r\n\r\n").and_then(|(head, body)| {
        Some((head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?, body.to_owned()))
    });
    parsed.ok_or_else(|| io::Error::other("no HTTP response"))
}
