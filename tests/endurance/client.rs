//! An HTTP request to the daemon, with the required password.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

/// User name and password, which no output may contain.
pub const USER: &str = "soak";
pub const PASSWORD: &str = "basic-cAnArY-password";

/// Maximum duration of an answer, even on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the header with the credentials.
pub fn authorization() -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

/// Returns status and body.
pub fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_TIMEOUT)?;
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
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
