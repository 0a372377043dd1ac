//! The soak test: a turn per second, and the verdict at the end.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};

use super::{
    bad_clients::BadClients,
    client::ask,
    configuration::{Extras, Manner, PROVIDERS, write_key, write_secret},
    draw::Draw,
    failures::{Failure, Failures},
    faults::{Faults, fair},
    hints::Hints,
    line_account::{LineAccount, check},
    services::now,
    watch::Watch,
    world::{World, listeners_secret},
};
use crate::harness::random::Random;

/// Maximum increase of the mean resources from the second to the last quarter: caches of the first
/// minutes, and runs in flight. In an hour this is about 12 KiB and a thirtieth of a descriptor per
/// reload.
const MORE_MIB: f64 = 16.0;
const MORE_THREADS: f64 = 3.0;
const MORE_DESCRIPTORS: f64 = 60.0;

/// The same for memory if a quarter is shorter than [`LONG_QUARTER`]: quarters of half a minute
/// depend on the scenarios and have differed by 13 MiB up and 17 down. A silent name server occupies
/// a thread for each of some twenty names, for a minute longer than it is silent.
const MORE_MIB_SHORTLY: f64 = 48.0;
const MORE_THREADS_SHORTLY: f64 = 20.0;
const LONG_QUARTER: Duration = Duration::from_secs(300);

/// Maximum number of open descriptors at rest: files, listener, warm connections. It detects leaks
/// even in few minutes, because there is a reload per second.
const RESTING_DESCRIPTORS: f64 = 50.0;

/// Minimum number of hints that were certainly respected. On a slow machine, where many runs time
/// out before they read theirs, the soak test continues for them, up to twice as long.
const CERTAIN_HINTS: u64 = 50;

/// Reciprocal of the share of the time for which the daemon is stopped (SIGSTOP): a minute of an hour.
const STOPPED_SHARE: u32 = 60;

/// Turns for which the temporary probes run, are parked, and are absent.
const EXTRAS: [(Extras, u64); 3] = [(Extras::Fast, 4), (Extras::Parked, 4), (Extras::Absent, 2)];

struct Soak {
    random: Random,
    world: World,
    account: LineAccount,
    hints: Hints,
    watch: Watch,
    failures: Failures,
    faults: Faults,
    manner: Manner,
    /// Successful reloads since the temporary probes were last changed, and index in [`EXTRAS`].
    extras: (u64, usize),
    /// Number of runs of removed probes.
    departed: f64,
    /// Number of key files written.
    keys: u64,
    /// Provider whose key is empty, which makes every reload fail.
    empty_key: Option<usize>,
    reloads: [u64; 3],
    broken: Vec<String>,
    more_mib: f64,
    more_threads: f64,
}

