//! A simulator, a configuration with the required number of stream probes, and the two ways to run
//! them.

use std::{
    error::Error,
    fmt::Write,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    account::{Account, Measured},
    process::{Machine, Running, Usage},
    simulator::Beside,
};

/// Interval of the daemon's probes.
const INTERVAL: Duration = Duration::from_secs(3);
/// Pace of a stream. It is long, so that many streams overlap: five sixths of the interval, which
/// is the share of the daemon's probes in flight at any time.
const PACE: &str = "first_token = \"50ms\", token = \"500ms\", tokens = 6";
const PROBES_FOR_FIVE_IN_FLIGHT: usize = 6;
/// Number of streams of `once` over all of its calls, and the maximum number of calls.
const STREAMS_OF_ONCE: usize = 2000;
const CALLS_OF_ONCE: usize = 20;

/// A key that the simulator accepts, for configuration and environment of the prober.
pub(crate) const KEY: &str = "api_key = { env = \"BENCH_KEY\" }";
pub(crate) const VARIABLE: (&str, &str) = ("BENCH_KEY", "sk-0123456789");

/// A directory with the files of the processes.
pub(crate) struct Setting<'a> {
    program: &'a Path,
    streams: usize,
    directory: TempDir,
}

impl<'a> Setting<'a> {
    /// Creates it for that many concurrent streams.
    pub(crate) fn new(program: &'a Path, streams: usize) -> Result<Self, Box<dyn Error>> {
        Ok(Self { program, streams, directory: tempfile::tempdir()? })
    }

    /// Runs the daemon in its own rhythm, with its probes spread over the interval.
    pub(crate) fn daemon(&self, time: Duration) -> Result<Account, Box<dyn Error>> {
        let probes = match self.streams {
            1 => 1,
            streams => streams * PROBES_FOR_FIVE_IN_FLIGHT / 5 + PROBES_FOR_FIVE_IN_FLIGHT,
        };
        let simulator = self.prepare(probes)?;
        let before = (Machine::now()?, Instant::now());
        let messages = self.directory.path().join("stderr");
        let mut daemon = Running::start(
            "the daemon",
            Command::new(self.program)
                .env(VARIABLE.0, VARIABLE.1)
                .args(["run", "--config"])
                .arg(self.configuration())
                .stderr(File::create(&messages)?),
        )?;
        thread::sleep(time);
        let used = Usage::of(daemon.id())?;
        daemon.check_alive().and_then(|()| daemon.stop()).map_err(|error| {
            format!("{error}; output:\n{}", fs::read_to_string(&messages).unwrap_or_default())
        })?;
        let busy = busy_since(&before)?;
        let mut measured = Vec::new();
        for file in fs::read_dir(self.logs())? {
            let path = file?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("results.jsonl")) {
                measured.extend(Measured::read(&fs::read(path)?)?);
            }
        }
        // Without those of the first interval, which start one after the other.
        let streams = simulator.end()?;
        let mut account = Account::of(measured, &streams, self.streams, busy)?;
        account.cpu = Some((used.user + used.system) / streams.len() as f64 * 1e3);
        Ok(account)
    }

    /// Runs `once` several times, which starts all streams as soon as it can.
    pub(crate) fn once(&self) -> Result<Account, Box<dyn Error>> {
        let simulator = self.prepare(self.streams)?;
        let before = (Machine::now()?, Instant::now());
        let mut measured = Vec::new();
        for _ in 0..STREAMS_OF_ONCE.div_ceil(self.streams).min(CALLS_OF_ONCE) {
            let output = Command::new(self.program)
                .env(VARIABLE.0, VARIABLE.1)
                .args(["once", "--json", "--config"])
                .arg(self.configuration())
                .stderr(Stdio::inherit())
                .output()?;
            measured.extend(Measured::read(&output.stdout)?);
        }
        let busy = busy_since(&before)?;
        // First tokens of some streams arrive while others still start, and all count.
        Account::of(measured, &simulator.end()?, 1, busy)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    fn logs(&self) -> PathBuf {
        self.directory.path().join("logs")
    }

    /// Starts the simulator and writes the configuration, each probe with a model of its own.
    fn prepare(&self, probes: usize) -> Result<Beside, Box<dyn Error>> {
        let models: Vec<_> = (0..probes).map(|number| format!("m{number:04}")).collect();
        let scenario = self.directory.path().join("scenario.toml");
        fs::write(&scenario, format!("[models]\nopenai = {models:?}\n[[rule]]\npace = {{ {PACE} }}\n"))?;
        let simulator = Beside::start(&scenario, &[])?;
        let mut text = format!(
            "server.listen = \"127.0.0.1:0\"\n\
             log.directory = \"{}\"\n\
             schedule.max_concurrent = 10000\n\
             schedule.max_concurrent_per_provider = 10000\n\
             defaults.generation.interval = \"{INTERVAL:?}\"\n\
             [provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n",
            self.logs().display(),
            simulator.address,
        );
        for model in &models {
            writeln!(
                text,
                "[[probe]]\nname = \"{model}\"\nprovider = \"openai\"\ncheck = \"stream\"\nmodel = \"{model}\""
            )?;
        }
        fs::write(self.configuration(), text)?;
        Ok(simulator)
    }
}

/// Returns the mean number of busy cores.
fn busy_since((machine, at): &(Machine, Instant)) -> Result<f64, Box<dyn Error>> {
    Ok((Machine::now()?.busy - machine.busy) / at.elapsed().as_secs_f64())
}
