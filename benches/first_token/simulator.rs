//! The simulator as a process, which tells its record of every stream when it is asked to end.

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

/// What the simulator wrote, and when: microseconds since its start, none of which is the prober's.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Stream {
    pub(crate) model: String,
    /// The whole request was there, which is where scripted pauses begin.
    pub(crate) received: f64,
    /// Just before the write of the first visible content; `None`: it was not written.
    pub(crate) first_token: Option<f64>,
    /// Just before each write.
    pub(crate) writes: Vec<f64>,
}

/// The child's side: simulates until standard input ends, then prints its record, a stream a line.
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
        if let Some(stream) = Stream::of(recorded, began) {
            writeln!(out, "{}", serde_json::to_string(&stream)?)?;
        }
    }
    Ok(out.flush()?)
}

impl Stream {
    fn of(recorded: Recorded, began: Instant) -> Option<Self> {
        let since = |at: Instant| at.duration_since(began).as_secs_f64() * 1e6;
        Some(Self {
            model: recorded.model?,
            received: since(recorded.received?),
            first_token: recorded.first_token.map(since),
            writes: recorded.writes.iter().map(|write| since(write.at)).collect(),
        })
    }

    /// The simulator's own time to the first token, in microseconds.
    pub(crate) fn time_to_first_token(&self) -> Option<f64> {
        Some(self.first_token? - self.received)
    }
}

/// The parent's side.
pub(crate) struct Beside {
    running: Running,
    printed: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Beside {
    pub(crate) fn start(scenario: &Path) -> Result<Self, Box<dyn Error>> {
        let mut running = Running::start(
            "the simulator",
            Command::new(std::env::current_exe()?)
                .arg("--simulate")
                .arg(scenario)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let printed = running.child().stdout.take().ok_or("the simulator has no standard output")?;
        let mut printed = BufReader::new(printed);
        let mut address = String::new();
        printed.read_line(&mut address)?;
        Ok(Self { address: address.trim().parse()?, printed, running })
    }

    /// Its record, in the order in which requests came.
    pub(crate) fn end(mut self) -> Result<Vec<Stream>, Box<dyn Error>> {
        drop(self.running.child().stdin.take());
        self.printed.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    }
}
