//! The benchmark against peers and limits: the daemon beside `blackbox_exporter` and a bare loop, then alone.
//!
//! `cargo bench --bench peers` needs prometheus-blackbox-exporter for its first part. Everybody probes the same server,
//! which keeps its own account; CPU and memory are read from /proc, the same way for all; they take turns, so that what
//! else the machine does hits all alike.

#[path = "../thousand/account.rs"]
#[expect(dead_code, reason = "the grid is the other benchmark's to judge")]
mod account;
#[path = "../thousand/bare.rs"]
mod bare;
mod blackbox;
mod limits;
mod ours;
#[path = "../thousand/page.rs"]
#[expect(dead_code, reason = "a page's length only the other benchmark asks for")]
mod page;
#[path = "../thousand/process.rs"]
#[expect(dead_code, reason = "some of it only the other benchmark asks for")]
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

/// Compares the daemon with `blackbox_exporter` and a bare loop, then looks for its limits.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long everybody is measured, in turns that are half as long where CPU is counted
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

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Http,
    /// A full handshake each time, the same one for everybody.
    Https,
    /// With a post-quantum key exchange for those who offer it, which the peer of Debian 12 does not.
    HttpsPq,
    /// Connects, and sends nothing: `tcp` of `blackbox_exporter`.
    Network,
}

/// How long the server waits before it answers, where a number in flight is wanted.
const HOLD: Duration = Duration::from_millis(20);
/// Turns of everybody.
const TURNS: usize = 4;
/// Runs a second that make one and eight in flight on average with that wait.
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

/// What every measurement needs.
pub(crate) struct Bench<'a> {
    pub(crate) server: Server,
    pub(crate) ca_file: PathBuf,
    pub(crate) directory: &'a Path,
    pub(crate) program: &'a Path,
    pub(crate) seconds: u32,
    /// Filled on the way.
    pub(crate) table: Table,
}

/// CPU-seconds for each 1,000 probes, as the server counts them: of the turn that took the least, since whatever else the
/// machine does only adds to it.
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

    /// CPU of everybody, in turns.
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

    /// Only eight in flight have aims, and `network` has none.
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
        // Past the start and its first interval.
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

    /// Asks the peer for so many probes a second.
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

    /// How long a turn takes, in seconds.
    fn turn(&self) -> u32 {
        self.seconds.div_ceil(2)
    }

    /// What is not measured has its row all the same.
    fn without_peer(&mut self) {
        println!("SKIPPED: the peer, since prometheus-blackbox-exporter is not installed\n");
        for name in ["http", "https"] {
            self.judge(name, 8, f64::NAN, f64::NAN);
        }
    }

    /// Resident memory of the peer, whose targets are Prometheus' and not its own.
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
    /// The benchmark of the first token, which has a simulator and a table of its own.
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
                // Of by, at once, in flight, n, bias, min and p50.
                let median = row.and_then(|row| row[6].parse().ok()).unwrap_or(f64::NAN);
                let what = format!("first-token error, {streams} at once, {by}, median");
                self.table.at_most(&what, median, 1.0, "ms");
            }
        }
        Ok(())
    }
}

/// Seconds of CPU that the threads of a process have used, to the nanosecond. Neither program's threads end meanwhile.
pub(crate) fn cpu(id: u32) -> Result<f64, Box<dyn Error>> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// What a process has resident.
pub(crate) fn mebibytes(id: u32) -> Result<f64, Box<dyn Error>> {
    Ok(Usage::of(id)?.resident as f64 / f64::from(1 << 20))
}
