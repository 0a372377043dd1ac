//! The daemon's pages, fetched over plain TCP and parsed as Prometheus does.

use std::{
    collections::HashMap,
    error::Error,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Maximum duration of a page.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A page of metrics.
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn fetch(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        Ok(Self(body(address, "/metrics")?))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Returns the samples of a metric: labels as written, and values.
    pub(crate) fn samples(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let sample = line.strip_prefix(name)?;
            let (labels, value) = match sample.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", sample.strip_prefix(' ')?),
            };
            Some((labels, value.parse().ok()?))
        })
    }

    /// Returns the sum of a metric's samples by one of its labels.
    pub(crate) fn sums(&self, name: &str, label: &str) -> HashMap<String, f64> {
        let mut sums = HashMap::new();
        let before = format!("{label}=\"");
        for (labels, value) in self.samples(name) {
            // No name in the benchmark's configuration contains a quote or a comma.
            let labels = labels.split(',').find_map(|pair| pair.strip_prefix(&before)?.strip_suffix('"'));
            *sums.entry(labels.unwrap_or_default().to_owned()).or_default() += value;
        }
        sums
    }
}

/// Returns the body of a page with status 200.
pub(crate) fn body(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_TIMEOUT)?;
    stream.set_read_timeout(Some(WAIT_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or("the response has no end of its head")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("{path}: {}", head.lines().next().unwrap_or_default()).into());
    }
    Ok(body.to_owned())
}
