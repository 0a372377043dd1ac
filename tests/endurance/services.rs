//! The simulated services as a process: reads scenarios and writes requests, each as a line of
//! JSON.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use langmart_prober::simulator::{Options, Scenario, Simulator};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Time for which a request is held back, so that its answer is known.
const DELAY: Duration = Duration::from_secs(2);

/// Members of a request that the soak test uses.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Time on the clock shared by all processes, in seconds.
    pub at: f64,
    /// Query of the probe's path: `p=3&k=auth`.
    pub query: String,
    pub model: String,
    pub fault: String,
    pub status: u64,
}

/// Returns monotonic time, the same in all processes of the machine, in seconds.
pub fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Runs the child, until its standard input ends.
pub fn serve() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options { listen: loopback, tls_listen: Some(loopback), scenario: Scenario::default() };
    let simulator = Arc::new(Simulator::start(options).unwrap());
    let out = Arc::new(Mutex::new(io::stdout()));
    let say = move |value: &Value| {
        let mut out = out.lock().unwrap();
        // The parent no longer reads after the soak test has ended.
        let _ = writeln!(out, "{value}").and_then(|()| out.flush());
    };
    let (plain, tls) = (simulator.address(), simulator.tls_address().unwrap());
    say(&json!({"plain": plain.to_string(), "tls": tls.to_string(), "ca": simulator.ca_pem()}));
    let (telling, told) = (simulator.clone(), say.clone());
    thread::spawn(move || tell(&telling, told));
    for line in io::stdin().lines() {
        let text: String = serde_json::from_str(&line.unwrap()).unwrap();
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let before = now();
        simulator.set_scenario(scenario);
        say(&json!({"before": before, "after": now()}));
    }
}

fn tell(simulator: &Simulator, say: impl Fn(&Value)) {
    let mut told = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(500));
        let (instant, clock) = (Instant::now(), now());
        let Some(until) = instant.checked_sub(DELAY) else { continue };
        for request in simulator.requests() {
            if request.head_received <= told || request.head_received > until {
                continue;
            }
            say(&json!({
                "at": clock - (instant - request.head_received).as_secs_f64(),
                "query": request.query.unwrap_or_default(),
                "model": request.model.unwrap_or_default(),
                "fault": request.fault.unwrap_or_default(),
                "status": request.status.unwrap_or_default(),
            }));
        }
        told = told.max(until);
    }
}

/// The child as the parent sees it.
pub struct Services {
    child: Child,
    scenarios: ChildStdin,
    requests: Receiver<Seen>,
    changes: Receiver<(f64, f64)>,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
}

impl Services {
    /// Starts this program as the services, and adds the certificate of their authority to a file.
    pub fn start(ca_file: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("services").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let mut authorities = fs::OpenOptions::new().append(true).create(true).open(ca_file).unwrap();
        authorities.write_all(first["ca"].as_str().unwrap().as_bytes()).unwrap();
        let (seen, requests) = channel();
        let (played, changes) = channel();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| pass(&line, &seen, &played)));
        let scenarios = child.stdin.take().unwrap();
        let address = |name: &str| first[name].as_str().unwrap().parse().unwrap();
        Self { scenarios, child, requests, changes, plain: address("plain"), tls: address("tls") }
    }

    /// Replaces the scenario. Returns two times between which it took effect.
    pub fn play(&mut self, scenario: &str) -> (f64, f64) {
        writeln!(self.scenarios, "{}", Value::from(scenario)).unwrap();
        self.changes.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// Returns requests that have not been taken yet, oldest first.
    pub fn requests(&self) -> impl Iterator<Item = Seen> {
        self.requests.try_iter()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pass(line: &str, seen: &Sender<Seen>, played: &Sender<(f64, f64)>) {
    let value: Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| value[name].as_f64();
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    // At the end no one receives it.
    let _ = match (number("before"), number("after")) {
        (Some(before), Some(after)) => played.send((before, after)).ok(),
        _ => seen
            .send(Seen {
                at: number("at").unwrap(),
                query: text("query"),
                model: text("model"),
                fault: text("fault"),
                status: value["status"].as_u64().unwrap_or_default(),
            })
            .ok(),
    };
}
