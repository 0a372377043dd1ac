//! The benchmark against peers and limits: the daemon, `blackbox_exporter` and a bare loop in
//! comparison, then the daemon alone.
//!
//! `cargo bench --bench peers` needs prometheus-blackbox-exporter for its first part. All probe the
//! same server, which keeps its own counts; CPU and memory are read from /proc for all alike; they
//! take turns, so that other load of the machine affects all alike.

#[path = "../thousand/account.rs"]
#[expect(dead_code, reason = "another benchmark checks the slots")]
mod account;
#[path = "../thousand/bare.rs"]
mod bare;
mod blackbox;
mod limits;
mod ours;
#[path = "../thousand/page.rs"]
#[expect(dead_code, reason = "another benchmark uses the length of a page")]
mod page;
#[path = "../thousand/process.rs"]
#[expect(dead_code, reason = "another benchmark uses the rest")]
mod process;
mod server;
mod table;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

use self::{
    blackbox::Blackbox,
    ours::{Load, Ours},
    process::{Machine, Usage, machine_name},
    server::Server,
    table::Table,
};

/// Compares the daemon with `blackbox_exporter` and a bare loop, then measures its limits.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds of each measurement; turns that measure CPU take half as long
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(3..=60))]
    seconds: u32,
    /// Another build of langmart-prober in place of this one, to compare them
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_langmart-prober"))]
    program: PathBuf,
    /// Be the server that is probed
    #[arg(long, value_name = "CA_FILE", hide = true)]
    serve: Option<PathBuf>,
    /// Given by cargo bench, and not by cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

/// Kind of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Http,
    /// A full handshake each time, the same for all.
    Https,
    /// With a post-quantum key exchange for clients that offer it, which the peer of Debian 12 does
    /// not.
    HttpsPq,
    /// Connects without sending a request: `tcp` of `blackbox_exporter`.
    Network,
}

/// Delay of the server's answers, to reach a number of probes in flight.
const HOLD: Duration = Duration::from_millis(20);
/// Number of turns of each program.
const TURNS: usize = 4;
/// Probes per second that result in one and in eight in flight on average with that delay.
const RATES: [(u32, u32); 2] = [(1, 50), (8, 400)];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.serve {
        Some(ca_file) => server::serve(ca_file),
        None if arguments.bench => measure(&arguments),
        None => {
            println!("It takes minutes, and is run by: cargo bench --bench peers");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    println!("machine: {}", machine_name()?);
    let directory = tempfile::tempdir()?;
    let mut bench = Bench {
        ca_file: directory.path().join("ca.pem"),
        server: Server::start(&directory.path().join("ca.pem"))?,
        directory: directory.path(),
        program: &arguments.program,
        seconds: arguments.seconds,
        table: Table::default(),
    };
    match Blackbox::version() {
        Some(version) => {
            println!("peer: {version}\n");
            bench.costs()?;
            bench.memory_of_peer()?;
        }
        None => bench.without_peer(),
    }
    limits::print(&mut bench)?;
    bench.first_token()?;
    bench.table.print();
    Ok(())
}

/// Common parameters of the measurements.
pub(crate) struct Bench<'a> {
    pub(crate) server: Server,
    pub(crate) ca_file: PathBuf,
    pub(crate) directory: &'a Path,
    pub(crate) program: &'a Path,
    pub(crate) seconds: u32,
    /// Filled during the benchmark.
    pub(crate) table: Table,
}

/// CPU seconds per 1,000 probes, as counted by the server, of the turn with the minimum, because
/// other load of the machine only adds to it.
#[derive(Clone, Copy)]
struct Cost(f64);

impl Cost {
    const UNKNOWN: Self = Self(f64::INFINITY);

    fn take(&mut self, seconds: f64, probes: f64) {
        self.0 = self.0.min(seconds / probes * 1e3);
    }
}

