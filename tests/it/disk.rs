//! Tests of disk failures: none stops or delays probing, and every line is accounted for.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Command,
    thread,
};

use langmart_prober::simulator::Simulator;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    parts,
    scrape::Scrape,
    simulate::simulator,
    wait::wait_for,
};

/// A daemon whose twenty probes write two hundred records a second into the directory `logs`.
struct Bench {
    place: Place,
    daemon: Daemon,
    simulator: Simulator,
}

/// Number of records by result, according to the daemon's metrics.
struct Books {
    runs: f64,
    lost: f64,
}

impl Bench {
    fn start() -> Self {
        let simulator = simulator("");
        let place = Place::new("");
        fs::create_dir(place.path("logs")).unwrap();
        place.write("config.toml", &config(&place, &simulator, "100ms"));
        let daemon = place.daemon();
        Self { place, daemon, simulator }
    }

    fn logs(&self) -> PathBuf {
        self.place.path("logs")
    }

    /// Returns the current file of that kind.
    fn current(&self, prefix: &str) -> PathBuf {
        let entries = fs::read_dir(self.logs()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).max().unwrap()
    }

    /// Waits for that many more runs, which must continue regardless of the disk.
    #[track_caller]
    fn probes_on(&self, runs: f64) {
        let before = self.daemon.scrape().sum("langmart_probe_runs_total");
        self.daemon.scrape_until("probing to continue", |scrape| {
            scrape.sum("langmart_probe_runs_total") > before + runs
        });
    }

    #[track_caller]
    fn until_records_are_lost(&self) {
        let before = lost(&self.daemon.scrape(), "results");
        self.daemon.scrape_until("records to be lost", |scrape| lost(scrape, "results") > before + 20.0);
    }

    #[track_caller]
    fn until_nothing_is_lost(&self) {
        wait_for("records to be written again", || {
            let before = lost(&self.daemon.scrape(), "results");
            self.probes_on(60.0);
            (lost(&self.daemon.scrape(), "results") <= before).then_some(())
        });
    }

    /// Stops the runs, so that the counters no longer change, and then the daemon.
    #[track_caller]
    fn close(mut self) -> (Books, Place) {
        // The same probes with an interval of a week.
        self.place.write("config.toml", &config(&self.place, &self.simulator, "168h"));
        self.daemon.reload();
        let idle = |scrape: &Scrape| scrape.value("langmart_prober_runs_in_flight", &[]) == 0.0;
        self.daemon.scrape_until("the end of all runs", idle);
        // A run is counted just after it is no longer in flight, by the thread that answers the
        // next reload.
        self.daemon.reload();
        let account = self.daemon.scrape();
        let books = Books { runs: account.sum("langmart_probe_runs_total"), lost: lost(&account, "results") };
        self.daemon.stop();
        (books, self.place)
    }
}

fn config(place: &Place, simulator: &Simulator, interval: &str) -> String {
    let probe = |number| {
        format!(
            "[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"auth\"\ninterval = \"{interval}\"\n"
        )
    };
    let probes = (0..20).map(probe).collect::<Vec<_>>().concat();
    format!(
        "{LISTEN}[log]\ndirectory = \"{}\"\n[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\n\
         checks = []\n{probes}",
        place.path("logs").display(),
        simulator.address()
    )
}

/// Returns the numbers of lines dropped and failed.
fn lost(scrape: &Scrape, file: &str) -> f64 {
    ["langmart_prober_log_lines_dropped_total", "langmart_prober_log_write_errors_total"]
        .map(|name| scrape.value(name, &[("file", file)]))
        .iter()
        .sum()
}

/// Returns the duration of the write in progress.
fn blocked(scrape: &Scrape, file: &str) -> f64 {
    scrape.value("langmart_prober_log_write_in_progress_seconds", &[("file", file)])
}

/// Checks that a blocked disk is visible as an increasing metric and in the health page.
#[track_caller]
fn check_blocked(daemon: &Daemon, file: &str) {
    daemon.scrape_until("a blocked write to be seen", |scrape| blocked(scrape, file) > 10.0);
    let healthy = daemon.get("/-/healthy");
    let expected = format!("healthy\n{file}: write blocked for 1");
    assert!(healthy.status == 200 && healthy.body.starts_with(&expected), "{healthy:?}");
    for other in ["log", "results"].into_iter().filter(|other| *other != file) {
        assert!(blocked(&daemon.scrape(), other) < 10.0, "{other}");
    }
}

/// Returns the number of records, and checks that each is complete.
#[track_caller]
fn records(text: &str) -> f64 {
    for line in text.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "an incomplete line: {line}");
    }
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().count() as f64
}

