//! The daemon from its first to its last moment.

use std::{
    env, fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::{
    certificate::Certificate,
    delivery::{Delivery, Watched},
    hygiene::forbid_core_dumps,
    memory::{self, Memory},
    probing::{Ended, Probing},
};
use crate::{
    config::{self, Config, Keys, Loaded, Problems, Surroundings},
    health::{Health, Readiness},
    history::History,
    logging::{self, Logging},
    metrics::Metrics,
    outcome::rfc3339,
    probe::{Resolver, Target, curl},
    records::Records,
    schedule::Budget,
    server::{self, ReloadRequest, Server, State, Wishes},
    signals::{Signal, Signals},
    state::Kept,
    systemd::{self, Notifier},
};

/// How long runs in flight may go on after a signal to stop; with the rest, the whole stop takes 10 s at most.
const DRAIN: Duration = Duration::from_secs(8);

/// How long each of the parts that follow the runs may take to end.
const CLOSE: Duration = Duration::from_millis(500);

/// How long the scheduler's thread may be silent before it counts as stuck.
const SCHEDULER_PATIENCE: Duration = Duration::from_secs(10);

/// How often the housekeeping is done: resolver files and the listener's certificate looked at, STATUS brought up to date.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// What an operator should know whose configuration has no key at all.
const NO_KEY: &str =
    "no provider has a key yet, so nothing that needs one is probed; to give one: man langmart-prober, KEYS";

/// Where the configuration comes from.
pub enum Source<'a> {
    /// A file, read again at every reload.
    File(PathBuf),
    /// A text with surroundings of its own, for `demo`.
    BuiltIn(&'a str, Surroundings<'a>),
}

impl Source<'_> {
    fn load(&self) -> Result<Loaded, Problems> {
        match self {
            Self::File(path) => config::load(path, Keys::Required, &Surroundings::of_process()),
            Self::BuiltIn(text, surroundings) => {
                config::parse(text, "built-in configuration", Keys::Required, surroundings)
            }
        }
    }
}

/// Why the daemon could not start, or had to end.
#[derive(Debug)]
pub enum Fatal {
    /// The configuration has problems.
    Configuration(Problems),
    /// Anything else, said in full.
    Other(String),
    /// It is said in the log, which standard error shows.
    Logged,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => problems.fmt(f),
            Self::Other(what) => f.write_str(what),
            Self::Logged => f.write_str("see the log"),
        }
    }
}

impl Fatal {
    /// Says it on standard error, given as `err`, unless the log has said it there: no line is twice in the journal, where
    /// each is an error. Whoever closed standard error is not told, and gets the exit status all the same.
    pub fn tell(&self, err: &mut impl io::Write) {
        if matches!(self, Self::Logged) {
            return;
        }
        let priority = if surroundings().journal { "<3>" } else { "" };
        for line in self.to_string().lines() {
            let _ = writeln!(err, "{priority}{line}");
        }
    }

    fn other(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Other(format!("{what}: {error}"))
    }
}

/// Runs the daemon until a signal ends it.
pub fn run(source: &Source<'_>) -> Result<(), Fatal> {
    let started = SystemTime::now();
    // Before there is a key in memory.
    let core_dumps = forbid_core_dumps();
    let loaded = source.load().map_err(Fatal::Configuration)?;
    let shows_log = loaded.config.log.stderr;
    let logging = Logging::start(&loaded.config.log, surroundings())
        .map_err(|error| Fatal::Other(error.to_string()))?;
    if let Err(error) = core_dumps {
        warn!(%error, "Core dumps cannot be forbidden, keys may be in one");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Fatal::other("cannot start the main runtime"))?;
    let mut result = runtime.block_on(serve(source, loaded, started, &logging));
    if let Err(Fatal::Other(what)) = &result {
        error!(error = %what, "Daemon ends");
        if shows_log {
            result = Err(Fatal::Logged);
        }
    }
    logging.stop(CLOSE);
    result
}

