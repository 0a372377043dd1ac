//! The simulator and the daemon as processes, and their configuration.

use std::{
    error::Error,
    fmt::Write,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tempfile::TempDir;

use super::{page, process::Running};

/// Number of providers that the probes are spread over.
const PROVIDERS: u32 = 10;

/// Name in the directory of the setting.
const CA_FILE: &str = "ca.pem";
const LOGS: &str = "logs";

/// Maximum time until the daemon is ready.
const START: Duration = Duration::from_secs(30);

/// Scheme of the simulator's URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The running processes and their addresses.
pub(crate) struct Setting {
    // Dropped before the directory that they write to: fields are dropped in this order.
    pub(crate) daemon: Running,
    pub(crate) simulator: Running,
    /// The daemon's listener.
    pub(crate) address: SocketAddr,
    /// Names of the probes.
    pub(crate) probes: Vec<String>,
    base_url: String,
    directory: TempDir,
}

impl Setting {
    /// Starts both, and returns when every probe is scheduled. Without a scenario every answer is a
    /// success.
    pub(crate) fn start(
        program: &Path,
        probes: u32,
        scheme: Scheme,
        scenario: Option<&str>,
    ) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let ca_file = directory.path().join(CA_FILE);
        let mut command = Command::new(program);
        command.args(["simulate", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--ca-file"]);
        command.arg(&ca_file);
        if let Some(scenario) = scenario {
            let file = directory.path().join("scenario.toml");
            fs::write(&file, scenario)?;
            command.arg("--scenario").arg(file);
        }
        let mut simulator = Running::start("the simulator", command.stdout(Stdio::piped()))?;
        let base_url = base_url(&mut simulator, scheme)?;
        // Free now. If another program takes it first, the daemon reports that and ends.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let probes: Vec<_> = (0..probes).map(|number| format!("bench-{number:04}")).collect();
        let logs = directory.path().join(LOGS);
        let configuration = directory.path().join("config.toml");
        fs::write(&configuration, text(address, &logs, &base_url, &ca_file, &probes)?)?;
        let messages = directory.path().join("stderr");
        let daemon = Running::start(
            "the daemon",
            Command::new(program)
                .args(["run", "--config"])
                .arg(&configuration)
                .stderr(File::create(&messages)?),
        )?;
        let mut setting = Self { daemon, simulator, address, probes, base_url, directory };
        setting.wait_until_ready().map_err(|error| {
            format!("{error}; output:\n{}", fs::read_to_string(&messages).unwrap_or_default())
        })?;
        Ok(setting)
    }

    /// Returns the directory of the records.
    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.path().join(LOGS)
    }

    /// Returns the certificate of the simulator's authority.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.path().join(CA_FILE)
    }

    /// Returns the URL that every probe requests.
    pub(crate) fn url(&self) -> String {
        format!("{}/health", self.base_url)
    }

    fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + START;
        while page::body(self.address, "/-/ready").is_err() {
            self.daemon.check_alive()?;
            if Instant::now() > deadline {
                return Err(format!("the daemon is not ready within {START:?}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Returns the base URL of the simulated LangMart, from the simulator's output.
fn base_url(simulator: &mut Running, scheme: Scheme) -> Result<String, Box<dyn Error>> {
    // It stays open, because the simulator ends if its output is closed.
    let printed = simulator.child().stdout.as_mut().ok_or("the simulator has no standard output")?;
    let beginning = format!("{}://", scheme.name());
    for line in BufReader::new(printed).lines() {
        if let Some(url) =
            line?.split('"').find(|url| url.starts_with(&beginning) && url.ends_with("/langmart"))
        {
            return Ok(url.to_owned());
        }
    }
    Err("the simulator does not print its address".into())
}

/// Returns the configuration: every probe a health check once a second, without limits, otherwise
/// with defaults.
fn text(
    listen: SocketAddr,
    logs: &Path,
    base_url: &str,
    ca_file: &Path,
    probes: &[String],
) -> Result<String, std::fmt::Error> {
    let (logs, ca_file) = (logs.display(), ca_file.display());
    let mut text = format!(
        "server.listen = \"{listen}\"\n\
         log.directory = \"{logs}\"\n\
         log.max_file_size = \"100GiB\"\n\
         schedule.max_concurrent = 10000\n\
         schedule.max_concurrent_per_provider = 10000\n\
         defaults.interval = \"1s\"\n"
    );
    for number in 0..PROVIDERS {
        writeln!(
            text,
            "[provider.p{number}]\napi = \"langmart\"\nbase_url = \"{base_url}\"\nca_file = \"{ca_file}\""
        )?;
    }
    for (probe, number) in probes.iter().zip((0..PROVIDERS).cycle()) {
        writeln!(text, "[[probe]]\nname = \"{probe}\"\nprovider = \"p{number}\"\ncheck = \"health\"")?;
    }
    Ok(text)
}
