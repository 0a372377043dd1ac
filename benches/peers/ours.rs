//! The daemon, with the required number of probes and interval, by default one second.

use std::{
    error::Error,
    fmt::Write,
    fs,
    io::{Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{Manner, page, process::Running};

/// Number of providers that the probes are spread over.
const PROVIDERS: u32 = 10;

/// A running daemon.
pub(crate) struct Ours {
    // Dropped before the directory that it writes to.
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    /// Time from the start of the process to READY.
    pub(crate) ready_after: Duration,
    _directory: TempDir,
}

/// Probes to run.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) program: &'a Path,
    pub(crate) ca_file: &'a Path,
    pub(crate) manner: Manner,
    pub(crate) target: SocketAddr,
    pub(crate) probes: u32,
    pub(crate) interval: &'a str,
}

impl Ours {
    pub(crate) fn start(load: &Load<'_>) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let configuration = directory.path().join("config.toml");
        fs::write(&configuration, text(load, address, &directory.path().join("logs"))?)?;
        let begin = Instant::now();
        let mut running = Running::start(
            "the daemon",
            Command::new(load.program).args(["run", "--config"]).arg(&configuration).stderr(Stdio::null()),
        )?;
        while page::body(address, "/-/ready").is_err() {
            running.check_alive()?;
            if begin.elapsed() > Duration::from_secs(30) {
                return Err("the daemon is not ready within 30 s".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { running, address, ready_after: begin.elapsed(), _directory: directory })
    }

    /// Returns the size of `/metrics` in bytes and its duration, compressed or not.
    pub(crate) fn scrape(&self, gzip: bool) -> Result<(usize, Duration), Box<dyn Error>> {
        let encoding = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
        let answer = self.ask(&format!("GET /metrics HTTP/1.1\r\n{encoding}"))?;
        Ok((answer.0.len(), answer.1))
    }

    /// Returns the duration of a reload.
    pub(crate) fn reload(&self) -> Result<Duration, Box<dyn Error>> {
        let (answer, elapsed) = self.ask("POST /-/reload HTTP/1.1\r\nContent-Length: 0\r\n")?;
        if answer.starts_with(b"HTTP/1.1 200 ") { Ok(elapsed) } else { Err("the reload failed".into()) }
    }

    fn ask(&self, head: &str) -> Result<(Vec<u8>, Duration), Box<dyn Error>> {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "{head}Host: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok((answer, begin.elapsed()))
    }
}

fn text(load: &Load<'_>, address: SocketAddr, logs: &Path) -> Result<String, std::fmt::Error> {
    let Load { ca_file, manner, target, probes, interval, program: _ } = *load;
    let (scheme, check) = match manner {
        Manner::Http => ("http", "health"),
        Manner::Https | Manner::HttpsPq => ("https", "health"),
        Manner::Network => ("http", "network"),
    };
    let mut text = format!(
        "server.listen = \"{address}\"\nlog.directory = \"{}\"\nlog.max_file_size = \"100GiB\"\n\
         schedule.max_concurrent = 10000\nschedule.max_concurrent_per_provider = 10000\n\
         defaults.interval = \"{interval}\"\n",
        logs.display()
    );
    for number in 0..PROVIDERS.min(probes) {
        writeln!(
            text,
            "[provider.p{number}]\napi = \"langmart\"\nbase_url = \"{scheme}://{target}\"\nca_file = \"{}\"",
            ca_file.display()
        )?;
    }
    for number in 0..probes {
        let provider = number % PROVIDERS;
        writeln!(
            text,
            "[[probe]]\nname = \"peer-{number:05}\"\nprovider = \"p{provider}\"\ncheck = \"{check}\""
        )?;
    }
    Ok(text)
}