/// A mount, which is removed when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    #[track_caller]
    fn new(at: PathBuf, options: &str) -> Self {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at));
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn full_disk_recovers_when_space_is_freed() {
    if !parts::has(&["mount"], true) {
        return;
    }
    let bench = Bench::start();
    bench.probes_on(20.0);
    // Moved, so that earlier files are not hidden below the small disk.
    let before = bench.place.path("before");
    fs::rename(bench.logs(), &before).unwrap();
    fs::create_dir(bench.logs()).unwrap();
    let disk = Mounted::new(bench.logs(), "size=64k");
    bench.until_records_are_lost();
    bench.probes_on(100.0);
    assert!(bench.daemon.logged("Failed to write file") >= 1);
    run(Command::new("mount").args(["-o", "remount,size=16m"]).arg(bench.logs()));
    bench.until_nothing_is_lost();
    assert!(bench.daemon.logged("File writable again") >= 1);
    let (books, place) = bench.close();
    let kept =
        records(&place.files("before", "results.jsonl")) + records(&place.files("logs", "results.jsonl"));
    assert_eq!(kept + books.lost, books.runs, "{} lost", books.lost);
    drop(disk);
}

#[test]
fn moved_and_read_only_directories_recover() {
    if !parts::has(&["mount"], true) {
        return;
    }
    let bench = Bench::start();
    bench.probes_on(20.0);
    fs::rename(bench.logs(), bench.place.path("away")).unwrap();
    wait_for("the directory to be created again", || bench.logs().exists().then_some(()));
    bench.until_nothing_is_lost();

    let disk = Mounted::new(bench.logs(), "ro");
    bench.until_records_are_lost();
    bench.probes_on(100.0);
    drop(disk);
    bench.until_nothing_is_lost();
    let (books, place) = bench.close();
    let kept =
        records(&place.files("away", "results.jsonl")) + records(&place.files("logs", "results.jsonl"));
    assert_eq!(kept + books.lost, books.runs, "{} lost", books.lost);
}

#[test]
fn replaced_file_and_blocked_disk_recover() {
    let bench = Bench::start();
    bench.probes_on(20.0);
    // As logrotate does.
    let current = bench.current("results.jsonl");
    fs::rename(&current, bench.place.path("rotated")).unwrap();
    fs::write(&current, "").unwrap();
    wait_for("the new file to be written", || (fs::metadata(&current).unwrap().len() > 0).then_some(()));

    // A FIFO that is not read accepts 64 KiB and then blocks the writer, as an unresponsive disk
    // does.
    fs::rename(&current, bench.place.path("replaced")).unwrap();
    mknodat(CWD, &current, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let pipe = fs::File::options().read(true).write(true).open(&current).unwrap();
    bench.probes_on(1200.0);
    let (healthy, ready) = (bench.daemon.get("/-/healthy").status, bench.daemon.get("/-/ready").status);
    assert_eq!((healthy, ready), (200, 200));
    check_blocked(&bench.daemon, "results");

    // The disk responds again.
    let reader = thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map(Result::unwrap);
        lines.take_while(|line| !line.is_empty()).map(|line| line + "\n").collect::<String>()
    });
    bench.until_nothing_is_lost();
    bench.daemon.scrape_until("the write to end", |scrape| blocked(scrape, "results") < 1.0);
    let (books, place) = bench.close();
    // An empty line ends the reader, which holds both ends of the FIFO open.
    fs::write(&current, "\n").unwrap();
    let piped = reader.join().unwrap();
    let files = ["rotated", "replaced"].map(|name| fs::read_to_string(place.path(name)).unwrap());
    let kept: f64 = files.iter().chain([&piped]).map(|text| records(text)).sum();
    assert_eq!(kept + books.lost, books.runs, "{} lost", books.lost);
    assert!(piped.len() > 65_536, "the pipe was never full: {}", piped.len());
}

#[test]
fn read_only_log_directory_at_start_is_a_warning() {
    if !parts::has(&["mount"], true) {
        return;
    }
    let simulator = simulator("");
    let place = Place::new("");
    fs::create_dir(place.path("logs")).unwrap();
    let disk = Mounted::new(place.path("logs"), "ro");
    place.write("config.toml", &config(&place, &simulator, "100ms"));
    let bench = Bench { daemon: place.daemon(), place, simulator };
    bench.until_records_are_lost();
    let log = bench.daemon.log();
    assert!(log.contains("WARN") && log.contains("Failed to write file"), "{log}");
    bench.daemon.scrape_until("lines of the log to be counted", |scrape| lost(scrape, "log") > 0.0);
    bench.daemon.reload();
    assert_eq!(bench.daemon.logged("Configuration reloaded"), 1, "the directory is as before");
    drop(disk);
    bench.until_nothing_is_lost();
    let (books, place) = bench.close();
    assert_eq!(records(&place.files("logs", "results.jsonl")) + books.lost, books.runs);
}

#[test]
fn uncreatable_log_directory_is_a_warning() {
    let simulator = simulator("");
    let place = Place::new("");
    // A file in place of the directory, regardless of permissions.
    place.write("logs", "");
    place.write("config.toml", &config(&place, &simulator, "100ms"));
    let bench = Bench { daemon: place.daemon(), place, simulator };
    bench.until_records_are_lost();
    fs::remove_file(bench.place.path("logs")).unwrap();
    bench.until_nothing_is_lost();
    let (books, place) = bench.close();
    assert_eq!(records(&place.files("logs", "results.jsonl")) + books.lost, books.runs);
}