/// Runs it, and prints violations.
pub fn run(minutes: u64, seed: u64) -> ExitCode {
    println!("soak: {minutes} min, replayed by: tests/soak --minutes {minutes} --seed {seed}");
    let asked = Duration::from_secs(minutes * 60);
    let is_short = asked / 4 < LONG_QUARTER;
    let world = World::build();
    let mut soak = Soak {
        random: Random(seed),
        account: LineAccount::open(&world.path("disk")),
        world,
        hints: Hints::default(),
        watch: Watch::default(),
        failures: Failures::default(),
        faults: Faults::all(),
        manner: Manner::default(),
        extras: (0, EXTRAS.len() - 1),
        departed: 0.0,
        keys: 0,
        empty_key: None,
        reloads: [0; 3],
        broken: Vec::new(),
        more_mib: if is_short { MORE_MIB_SHORTLY } else { MORE_MIB },
        more_threads: if is_short { MORE_THREADS_SHORTLY } else { MORE_THREADS },
    };
    soak.scrape();
    let bad_clients = BadClients::start(soak.world.address, seed);
    let mut began = Instant::now();
    let mut was_stopped = false;
    let mut turn = 0;
    let ends = |certain: u64| if certain < CERTAIN_HINTS { 2 * asked } else { asked };
    while began.elapsed() < ends(soak.hints.certain()) && soak.broken.len() < 20 {
        turn += 1;
        soak.turn(turn);
        if turn % 60 == 0 {
            soak.tell(began.elapsed());
        }
        if !was_stopped && began.elapsed() >= asked / 2 {
            was_stopped = true;
            soak.stop_for(asked / STOPPED_SHARE);
            began += asked / STOPPED_SHARE;
        }
        let next = began + Duration::from_secs(turn);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    bad_clients.rest();
    soak.close();
    soak.verdict()
}

impl Soak {
    fn turn(&mut self, turn: u64) {
        if !self.world.prober.is_running() {
            self.broken.push("the daemon has ended".to_owned());
        }
        self.failures.turn(turn, &self.world, &mut self.account, &mut self.random);
        if self.random.one_in(2) {
            let scenario = if self.random.one_in(5) { fair() } else { self.faults.draw(&mut self.random) };
            let when = self.world.services.play(&scenario.text);
            self.hints.scenario(&scenario, when);
        }
        if self.failures.is_on(Failure::NoDescriptors) {
            // Without changes, because the result of this reload is unknown.
            kill_process(self.world.prober.pid(), Signal::HUP).unwrap();
        } else {
            self.rotate_keys();
            self.reload();
        }
        self.scrape();
        self.account.look();
        for request in self.world.services.requests() {
            self.hints.request(&request);
        }
        self.hints.judge(false);
    }

    /// Stops the process as a suspended machine does, while other failures continue.
    fn stop_for(&mut self, time: Duration) {
        println!("stopped for {time:?}");
        kill_process(self.world.prober.pid(), Signal::STOP).unwrap();
        thread::sleep(time);
        kill_process(self.world.prober.pid(), Signal::CONT).unwrap();
    }

    fn rotate_keys(&mut self) {
        let directory = self.world.directory().to_owned();
        for _ in 0..self.random.below(4) {
            let provider = self.random.below(PROVIDERS);
            self.keys += 1;
            self.hints.rotated(provider, now());
            write_key(&directory, provider, self.keys, !self.random.one_in(4));
            self.empty_key = self.empty_key.filter(|empty| *empty != provider);
        }
        if let Some(provider) = self.empty_key.take() {
            self.keys += 1;
            write_key(&directory, provider, self.keys, true);
        } else if self.random.one_in(15) {
            let provider = self.random.below(PROVIDERS);
            self.hints.rotated(provider, now());
            write_secret(&directory, &format!("p{provider}"), "");
            self.empty_key = Some(provider);
        }
    }

    /// Writes a configuration, valid or invalid, and reloads it.
    fn reload(&mut self) {
        let bad = self.random.one_in(6);
        let before = (self.manner.clone(), self.extras, self.departed);
        if !bad {
            self.change();
        }
        let rest = if bad {
            *self.random.pick(&[
                "surprise = 1\n",
                "[[probe]]\nname = \"x\"\n",
                "[provider.bad]\napi = \"openai\"\napi_key = \"sk-cAnArY-literal-cAnArY\"\n",
                "[[[",
                "\u{0}",
            ])
        } else {
            ""
        };
        self.world.configure(&self.manner, rest);
        let answer = ask(self.world.address, "POST", "/-/reload");
        if let Ok((_, body)) = &answer {
            check(&mut self.broken, "the answer to a reload", body);
        }
        let expected = if bad || self.empty_key.is_some() { 500 } else { 200 };
        match answer {
            Ok((200, _)) if expected == 200 => {
                self.reloads[0] += 1;
                self.extras.0 += 1;
                self.hints.reloaded(now());
            }
            refused => {
                match refused {
                    Ok((500, _)) if expected == 500 => self.reloads[1] += 1,
                    // The log directory may be a file, or full.
                    Ok((500, body)) if body.contains("cannot open") => self.reloads[2] += 1,
                    other => {
                        let other = format!("a reload was answered with {other:?} in place of {expected}");
                        self.broken.push(other);
                    }
                }
                // Restore the file to the configuration in force, for reloads by signal.
                (self.manner, self.extras, self.departed) = before;
                self.world.configure(&self.manner, "");
            }
        }
    }

    /// Makes a random change.
    fn change(&mut self) {
        let (turns, which) = self.extras;
        if turns >= EXTRAS[which].1 {
            if EXTRAS[which].0 == Extras::Parked {
                self.departed += self.extra_runs();
            }
            self.extras = (0, (which + 1) % EXTRAS.len());
        }
        self.manner = Manner {
            extras: EXTRAS[self.extras.1].0,
            parked: false,
            level: self.random.pick::<&str>(&["info", "info", "warn", "debug"]),
            max_file_size: self.random.pick::<&str>(&["1GiB", "1GiB", "1GiB", "256KiB"]),
            daily_tokens: *self.random.pick(&[1_000_000_000, 1_000_000_000, 1_000_000_000, 1]),
            max_concurrent: *self.random.pick(&[200, 200, 100, 20]),
        };
    }

    fn extra_runs(&self) -> f64 {
        let last = self.watch.last();
        let runs = |number: u32| {
            last.find("langmart_probe_runs_total", &[("probe", &format!("extra-{number}"))])
                .unwrap_or_default()
        };
        (0..5).map(runs).sum()
    }

    /// Reads every page, unless there are no descriptors for an answer.
    fn scrape(&mut self) {
        if self.failures.is_on(Failure::NoDescriptors) {
            return;
        }
        for path in ["/metrics", "/", "/api/v1/results", "/-/healthy"] {
            let before = now();
            match ask(self.world.address, "GET", path) {
                Ok((200, page)) if path == "/metrics" => {
                    let unanswered = self.watch.page(&page, before);
                    self.hints.unanswered(now(), unanswered);
                }
                Ok((200, page)) => {
                    check(&mut self.broken, path, &page);
                    if page.contains(&listeners_secret()) {
                        self.broken.push(format!("{path} has the listener's credentials"));
                    }
                }
                answer => self.broken.push(format!("{path} was answered with {answer:?}")),
            }
        }
    }

    /// Ends all failures and all runs, so that the counters no longer change, and then the daemon.
    fn close(&mut self) {
        self.failures.cease(&self.world, &mut self.account);
        if let Some(provider) = self.empty_key.take() {
            write_key(self.world.directory(), provider, 0, true);
        }
        let when = self.world.services.play(&fair().text);
        self.hints.scenario(&fair(), when);
        self.manner = Manner { parked: true, extras: self.manner.extras, ..Manner::default() };
        self.world.configure(&self.manner, "");
        let deadline = Instant::now() + Duration::from_secs(60);
        while ask(self.world.address, "POST", "/-/reload").map_or(0, |(status, _)| status) != 200 {
            if Instant::now() > deadline {
                self.broken.push("the last reload failed for a minute".to_owned());
                break;
            }
            thread::sleep(Duration::from_millis(500));
        }
        let mut settled = f64::NAN;
        for _ in 0..30 {
            thread::sleep(Duration::from_secs(2));
            self.scrape();
            let last = self.watch.last();
            let now = last.sum("langmart_probe_runs_total") + last.sum("langmart_probe_rechecks_total");
            if now == settled && last.sum("langmart_prober_runs_in_flight") == 0.0 {
                break;
            }
            settled = now;
        }
        kill_process(self.world.prober.pid(), Signal::TERM).unwrap();
        let status = self.world.prober.wait();
        if status != Some(0) {
            self.broken.push(format!("the daemon ended with {status:?}"));
        }
        self.account.close();
        for request in self.world.services.requests() {
            self.hints.request(&request);
        }
        self.hints.judge(true);
        let state = std::fs::read_to_string(self.world.path("disk/state/state.json")).unwrap();
        check(&mut self.broken, "state.json", &state);
    }

    fn tell(&self, elapsed: Duration) {
        let last = self.watch.last();
        let held = self.watch.quarter(3);
        println!(
            "{:>4} s: {} runs, {} records lost, {} requests with a hint, {} reloads, {held:.1?}",
            elapsed.as_secs(),
            last.sum("langmart_probe_runs_total"),
            self.lost(),
            self.hints.given,
            self.reloads[0]
        );
    }

    fn lost(&self) -> f64 {
        let names = ["langmart_prober_log_lines_dropped_total", "langmart_prober_log_write_errors_total"];
        names.map(|name| self.watch.last().value(name, &[("file", "results")])).iter().sum()
    }

    /// Prints the figures and the violations.
    fn verdict(mut self) -> ExitCode {
        self.compare_account();
        self.compare_sizes();
        println!(
            "{} scrapes; reloads: {} good, {} bad, {} without a directory for logs",
            self.watch.scrapes, self.reloads[0], self.reloads[1], self.reloads[2]
        );
        println!(
            "{} hints were waited for, and {} perhaps not read; failures: {:?} of {:?}, {} removals of the logs",
            self.hints.certain(),
            self.hints.excused,
            self.failures.begun,
            Failure::ALL,
            self.failures.removals
        );
        self.watch.reasons.retain(|_, count| *count > 0.0);
        println!("failures: {:?}", self.watch.reasons);
        if self.hints.certain() < CERTAIN_HINTS {
            self.broken.push(format!("fewer than {CERTAIN_HINTS} hints were waited for without a doubt"));
        }
        let said = self.world.prober.said.lock().unwrap();
        println!("{} lines on standard error", said.lines);
        let mut broken = self.broken;
        broken.extend(said.broken.iter().cloned());
        for more in [self.account.broken, self.watch.broken, self.hints.early] {
            broken.extend(more);
        }
        if broken.is_empty() {
            println!("soak: all held");
            return ExitCode::SUCCESS;
        }
        println!("the end of standard error:");
        for line in &said.last {
            println!("    {line}");
        }
        // At the end, where they are seen first.
        for line in &broken {
            println!("BROKEN: {line:.1000}");
        }
        ExitCode::FAILURE
    }

    /// Checks that every run and recheck is a line in a file, or was counted as lost.
    fn compare_account(&mut self) {
        let rechecks = self.watch.last().sum("langmart_probe_rechecks_total");
        let runs = self.watch.last().sum("langmart_probe_runs_total") + self.departed;
        let (records, lines_lost) = (self.account.records as f64, self.lost());
        let account = format!("{runs} runs + {rechecks} rechecks, {records} records + {lines_lost} lost");
        println!("{account}");
        if records + lines_lost != runs + rechecks {
            self.broken.push(format!("the account does not match: {account}"));
        }
    }

    fn compare_sizes(&mut self) {
        let (second, fourth) = (self.watch.quarter(1), self.watch.quarter(3));
        for (what, before, after, more) in [
            ("MiB resident", second.resident_mib, fourth.resident_mib, self.more_mib),
            ("threads", second.threads, fourth.threads, self.more_threads),
            ("descriptors", second.descriptors, fourth.descriptors, MORE_DESCRIPTORS),
        ] {
            println!(
                "{what}: {before:.1} in the second quarter, {after:.1} in the last, at most {more} more"
            );
            // NaN, if there was no measurement, is a violation, too.
            if after.is_nan() || before.is_nan() || after > before + more {
                self.broken.push(format!("{what} grew from {before:.1} to {after:.1}"));
            }
        }
        let rest = self.watch.rest();
        println!("at rest: {rest:.1?}, at most {RESTING_DESCRIPTORS} descriptors");
        if rest.descriptors.is_nan() || rest.descriptors > RESTING_DESCRIPTORS {
            self.broken.push(format!("{} descriptors are open at rest", rest.descriptors));
        }
    }
}