/// What standard error is.
fn surroundings() -> logging::Surroundings {
    logging::Surroundings::of_standard_error(
        env::var_os("JOURNAL_STREAM").as_deref(),
        env::var_os("NO_COLOR").as_deref(),
    )
}

/// Starts everything, runs the loop, stops everything.
async fn serve(
    source: &Source<'_>,
    loaded: Loaded,
    started: SystemTime,
    logging: &Logging,
) -> Result<(), Fatal> {
    // First, so that no signal meets its default in the middle of the start.
    let mut signals = Signals::listen().map_err(Fatal::other("cannot listen for signals"))?;
    let (mut daemon, server, mut reloads) = Daemon::start(source, loaded, started, logging).await?;
    let mut watchdog = every(daemon.watchdog.unwrap_or(HOUSEKEEPING));
    let mut housekeeping = every(HOUSEKEEPING);
    let result = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break Ok(()),
                // Its problems are in the log.
                Signal::Reload => drop(daemon.reload().await),
            },
            Some(ReloadRequest { answer }) = reloads.recv() => {
                // Whoever asked may be gone by now.
                let _ = answer.send(daemon.reload().await);
            }
            _ = watchdog.tick() => daemon.feed_watchdog(),
            _ = housekeeping.tick() => daemon.keep_house(),
        }
        if daemon.probing.has_ended() {
            break Err(Fatal::Other(Ended.to_string()));
        }
    };
    signals.end_at_next_stop();
    daemon.stop(server).await;
    result
}

/// The running daemon.
struct Daemon<'a> {
    source: &'a Source<'a>,
    config: Config,
    logging: &'a Logging,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    records: Arc<Records>,
    memory: Arc<Memory>,
    budget: Arc<Budget>,
    health: Arc<Health>,
    resolver: Arc<Resolver>,
    probing: Probing,
    state: Arc<State>,
    certificate: Certificate,
    /// As configured at the start, and as bound; no reload changes them.
    listen: (SocketAddr, SocketAddr),
    notifier: Notifier,
    /// How often to feed systemd's watchdog; `None`: there is none.
    watchdog: Option<Duration>,
    /// A part was found stuck, and said so.
    stuck: bool,
    /// The prober was found cut off from the network, and said so.
    offline: bool,
    /// The budget was found reached.
    paused: bool,
}

