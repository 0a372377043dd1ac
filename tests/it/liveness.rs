//! Tests of long-term operation: clock steps, blocked files, exhausted descriptors.

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use langmart_prober::{
    config::Probe,
    outcome::{Api, Check, Fault, Reason, rfc3339},
    probe::{NetworkStack, Target},
    simulator::Simulator,
};
use rustix::process::{Resource, Rlimit, Signal, prlimit};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    parts,
    probes::{config, probe, provider},
    simulate::simulator,
    wait::wait_for,
};

fn auth(simulator: &Simulator, interval: &str) -> String {
    let address = simulator.address();
    format!(
        "{LISTEN}[defaults]\ninterval = \"{interval}\"\n[provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n\
         {KEY}\nchecks = [\"auth\"]\n"
    )
}

/// Returns the path of the library of the program faketime.
fn faketime_library() -> String {
    let output =
        Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn clock_steps_move_no_run() {
    const DAY: i64 = 86_400;
    if !parts::has(&["faketime"], false) {
        return;
    }
    let simulator = simulator("");
    let slow = "[[probe]]\nname = \"slow\"\nprovider = \"openai\"\ncheck = \"auth\"\ninterval = \"10m\"\n";
    let place = Place::new(&format!("{}{slow}", auth(&simulator, "1s")));
    place.write("clock", "+0\n");
    let mut command = place.command("run");
    command.env("LD_PRELOAD", faketime_library()).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.env("FAKETIME_TIMESTAMP_FILE", place.path("clock")).env("FAKETIME_NO_CACHE", "1");
    let mut daemon = Daemon::start(command);
    let next_run = |daemon: &Daemon, probe, clock: i64| {
        let next = daemon.scrape().value("langmart_probe_next_run_timestamp_seconds", &[("probe", probe)]);
        next - (unix_now() + clock as f64)
    };
    let before = next_run(&daemon, "slow", 0);
    assert!((0.0..=600.0).contains(&before), "{before}");
    for (clock, jumps) in [DAY, -DAY, 0, 90].into_iter().zip(1..) {
        place.write("clock", &format!("{clock:+}\n"));
        wait_for("the clock step to be detected", || {
            (daemon.logged("System clock stepped") == jumps).then_some(())
        });
        wait_for("the next run to be reported again", || {
            ((-2.0..=602.0).contains(&next_run(&daemon, "slow", clock))).then_some(())
        });
        let runs = daemon.runs("openai-auth");
        wait_for("two more runs", || (daemon.runs("openai-auth") >= runs + 2.0).then_some(()));
        let next = next_run(&daemon, "openai-auth", clock);
        assert!((-1.5..=1.5).contains(&next), "{next} at {clock}");
        assert_eq!(daemon.get("/-/healthy").status, 200);
    }
    daemon.stop();
    // By the test's clock: in slots of a second, except for those delayed by a busy machine, and
    // without a burst.
    let requests = simulator.requests();
    let arrivals: Vec<_> = requests
        .iter()
        .map(|request| (request.head_received - requests[0].head_received).as_secs_f64())
        .collect();
    assert!(arrivals.len() >= 8, "{}", arrivals.len());
    let beside = |base: &f64| {
        let off = arrivals.iter().map(|arrival| (arrival - base - (arrival - base).round()).abs());
        off.filter(|off| *off > 0.2).count()
    };
    let late = arrivals.iter().map(beside).min().unwrap();
    assert!(late * 4 <= arrivals.len(), "{late} are not in a slot: {arrivals:?}");
    let seconds = arrivals.last().unwrap().ceil() as usize;
    assert!(arrivals.len() <= seconds + 1, "more than one a second: {arrivals:?}");
}

/// Returns the date according to this machine's clock.
fn today() -> String {
    rfc3339(SystemTime::now())[..10].to_owned()
}

/// Configures a probe that spends tokens, and one that is rate limited.
fn configure_spender(simulator: &Simulator, place: &Place, tokens: u64) {
    let (address, state) = (simulator.address(), place.path("state"));
    place.write(
        "config.toml",
        &format!(
            "{LISTEN}[budget]\ndaily_tokens = {tokens}\n[state]\ndirectory = \"{}\"\n\
             [defaults]\ninterval = \"1s\"\n[defaults.generation]\ninterval = \"1s\"\n\
             [provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n{KEY}\nchecks = []\n\
             [[probe]]\nname = \"spender\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"gpt-4o-mini\"\n\
             [provider.groq]\nbase_url = \"http://{address}/groq/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
            state.display()
        ),
    );
}

/// Starts the daemon with the clock of the file `clock`.
fn start_with_clock(place: &Place) -> Daemon {
    let mut command = place.command("run");
    command.env("LD_PRELOAD", faketime_library()).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.env("FAKETIME_TIMESTAMP_FILE", place.path("clock")).env("FAKETIME_NO_CACHE", "1");
    Daemon::start(command)
}

/// Returns the remaining backoff in seconds, by a clock that is wrong by so many.
fn backoff(daemon: &Daemon, clock: i64) -> f64 {
    let name = "langmart_probe_backoff_until_timestamp_seconds";
    daemon.scrape().value(name, &[("probe", "groq-auth")]) - (unix_now() + clock as f64)
}

/// Waits until the backoff follows the clock.
#[track_caller]
fn check_backoff(daemon: &Daemon, clock: i64) {
    wait_for("the wait to follow the clock", || {
        (2800.0..=3302.0).contains(&backoff(daemon, clock)).then_some(())
    });
}

#[test]
fn clock_error_keeps_budget_backoff_and_state() {
    const DAY: i64 = 86_400;
    if !parts::has(&["faketime"], false) {
        return;
    }
    let limited = "[[rule]]\nprovider = \"groq\"\nfault = \"rate_limited\"\nretry_after = \"50m\"";
    let simulator = simulator(limited);
    let place = Place::new("");
    place.write("clock", "+0\n");
    let configure = |tokens| configure_spender(&simulator, &place, tokens);
    configure(1_000_000);
    let start = || start_with_clock(&place);
    let mut daemon = start();
    let spent = |daemon: &Daemon| daemon.scrape().value("langmart_budget_spent_tokens", &[]);
    let until_it_spends = |daemon: &Daemon| {
        let before = spent(daemon);
        wait_for("tokens to be spent", || (spent(daemon) > before).then_some(()));
        before
    };
    check_backoff(&daemon, 0);
    let mut least = until_it_spends(&daemon);
    for (clock, jumps) in [366 * DAY, 0, -30 * DAY, 0].into_iter().zip(1..) {
        place.write("clock", &format!("{clock:+}\n"));
        wait_for("the clock step to be detected", || {
            (daemon.logged("System clock stepped") == jumps).then_some(())
        });
        check_backoff(&daemon, clock);
        let before = until_it_spends(&daemon);
        assert!(before >= least, "{before} after {least}: a clock step frees no budget");
        least = before;
    }
    // The budget is exhausted until the end of this day, not of a day that a wrong clock has shown.
    configure((least as u64 + 1).max(100));
    daemon.reload();
    wait_for("the budget to be reached", || (daemon.logged("Budget reached") == 1).then_some(()));
    let log = daemon.log();
    let reached = log.lines().find(|line| line.contains("Budget reached")).unwrap();
    let tomorrow = rfc3339(SystemTime::now() + Duration::from_secs(86_400));
    assert!(reached.contains(&format!("resumes={}T00:00:00Z", &tomorrow[..10])), "{reached}");

    // It is killed while its clock is wrong, and restarts with a correct clock.
    place.write("clock", &format!("{:+}\n", 366 * DAY));
    wait_for("the clock step to be detected", || (daemon.logged("System clock stepped") == 5).then_some(()));
    check_backoff(&daemon, 366 * DAY);
    configure(1_000_000);
    daemon.reload();
    until_it_spends(&daemon);
    daemon.signal(Signal::KILL);
    daemon.wait();
    place.write("clock", "+0\n");
    let daemon = start();
    assert!(spent(&daemon) >= least, "spending survives");
    until_it_spends(&daemon);
    // A backoff written by a clock that was ahead is limited to `max_backoff`.
    assert!((2800.0..=3962.0).contains(&backoff(&daemon, 0)), "{}", backoff(&daemon, 0));
    let state = || fs::read_to_string(place.path("state/state.json")).unwrap();
    wait_for("the state of this day", || state().contains(&format!("\"day\":\"{}\"", today())).then_some(()));
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A lease on the configuration (fcntl(2), `F_SETLEASE`): any other process that opens the file
/// blocks until the lease is released, up to 45 s. Dropping it releases it.
struct Lease {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Lease {
    /// Takes the lease.
    fn take(place: &Place) -> Self {
        const SCRIPT: &str = "import fcntl, os, signal, sys\n\
            file = os.open(sys.argv[1], os.O_RDWR)\n\
            signal.signal(signal.SIGIO, lambda *_: print('opened', flush=True))\n\
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
            print('taken', flush=True)\n\
            sys.stdin.readline()\n";
        let mut python = Command::new("python3");
        python.args(["-c", SCRIPT]).arg(place.path("config.toml"));
        let mut process = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut lease = Self { process, lines };
        lease.expect("taken");
        lease
    }

    /// Waits until another process has begun to open the file.
    fn wait_for_opening(&mut self) {
        self.expect("opened");
    }

    fn expect(&mut self, line: &str) {
        assert_eq!(self.lines.next().unwrap().unwrap(), line);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn blocked_file_stops_no_probe_signal_or_reload() {
    if !parts::has(&["python3"], false) {
        return;
    }
    let simulator = simulator("");
    let config = auth(&simulator, "100ms");
    let place = Place::new(&config);
    let daemon = place.daemon();
    let mut lease = Lease::take(&place);
    daemon.signal(Signal::HUP);
    lease.wait_for_opening();
    let runs = daemon.runs("openai-auth");
    wait_for("probing to continue", || (daemon.runs("openai-auth") > runs + 5.0).then_some(()));
    assert_eq!(daemon.get("/-/healthy").status, 200);
    assert_eq!(daemon.logged("eload"), 0, "{}", daemon.log());
    // A signal meanwhile causes another reload, which reads the file afterwards.
    daemon.signal(Signal::HUP);
    place.write("config.toml", &config.replace("100ms", "200ms"));
    drop(lease);
    wait_for("both reloads", || (daemon.logged("Configuration reloaded") == 2).then_some(()));
    let interval = daemon.scrape().value("langmart_probe_interval_seconds", &[("probe", "openai-auth")]);
    assert_eq!(interval, 0.2);
}

#[test]
fn stop_does_not_wait_for_a_blocked_reload() {
    if !parts::has(&["python3"], false) {
        return;
    }
    let simulator = simulator("");
    let place = Place::new(&auth(&simulator, "100ms"));
    let mut daemon = place.daemon();
    let mut lease = Lease::take(&place);
    daemon.signal(Signal::HUP);
    lease.wait_for_opening();
    let log = daemon.stop();
    assert!(log.trim_end().ends_with("Daemon stopped"), "{log}");
}

#[test]
fn blocked_reload_ends_and_the_next_names_the_cause() {
    if !parts::has(&["python3"], false) {
        return;
    }
    let simulator = simulator("");
    let config = auth(&simulator, "100ms");
    let place = Place::new(&config);
    let daemon = place.daemon();
    let lease = Lease::take(&place);
    let answer = daemon.request("POST", "/-/reload");
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.body.contains("reading took longer than 20s; check the file systems"), "{answer:?}");
    let answer = daemon.request("POST", "/-/reload");
    assert!(answer.body.contains("an earlier reload is still reading"), "{answer:?}");
    assert_eq!(daemon.scrape().value("langmart_prober_config_last_reload_successful", &[]), 0.0);
    // The blocked reload ends without effect.
    place.write("config.toml", &config.replace("100ms", "200ms"));
    drop(lease);
    wait_for("a reload to succeed", || (daemon.request("POST", "/-/reload").status == 200).then_some(()));
    let interval = daemon.scrape().value("langmart_probe_interval_seconds", &[("probe", "openai-auth")]);
    assert_eq!(interval, 0.2);
}

#[test]
fn lack_of_descriptors_is_prober_fault_and_recovers() {
    let simulator = simulator("");
    let place = Place::new(&auth(&simulator, "100ms"));
    let daemon = place.daemon();
    daemon.scrape_until("a success", |scrape| scrape.find("langmart_probe_success", &[]) == Some(1.0));
    let limit = |current| {
        let before = prlimit(Some(daemon.pid()), Resource::Nofile, current).unwrap();
        before.current
    };
    let all = Rlimit { current: Some(1024), maximum: rustix::process::getrlimit(Resource::Nofile).maximum };
    let before = limit(Rlimit { current: Some(3), ..all });
    // The kernel accepts the connection, but the daemon cannot.
    let waiting = TcpStream::connect(daemon.address).unwrap();
    wait_for("accepting to fail", || (daemon.logged("Failed to accept connection") == 1).then_some(()));
    wait_for("the probe to fail", || (daemon.logged("reason=internal") >= 1).then_some(()));
    assert!(daemon.log().contains("fault=prober"), "{}", daemon.log());
    thread::sleep(Duration::from_millis(300));
    limit(Rlimit { current: before, ..all });
    wait_for("connections to be accepted", || {
        (daemon.logged("Accepting connections again") == 1).then_some(())
    });
    drop(waiting);
    let scrape = daemon
        .scrape_until("a success again", |scrape| scrape.find("langmart_probe_success", &[]) == Some(1.0));
    let ours = [("reason", "internal"), ("fault", "prober")];
    assert!(scrape.value("langmart_probe_failures_total", &ours) >= 1.0);
    assert_eq!(daemon.logged("Failed to accept connection"), 1, "once, not ten times a second");
    for task in ["main", "scheduler", "server", "probe", "log", "results"] {
        assert_eq!(scrape.value("langmart_prober_task_restarts_total", &[("task", task)]), 0.0);
    }
}

#[test]
fn answer_in_time_counts_when_found_after_the_deadline() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, when_asked) = mpsc::channel();
    let (busy, when_busy) = mpsc::channel();
    let (answered, when_answered) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").unwrap();
        asked.send(()).unwrap();
        when_busy.recv().unwrap();
        stream.write_all(b"{\"data\":[]}\n").unwrap();
        answered.send(()).unwrap();
    });
    let probe =
        Probe { timeout: TIMEOUT, ..probe(provider(Api::Openai, &format!("http://{address}")), Check::Auth) };
    let targets = Target::prepare(&config(vec![probe]), &Arc::new(NetworkStack::new())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        // Blocks the only thread from the arrival of the answer until after the deadline.
        tokio::spawn(async move {
            while when_asked.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            // Lets the runtime read the headers.
            tokio::time::sleep(TIMEOUT / 10).await;
            busy.send(()).unwrap();
            when_answered.recv().unwrap();
            // The runtime finds the answer in this turn, and the task runs only after the following
            // code.
            tokio::task::yield_now().await;
            thread::sleep(TIMEOUT * 2);
        });
        targets[0].run().await
    });
    // The kernel's timestamps show that the answer arrived in time, regardless of when the process
    // found it.
    assert!(outcome.duration < TIMEOUT, "{outcome:#?}");
    assert_eq!((outcome.reason, outcome.fault), (Reason::Ok, Fault::None), "{outcome:#?}");
}
