//! The daemon as a process, and the records of its runs.

use std::{
    error::Error,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tempfile::TempDir;

use super::{page, process::Running};

/// Maximum time until the daemon is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A variable with a key that the simulator accepts.
const KEY: (&str, &str) = ("BENCH_KEY", "sk-0123456789");

/// Members read from a record.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    time: String,
    pub(crate) probe: String,
    pub(crate) success: bool,
    pub(crate) duration_seconds: f64,
    pub(crate) time_to_first_token_seconds: Option<f64>,
}

/// A running daemon.
pub(crate) struct Daemon {
    // Dropped before the directory that it writes to.
    running: Running,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl Daemon {
    /// Starts it with these providers and probes, and waits until it is ready.
    pub(crate) fn start(program: &Path, providers_and_probes: &str) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let logs = directory.path().join("logs");
        let text = format!(
            "server.listen = \"{address}\"\nlog.directory = \"{}\"\nschedule.max_concurrent_per_provider = 64\n\
             {providers_and_probes}",
            logs.display()
        );
        fs::write(directory.path().join("config.toml"), text)?;
        let mut running = Running::start(
            "the daemon",
            Command::new(program)
                .args(["run", "--config"])
                .arg(directory.path().join("config.toml"))
                .env(KEY.0, KEY.1)
                .stderr(Stdio::null()),
        )?;
        let deadline = Instant::now() + START_TIMEOUT;
        while page::body(address, "/-/ready").is_err() {
            running.check_alive()?;
            if Instant::now() > deadline {
                return Err(format!("the daemon is not ready within {START_TIMEOUT:?}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { running, address, directory })
    }

    /// Stops it and returns the records of its runs in the order of their starts.
    pub(crate) fn stop(mut self) -> Result<Vec<Record>, Box<dyn Error>> {
        self.running.stop()?;
        let mut records: Vec<Record> = Vec::new();
        for file in fs::read_dir(self.directory.path().join("logs"))? {
            let path = file?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("results.jsonl")) {
                for line in fs::read_to_string(path)?.lines() {
                    records.push(serde_json::from_str(line)?);
                }
            }
        }
        records.sort_by(|one, other| one.time.cmp(&other.time));
        Ok(records)
    }
}