impl<'a> Daemon<'a> {
    async fn start(
        source: &'a Source<'a>,
        loaded: Loaded,
        started: SystemTime,
        logging: &'a Logging,
    ) -> Result<(Self, Server, mpsc::Receiver<ReloadRequest>), Fatal> {
        let notifier =
            Notifier::start(env::var_os("NOTIFY_SOCKET")).map_err(Fatal::other("cannot notify systemd"))?;
        let Loaded { config, warnings, .. } = loaded;
        for warning in &warnings {
            warn!(%warning, "Configuration is doubtful");
        }
        let listen = config.server.listen;
        let listener = server::bind(listen).map_err(|error| cannot_listen(listen, &error))?;
        let records = Arc::new(Records::start(&config.log).map_err(|error| Fatal::Other(error.to_string()))?);
        let metrics = Arc::new(Metrics::new(started));
        let log_lines = logging.counters().file;
        metrics.count_lines("log", log_lines.dropped, log_lines.errors);
        let record_lines = records.counters();
        metrics.count_lines("results", record_lines.dropped, record_lines.errors);
        metrics.configure(&config);
        let history = Arc::new(History::default());
        history.configure(&config, curl);
        let kept = memory::recall(&config);
        let budget = memory::budget(&config, &kept);
        memory::show(&budget, &metrics);
        let memory = Memory::start(config.state_directory.as_deref(), kept.clone(), records.clone());
        let memory = Arc::new(memory.map_err(Fatal::other("cannot start the thread of the state"))?);
        memory.count(&metrics);

        let health = Arc::new(Health::new());
        let delivery = Delivery { metrics: metrics.clone(), memory: memory.clone(), budget: budget.clone() };
        let beat = health.part("scheduler", SCHEDULER_PATIENCE);
        let (runs, demands) = mpsc::channel(server::MOST_RUN_REQUESTS);
        let probing = Probing::start(delivery, config.schedule.clone(), beat, demands)
            .map_err(Fatal::other("cannot start the scheduler's thread"))?;
        let (reload, reloads) = mpsc::channel(1);
        let state = Arc::new(State::new(
            metrics.clone(),
            history.clone(),
            health.clone(),
            Wishes { reload, runs },
            &config.server,
        ));
        let server =
            Server::start(listener, state.clone()).map_err(Fatal::other("cannot start the listener"))?;
        let watchdog = systemd::watchdog_interval(
            env::var("WATCHDOG_USEC").ok().as_deref(),
            env::var("WATCHDOG_PID").ok().as_deref(),
        );
        let resolver = Arc::new(Resolver::new());
        let certificate = Certificate::of(&config.server);
        let daemon = Self {
            source,
            config,
            logging,
            metrics,
            history,
            records,
            memory,
            budget,
            health,
            resolver,
            probing,
            state,
            certificate,
            listen: (listen, server.address()),
            notifier,
            watchdog,
            stuck: false,
            offline: false,
            paused: false,
        };
        let targets = Target::prepare(&daemon.config, &daemon.resolver);
        let targets = targets.map_err(|error| Fatal::Other(error.to_string()))?;
        daemon
            .schedule(&daemon.config, targets, &kept)
            .await
            .map_err(|error| Fatal::Other(error.to_string()))?;
        daemon.metrics.reloaded(true, SystemTime::now());
        daemon.health.reach(Readiness::Ready);
        daemon.notifier.ready(&daemon.status());
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %server.address(),
            providers = daemon.config.providers.len(),
            probes = daemon.config.probes.len(),
            "Daemon is ready"
        );
        if daemon.lacks_keys() {
            info!("{NO_KEY}");
        }
        Ok((daemon, server, reloads))
    }

    /// Has the scheduler run these targets, which are a configuration's.
    async fn schedule(&self, config: &Config, targets: Vec<Arc<Target>>, kept: &Kept) -> Result<(), Ended> {
        let watched = targets
            .into_iter()
            .map(|target| Watched::new(target, &self.metrics, &self.history, kept))
            .collect();
        self.probing.apply(config.schedule.clone(), watched).await
    }

    /// Reads the configuration again. A new one takes effect as a whole, a bad one not at all; the error is the
    /// problems, one a line.
    async fn reload(&mut self) -> Result<(), String> {
        self.notifier.reloading();
        let result = self.take_over().await;
        self.metrics.reloaded(result.is_ok(), SystemTime::now());
        match &result {
            Ok(()) => {
                info!(
                    providers = self.config.providers.len(),
                    probes = self.config.probes.len(),
                    "Configuration reloaded"
                );
                self.notifier.ready(&self.status());
            }
            Err(problems) => {
                for problem in problems.lines() {
                    error!(problem, "Configuration not reloaded, the one before stays in force");
                }
                self.notifier.ready(&format!("{}; the last reload failed, see the log", self.status()));
            }
        }
        result
    }

    async fn take_over(&mut self) -> Result<(), String> {
        let Loaded { config, warnings, .. } = self.source.load().map_err(|problems| problems.to_string())?;
        for warning in &warnings {
            warn!(%warning, "Configuration is doubtful");
        }
        if config.server.listen != self.listen.0 {
            warn!(listen = %config.server.listen, "A change of server.listen needs a restart, the old address stays");
        }
        if config.state_directory != self.config.state_directory {
            warn!("A change of state.directory needs a restart, the old one stays");
        }
        // Whatever can fail comes before whatever takes effect.
        let targets = Target::prepare(&config, &self.resolver).map_err(|error| error.to_string())?;
        self.logging.reconfigure(&config.log).map_err(|error| error.to_string())?;
        if let Err(error) = self.records.reconfigure(&config.log) {
            // All or nothing: what was opened a moment ago can be opened again.
            let _ = self.logging.reconfigure(&self.config.log);
            return Err(error.to_string());
        }
        self.state.reconfigure(&config.server);
        self.certificate = Certificate::of(&config.server);
        self.metrics.configure(&config);
        self.history.configure(&config, curl);
        self.budget.set_limits(config.budget);
        memory::show(&self.budget, &self.metrics);
        self.memory.retain(&config);
        self.schedule(&config, targets, &Kept::default()).await.map_err(|error| error.to_string())?;
        self.config = config;
        Ok(())
    }

    /// Feeds systemd's watchdog while every part beats.
    fn feed_watchdog(&mut self) {
        match self.health.stuck(Instant::now()) {
            None => {
                self.stuck = false;
                if self.watchdog.is_some() {
                    self.notifier.watchdog();
                }
            }
            Some(part) if !self.stuck => {
                self.stuck = true;
                error!(part, "A part is stuck, the watchdog is not fed");
            }
            Some(_) => {}
        }
    }

    fn keep_house(&mut self) {
        match self.metrics.offline(SystemTime::now()) {
            Some(true) if !self.offline => {
                self.offline = true;
                warn!("Prober is offline, no provider can be reached");
            }
            Some(false) if self.offline => {
                self.offline = false;
                info!("Prober is online again");
            }
            // Where it cannot be told, nothing has changed.
            Some(_) | None => {}
        }
        // Also a day without a run begins, with all of its budget.
        memory::show(&self.budget, &self.metrics);
        let paused = self.budget.resumes().is_some();
        if self.paused && !paused {
            info!("Budget has room again, generation checks go on");
        }
        self.paused = paused;
        self.resolver.refresh();
        self.certificate.look(&self.state);
        self.notifier.status(&self.status());
    }

    /// No provider has a key, as after the installation of the package.
    fn lacks_keys(&self) -> bool {
        self.config.providers.values().all(|provider| provider.key.is_none())
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        let series = self.metrics.all();
        let last = series.values().filter_map(|series| series.last());
        let failing = last.filter(|last| last.reason != crate::outcome::Reason::Ok).count();
        let paused = self.budget.resumes().map_or_else(String::new, |resumes| {
            format!("; budget reached, chat and stream resume {}", rfc3339(resumes))
        });
        let remark = if self.lacks_keys() { format!("; {NO_KEY}") } else { String::new() };
        format!(
            "{} probes of {} providers, {failing} failing{paused}; {}://{}/{remark}",
            self.config.probes.len(),
            self.config.providers.len(),
            if self.config.server.tls.is_some() { "https" } else { "http" },
            self.listen.1
        )
    }

    async fn stop(self, server: Server) {
        self.health.reach(Readiness::Stopping);
        self.notifier.stopping("Stopping: waiting for runs in flight");
        info!("Daemon stops");
        match self.probing.stop(DRAIN).await {
            Ok(0) => {}
            Ok(aborted) => warn!(aborted, "Runs were aborted, they took longer than the stop may"),
            Err(error) => error!(%error, "Runs could not be awaited"),
        }
        server.stop(CLOSE);
        // It releases the last records.
        self.memory.stop(CLOSE);
        self.records.stop(CLOSE);
        self.notifier.flush(CLOSE);
        info!("Daemon has stopped");
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn cannot_listen(listen: SocketAddr, error: &io::Error) -> Fatal {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has it (ss -ltnp shows which); end that one or set another server.listen"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; set another server.listen",
        io::ErrorKind::PermissionDenied => {
            "this user may not; set a server.listen with a port of 1024 or more"
        }
        _ => "set another server.listen",
    };
    Fatal::Other(format!("cannot listen on {listen}: {error}; {remedy}"))
}
