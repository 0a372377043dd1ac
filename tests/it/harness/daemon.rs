//! The product as a process: the daemon with its log, listener and files, and commands.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    http::{self, Response},
    process::Process,
    scrape::Scrape,
    wait::wait_for,
};

/// The program under test.
pub const PROBER: &str = env!("CARGO_BIN_EXE_langmart-prober");

/// The systemd unit.
const UNIT: &str = include_str!("../../../systemd/langmart-prober.service");

/// An API key from the environment, which the simulator accepts.
pub const KEY: &str = "api_key = { env = \"SIM_KEY\" }";

/// A listener on any free port of loopback.
pub const LISTEN: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";

/// A directory with a configuration and the files of the daemon.
pub struct Place(TempDir);

impl Place {
    /// Creates it with that configuration.
    pub fn new(config: &str) -> Self {
        let place = Self(TempDir::new().unwrap());
        place.write("config.toml", config);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        // Renamed, so that no reader sees half of it; and private, as required for a file with
        // secrets.
        fs::write(self.path("being-written"), text).unwrap();
        fs::set_permissions(self.path("being-written"), Permissions::from_mode(0o600)).unwrap();
        fs::rename(self.path("being-written"), self.path(name)).unwrap();
    }

    /// Returns a command with the configuration and a minimal environment.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(PROBER);
        command.arg(subcommand).arg("--config").arg(self.path("config.toml"));
        command.env_clear().env("SIM_KEY", "sk-test-0123456789");
        command
    }

    /// Runs a command until it ends.
    pub fn run(&self, subcommand: &str, arguments: &[&str]) -> Output {
        self.command(subcommand).args(arguments).output().unwrap()
    }

    /// Starts the daemon with the unit's allocator settings, so that growth can be distinguished
    /// from arenas that glibc keeps for threads. Returns when it is ready.
    #[track_caller]
    pub fn daemon(&self) -> Daemon {
        let settings = UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
        let mut command = self.command("run");
        command.envs(settings);
        Daemon::start(command)
    }

    /// Returns the text of all files in a directory whose names begin with a prefix.
    pub fn files(&self, directory: &str, prefix: &str) -> String {
        // The directory is created with the first line.
        let entries =
            fs::read_dir(self.path(directory)).into_iter().flatten().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = entries.filter(|path| file_name(path).starts_with(prefix)).collect();
        paths.sort();
        paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap()
}

/// Parses lines of JSON.
#[track_caller]
pub fn records(lines: impl AsRef<[u8]>) -> Vec<Value> {
    let text = str::from_utf8(lines.as_ref()).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

/// A running daemon, which is killed when it is dropped.
pub struct Daemon {
    process: Process,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts a command that is a daemon, and waits until it is ready.
    #[track_caller]
    pub fn start(command: Command) -> Self {
        let mut process = Process::start(command);
        let address = process.logs("the daemon to be ready", |log| {
            let ready = log.lines().find(|line| line.contains("Daemon ready"))?;
            ready.split_once("listen=")?.1.split(' ').next()?.parse().ok()
        });
        Self { process, address }
    }

    /// Returns the complete lines on standard error so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Returns how many lines of the log contain a text.
    pub fn logged(&self, part: &str) -> usize {
        self.log().lines().filter(|line| line.contains(part)).count()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path)
    }

    #[track_caller]
    pub fn request(&self, method: &str, path: &str) -> Response {
        http::request(self.address, method, path)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}; the log:\n{}", self.log()))
    }

    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        Scrape::parse(&self.get("/metrics").body)
    }

    /// Returns the first scrape that meets the condition.
    #[track_caller]
    pub fn scrape_until(&self, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Scrape {
        wait_for(what, || Some(self.scrape()).filter(&is_so))
    }

    /// Returns the number of finished runs of the probe.
    #[track_caller]
    pub fn runs(&self, probe: &str) -> f64 {
        self.scrape().value("langmart_probe_runs_total", &[("probe", probe)])
    }

    /// Returns the number of open descriptors, without that of the requesting connection. The
    /// process reports it, because other processes of the same user may not read it.
    #[track_caller]
    pub fn descriptors(&self) -> u64 {
        self.scrape().sum("process_open_fds") as u64 - 1
    }

    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Requests a reload by SIGHUP and waits until the log reports its end or a problem.
    #[track_caller]
    pub fn reload(&self) {
        let told =
            |daemon: &Self| daemon.logged("Configuration reloaded") + daemon.logged("Failed to reload");
        let before = told(self);
        self.signal(Signal::HUP);
        wait_for("the reload to end", || (told(self) > before).then_some(()));
    }

    /// Waits for the end of the process. Returns the complete log.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, String) {
        self.process.wait()
    }

    /// Stops it as systemd would, and returns the complete log.
    #[track_caller]
    pub fn stop(&mut self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{status}; the log:\n{log}");
        log
    }
}