impl Bench<'_> {
    pub(crate) fn load(&self, manner: Manner, probes: u32) -> Load<'_> {
        let target = match manner {
            Manner::Http | Manner::Network => self.server.plain,
            Manner::Https => self.server.tls,
            Manner::HttpsPq => self.server.post_quantum,
        };
        Load { program: self.program, ca_file: &self.ca_file, manner, target, probes, interval: "1s" }
    }

    /// Measures the CPU time of all programs, in turns.
    fn costs(&mut self) -> Result<(), Box<dyn Error>> {
        println!("## CPU-seconds per 1,000 probes, our records and a scrape a turn included");
        println!(
            "{:<8} {:>9} {:>8} {:>9} {:>6} {:>8} {:>6} {:>10}",
            "probe", "in flight", "ours", "blackbox", "ratio", "bare", "ratio", "cores busy"
        );
        for manner in [Manner::Http, Manner::Https, Manner::HttpsPq, Manner::Network] {
            for (in_flight, rate) in RATES {
                if (manner, in_flight) == (Manner::HttpsPq, 1) {
                    continue;
                }
                self.server.hold(HOLD)?;
                let [mut ours, mut peer, mut bare] = [Cost::UNKNOWN; 3];
                let busy = Machine::now()?.busy;
                let begin = Instant::now();
                for _ in 0..TURNS {
                    self.our_cost(&mut ours, manner, rate)?;
                    self.peer_cost(&mut peer, manner, rate)?;
                    if manner != Manner::Network {
                        self.bare_cost(&mut bare, manner, rate)?;
                    }
                }
                let busy = (Machine::now()?.busy - busy) / begin.elapsed().as_secs_f64();
                let (Cost(ours), Cost(peer), Cost(bare)) = (ours, peer, bare);
                let name = format!("{manner:?}").to_lowercase();
                self.judge(&name, in_flight, ours / peer, ours / bare);
                let bare = match manner {
                    Manner::Http | Manner::Https | Manner::HttpsPq => {
                        format!("{bare:>8.3} {:>6.2}", ours / bare)
                    }
                    Manner::Network => format!("{:>8} {:>6}", "-", "-"),
                };
                println!(
                    "{name:<8} {in_flight:>9} {ours:>8.3} {peer:>9.3} {:>6.2} {bare} {busy:>10.2}",
                    ours / peer,
                );
            }
        }
        println!();
        Ok(())
    }

    /// Compares with the aims, which exist for eight in flight only, and not for `network`.
    fn judge(&mut self, name: &str, in_flight: u32, of_peer: f64, of_bare: f64) {
        let aim = match (name, in_flight) {
            ("http", 8) => 0.15,
            ("https", 8) => 0.3,
            _ => return,
        };
        let what = format!("CPU of {name}, 8 in flight, of ");
        self.table.at_most(&format!("{what}blackbox_exporter's"), of_peer, aim, "");
        self.table.at_most(&format!("{what}a bare reqwest loop's"), of_bare, 1.0, "");
    }

    fn our_cost(&mut self, cost: &mut Cost, manner: Manner, rate: u32) -> Result<(), Box<dyn Error>> {
        let ours = Ours::start(&self.load(manner, rate))?;
        // After the start and its first interval.
        thread::sleep(Duration::from_millis(1_200));
        self.server.take()?;
        let before = cpu(ours.running.id())?;
        thread::sleep(Duration::from_secs(self.turn().into()));
        ours.scrape(true)?;
        let seconds = cpu(ours.running.id())? - before;
        cost.take(seconds, self.server.take()?);
        Ok(())
    }

    fn peer_cost(&mut self, cost: &mut Cost, manner: Manner, rate: u32) -> Result<(), Box<dyn Error>> {
        let blackbox = Blackbox::start(self.directory, Some(&self.ca_file))?;
        self.ask(&blackbox, manner, rate, 1)?;
        self.server.take()?;
        let before = cpu(blackbox.running.id())?;
        self.ask(&blackbox, manner, rate, self.turn())?;
        let seconds = cpu(blackbox.running.id())? - before;
        cost.take(seconds, self.server.take()?);
        Ok(())
    }

    /// Lets the peer make that many probes per second.
    fn ask(
        &self,
        blackbox: &Blackbox,
        manner: Manner,
        rate: u32,
        seconds: u32,
    ) -> Result<(), Box<dyn Error>> {
        let target = self.load(manner, rate).target;
        let (module, target) = match manner {
            Manner::Http => ("http", format!("http://{target}/health")),
            Manner::Https | Manner::HttpsPq => ("http", format!("https://{target}/health")),
            Manner::Network => ("tcp", target.to_string()),
        };
        let begin = Instant::now();
        let due = |number: u32| begin + Duration::from_secs(1) * number / rate;
        blackbox.ask(module, (0..rate * seconds).map(|number| (due(number), target.clone())).collect())?;
        Ok(())
    }

    fn bare_cost(&mut self, cost: &mut Cost, manner: Manner, rate: u32) -> Result<(), Box<dyn Error>> {
        let scheme = if manner == Manner::Http { "http" } else { "https" };
        let url = format!("{scheme}://{}/health", self.load(manner, rate).target);
        let bare = bare::run(&url, &self.ca_file, rate, self.turn().into())?;
        cost.take(bare.seconds, bare.requests as f64);
        Ok(())
    }

    /// Returns the duration of a turn in seconds.
    fn turn(&self) -> u32 {
        self.seconds.div_ceil(2)
    }

    /// Adds rows for what cannot be measured.
    fn without_peer(&mut self) {
        println!("SKIPPED: the peer, since prometheus-blackbox-exporter is not installed\n");
        for name in ["http", "https"] {
            self.judge(name, 8, f64::NAN, f64::NAN);
        }
    }

    /// Measures the resident memory of the peer, whose targets are kept by Prometheus.
    fn memory_of_peer(&mut self) -> Result<(), Box<dyn Error>> {
        self.server.hold(Duration::ZERO)?;
        let blackbox = Blackbox::start(self.directory, Some(&self.ca_file))?;
        print!("blackbox_exporter, resident MiB: at rest {:.1}", mebibytes(blackbox.running.id())?);
        for rate in [100, 1000] {
            self.ask(&blackbox, Manner::Http, rate, 5)?;
            print!(", after 5 s of {rate} a second {:.1}", mebibytes(blackbox.running.id())?);
        }
        println!("\n");
        Ok(())
    }
}

