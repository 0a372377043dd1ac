//! The simulator as a process that prints its record of every request at its end.

use std::{
    error::Error,
    fs,
    io::{self, BufRead, BufReader, BufWriter, Read, Write as _},
    net::SocketAddr,
    path::Path,
    process::{ChildStdout, Command, Stdio},
    time::Instant,
};

use langmart_prober::simulator::{Options, Recorded, Scenario, Simulator};
use serde::{Deserialize, Serialize};

use super::process::Running;

/// A request with its times, in microseconds since the start of the simulator, by its own clock.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    /// Requested model; empty if there is none.
    pub(crate) model: String,
    /// Query of the path; empty if there is none.
    pub(crate) query: String,
    /// Time at which the connection was accepted.
    pub(crate) accepted: f64,
    /// Time at which the request was complete, from which scripted pauses are measured.
    pub(crate) received: f64,
    /// Time just before the write of the first visible content. `None` if there was none.
    pub(crate) first_token: Option<f64>,
    /// Times just before each write.
    pub(crate) writes: Vec<f64>,
}

/// Runs the child: simulates until standard input ends, then prints its record, one request per
/// line.
pub(crate) fn serve(scenario: &Path) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let scenario = Scenario::parse(&fs::read_to_string(scenario)?)?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut simulator = Simulator::start(Options { listen, tls_listen: None, scenario })?;
    println!("{}", simulator.address());
    io::stdin().read_to_end(&mut Vec::new())?;
    simulator.stop();
    let mut out = BufWriter::new(io::stdout().lock());
    for recorded in simulator.requests() {
        if let Some(request) = Request::of(recorded, began) {
            writeln!(out, "{}", serde_json::to_string(&request)?)?;
        }
    }
    Ok(out.flush()?)
}

impl Request {
    fn of(recorded: Recorded, began: Instant) -> Option<Self> {
        let since = |at: Instant| at.duration_since(began).as_secs_f64() * 1e6;
        Some(Self {
            model: recorded.model.unwrap_or_default(),
            query: recorded.query.unwrap_or_default(),
            accepted: since(recorded.accepted),
            received: since(recorded.received?),
            first_token: recorded.first_token.map(since),
            writes: recorded.writes.iter().map(|write| since(write.at)).collect(),
        })
    }

    /// Returns the simulator's own time to first token in microseconds.
    pub(crate) fn time_to_first_token(&self) -> Option<f64> {
        Some(self.first_token? - self.received)
    }
}

/// The child as the parent sees it.
pub(crate) struct Beside {
    running: Running,
    printed: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Beside {
    /// Starts this program as the simulator, with `chrt` or `nice` if such a command is given.
    pub(crate) fn start(scenario: &Path, priority: &[&str]) -> Result<Self, Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let mut command = match priority {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let mut running = Running::start(
            "the simulator",
            command.arg("--simulate").arg(scenario).stdin(Stdio::piped()).stdout(Stdio::piped()),
        )?;
        let printed = running.child().stdout.take().ok_or("the simulator has no standard output")?;
        let mut printed = BufReader::new(printed);
        let mut address = String::new();
        printed.read_line(&mut address)?;
        Ok(Self { address: address.trim().parse()?, printed, running })
    }

    /// Returns its record, in the order of the requests.
    pub(crate) fn end(mut self) -> Result<Vec<Request>, Box<dyn Error>> {
        drop(self.running.child().stdin.take());
        self.printed.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    }
}