impl Bench<'_> {
    /// Runs the benchmark of the first token, which has a simulator and a table of its own.
    fn first_token(&mut self) -> Result<(), Box<dyn Error>> {
        let cargo =
            std::env::var_os("CARGO").ok_or("CARGO is not set: run it by cargo bench --bench peers")?;
        let output = Command::new(cargo)
            .args(["bench", "--bench", "first_token"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}");
        for by in ["run", "once"] {
            for streams in ["1", "100", "400"] {
                let row = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                let row = row.filter(|row| row.len() > 6).find(|row| row[..2] == [by, streams]);
                // Columns: by, at once, in flight, n, bias, min and p50.
                let median = row.and_then(|row| row[6].parse().ok()).unwrap_or(f64::NAN);
                let what = format!("first-token error, {streams} at once, {by}, median");
                self.table.at_most(&what, median, 1.0, "ms");
            }
        }
        Ok(())
    }
}

/// Returns the CPU seconds that the threads of a process have used. No thread ends meanwhile.
pub(crate) fn cpu(id: u32) -> Result<f64, Box<dyn Error>> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// Returns the resident memory of a process.
pub(crate) fn mebibytes(id: u32) -> Result<f64, Box<dyn Error>> {
    Ok(Usage::of(id)?.resident as f64 / f64::from(1 << 20))
}
