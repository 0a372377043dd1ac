//! The daemon from its first to its last moment.

use std::{
    env,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

use super::{
    certificate::Certificate,
    delivery::{Delivery, Watched},
    fatal::{Fatal, surroundings},
    hygiene::forbid_core_dumps,
    loading::{Loader, Prepared, Source},
    looks::Looks,
    memory::{self, Memory},
    probing::{Probing, Silent},
    reload::Running,
};
use crate::{
    config::{Config, Loaded},
    health::{Beat, Health, Readiness, Supervisor, caught},
    history::History,
    logging::Logging,
    metrics::Metrics,
    outcome::rfc3339,
    probe::{NetworkStack, Target, curl},
    records::Records,
    schedule::Budget,
    server::{self, ReloadRequest, Server, State, Wishes},
    signals::{Signal, Signals},
    systemd::{self, Notifier},
};

/// How long runs in flight may go on after a signal to stop; with the rest, the whole stop takes some 11 s at most.
const DRAIN: Duration = Duration::from_secs(8);

/// How long each of the parts that follow the runs may take to end.
const CLOSE: Duration = Duration::from_millis(500);

/// How long the scheduler's thread may be silent before it counts as stuck.
const SCHEDULER_PATIENCE: Duration = Duration::from_secs(10);

/// How long the main loop may be silent before it counts as stuck.
const MAIN_PATIENCE: Duration = Duration::from_secs(20);

/// How often STATUS is brought up to date, and a look at the resolver's files and the listener's certificate begun.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// What an operator should know whose configuration has no key at all.
const NO_KEY: &str =
    "no provider has a key yet, so nothing that needs one is probed; to give one: man langmart-prober, KEYS";

/// Runs the daemon until a signal ends it. `listening` hears the address as bound, when there is something to see.
pub fn run(source: &Source, listening: impl FnOnce(SocketAddr)) -> Result<(), Fatal> {
    let started = SystemTime::now();
    // Before there is a key in memory.
    let core_dumps = forbid_core_dumps();
    let loaded = source.load().map_err(Fatal::Configuration)?;
    let shows_log = loaded.config.log.stderr;
    let logging = Logging::start(&loaded.config.log, surroundings());
    let logging = Arc::new(logging.map_err(|error| Fatal::Other(error.to_string()))?);
    if let Err(error) = core_dumps {
        warn!(%error, "Core dumps cannot be forbidden, keys may be in one");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Fatal::other("cannot start the main runtime"))?;
    let mut result = runtime.block_on(serve(source, loaded, started, &logging, listening));
    // Not by its drop, which would wait for a load that hangs.
    runtime.shutdown_background();
    if let Err(Fatal::Other(what)) = &result {
        error!(error = %what, "Daemon ends");
        if shows_log {
            result = Err(Fatal::Logged);
        }
    }
    logging.stop(CLOSE);
    result
}

/// Starts everything, runs the loop, stops everything.
async fn serve(
    source: &Source,
    loaded: Loaded,
    started: SystemTime,
    logging: &Arc<Logging>,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), Fatal> {
    // First, so that no signal meets its default in the middle of the start.
    let mut signals = Signals::listen().map_err(Fatal::other("cannot listen for signals"))?;
    let (mut daemon, mut reloads) = Daemon::start(source, loaded, started, logging).await?;
    listening(daemon.listen.1);
    let mut supervisor = Supervisor::new("main loop");
    daemon.metrics.count_restarts("main", supervisor.restarts());
    let result = loop {
        if let Ok(end) = caught(Box::pin(daemon.live(&mut signals, &mut reloads))).await {
            break end;
        }
        // Who waits for it is told that there is no answer, and systemd in the next life.
        daemon.reloading = None;
        match supervisor.failed(Instant::now()) {
            Ok(pause) => sleep(pause).await,
            Err(gave_up) => break Err(Fatal::Other(gave_up.to_string())),
        }
    };
    signals.end_at_next_stop();
    daemon.stop().await.and(result)
}

/// A reload on its way.
struct Reloading {
    load: Pin<Box<dyn Future<Output = Result<Prepared, String>>>>,
    /// Who asked for it by HTTP; `None`: it was a signal.
    answer: Option<oneshot::Sender<Result<(), String>>>,
    /// A signal came meanwhile: what has been read may be old.
    again: bool,
}

/// What the load of a reload comes to; never, where there is none.
async fn loaded(reloading: &mut Option<Reloading>) -> Result<Prepared, String> {
    match reloading {
        Some(reloading) => reloading.load.as_mut().await,
        None => std::future::pending().await,
    }
}

/// The running daemon.
struct Daemon {
    loader: Loader,
    reloading: Option<Reloading>,
    config: Config,
    logging: Arc<Logging>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    records: Arc<Records>,
    memory: Arc<Memory>,
    budget: Arc<Budget>,
    health: Arc<Health>,
    beat: Beat,
    probing: Probing,
    server: Server,
    state: Arc<State>,
    certificate: Certificate,
    looks: Looks,
    /// When the reload began of which is not told yet what became of it; `None`: there is none.
    untold: Option<Instant>,
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
    /// What `systemctl status` is to say of the last reload.
    reload: &'static str,
}

impl Daemon {
    async fn start(
        source: &Source,
        loaded: Loaded,
        started: SystemTime,
        logging: &Arc<Logging>,
    ) -> Result<(Self, mpsc::Receiver<ReloadRequest>), Fatal> {
        let notifier =
            Notifier::start(env::var_os("NOTIFY_SOCKET")).map_err(Fatal::other("cannot notify systemd"))?;
        let Loaded { config, warnings, .. } = loaded;
        for warning in &warnings {
            warn!(%warning, "Configuration is doubtful");
        }
        let listen = config.server.listen;
        let listener = server::bind(listen).map_err(|error| Fatal::cannot_listen(listen, &error))?;
        // Before anything is opened that is another daemon's.
        let claim = memory::claim(&config).map_err(|taken| Fatal::Other(taken.to_string()))?;
        let records = Arc::new(Records::start(&config.log).map_err(|error| Fatal::Other(error.to_string()))?);
        let metrics = Arc::new(Metrics::new(started));
        metrics.count_writer("log", &logging.counters().file);
        metrics.count_writer("results", &records.counters());
        metrics.configure(&config);
        let history = Arc::new(History::default());
        history.configure(&config, curl);
        let kept = memory::recall(&config);
        let budget = memory::budget(&config, &kept);
        memory::show(&budget, &metrics);
        memory::show_last_runs(&config, &kept, &metrics);
        let directory = config.state_directory.as_deref();
        let memory = Memory::start(directory, claim, kept, records.clone());
        let memory = Arc::new(memory.map_err(Fatal::other("cannot start the thread of the state"))?);
        memory.count(&metrics);

        let health = Arc::new(Health::new());
        let restarts = Arc::<AtomicU64>::default();
        metrics.count_restarts("probe", restarts.clone());
        let delivery = Delivery::new(metrics.clone(), memory.clone(), budget.clone(), restarts);
        let beat = health.part("scheduler", SCHEDULER_PATIENCE);
        let supervisor = Supervisor::new("scheduler");
        metrics.count_restarts("scheduler", supervisor.restarts());
        let (runs, demands) = mpsc::channel(server::MOST_RUN_REQUESTS);
        let probing = Probing::start(delivery, config.schedule.clone(), beat, demands, supervisor)
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
        metrics.count_restarts("server", server.restarts());
        let address = server.address();
        let watchdog = systemd::watchdog_interval(
            env::var("WATCHDOG_USEC").ok().as_deref(),
            env::var("WATCHDOG_PID").ok().as_deref(),
        );
        let network = Arc::new(NetworkStack::new());
        let targets = Target::prepare(&config, &network).map_err(|error| Fatal::Other(error.to_string()))?;
        let certificate = Certificate::of(&config.server);
        let daemon = Self {
            loader: Loader::new(source.clone(), logging.clone(), records.clone(), network),
            reloading: None,
            config,
            logging: logging.clone(),
            metrics,
            history,
            records,
            beat: health.part("main loop", MAIN_PATIENCE),
            memory,
            budget,
            health,
            probing,
            server,
            state,
            certificate,
            looks: Looks::default(),
            untold: None,
            listen: (listen, address),
            notifier,
            watchdog,
            stuck: false,
            offline: false,
            paused: false,
            reload: "",
        };
        daemon.schedule(&daemon.config, targets).await.map_err(|error| Fatal::Other(error.to_string()))?;
        daemon.metrics.reloaded(true, SystemTime::now());
        daemon.health.reach(Readiness::Ready);
        daemon.notifier.ready(&daemon.status());
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %address,
            providers = daemon.config.providers.len(),
            probes = daemon.config.probes.len(),
            "Daemon is ready"
        );
        if daemon.lacks_keys() {
            info!("{NO_KEY}");
        }
        Ok((daemon, reloads))
    }

    /// The one loop, until a signal to stop or a part that gave up. Nothing in it waits for a file.
    async fn live(
        &mut self,
        signals: &mut Signals,
        reloads: &mut mpsc::Receiver<ReloadRequest>,
    ) -> Result<(), Fatal> {
        if self.untold.is_some() {
            self.tell_reload(&Err(
                "the main loop panicked over it, the log says where; please report it".to_owned()
            ));
        }
        let mut watchdog = every(self.watchdog.unwrap_or(HOUSEKEEPING));
        let mut housekeeping = every(HOUSEKEEPING);
        loop {
            self.beat.beat();
            tokio::select! {
                signal = signals.next() => match (signal, &mut self.reloading) {
                    (Signal::Stop, _) => return Ok(()),
                    (Signal::Reload, Some(reloading)) => reloading.again = true,
                    (Signal::Reload, None) => self.begin_reload(None),
                },
                Some(ReloadRequest { answer }) = reloads.recv(), if self.reloading.is_none() => {
                    self.begin_reload(Some(answer));
                }
                result = loaded(&mut self.reloading) => self.end_reload(result).await,
                found = self.looks.end() => self.certificate.take_over(found, &self.state),
                _ = watchdog.tick() => self.feed_watchdog(),
                _ = housekeeping.tick() => self.keep_house(),
            }
            if self.probing.has_ended() {
                return Ok(());
            }
            if let Some(gave_up) = self.server.gave_up() {
                return Err(Fatal::Other(gave_up.to_string()));
            }
        }
    }

    /// Has the scheduler run these targets, which are a configuration's.
    async fn schedule(&self, config: &Config, targets: Vec<Arc<Target>>) -> Result<(), Silent> {
        let watched = |target| Watched::new(target, &self.metrics, &self.history, &self.health);
        self.probing.apply(config.schedule.clone(), targets.into_iter().map(watched).collect()).await
    }

    /// Begins to read the configuration again.
    fn begin_reload(&mut self, answer: Option<oneshot::Sender<Result<(), String>>>) {
        self.notifier.reloading();
        self.untold = Some(Instant::now());
        self.reloading = Some(Reloading { load: Box::pin(self.loader.begin()), answer, again: false });
    }

    /// A new configuration takes effect as a whole, a bad one not at all; the error is the problems, one a line.
    async fn end_reload(&mut self, result: Result<Prepared, String>) {
        let Some(Reloading { answer, again, .. }) = self.reloading.take() else { return };
        let result = match result {
            Ok(prepared) => self.take_over(prepared).await,
            Err(problems) => Err(problems),
        };
        self.tell_reload(&result);
        if let Some(answer) = answer {
            // Whoever asked may be gone by now.
            let _ = answer.send(result);
        }
        if again {
            self.begin_reload(None);
        }
    }

    fn tell_reload(&mut self, result: &Result<(), String>) {
        self.untold = None;
        self.metrics.reloaded(result.is_ok(), SystemTime::now());
        match result {
            Ok(()) => {
                info!(
                    providers = self.config.providers.len(),
                    probes = self.config.probes.len(),
                    "Configuration reloaded"
                );
                self.reload = "";
            }
            Err(problems) => {
                for problem in problems.lines() {
                    error!(problem, "Configuration not reloaded, the one before stays in force");
                }
                self.reload = "; the last reload failed, see the log";
            }
        }
        self.notifier.ready(&self.status());
    }

    /// Refuses what must not take effect. Whatever else can fail has been done: from there on everything takes effect.
    async fn take_over(&mut self, prepared: Prepared) -> Result<(), String> {
        let Prepared { mut config, warnings, targets, logging, records } = prepared;
        let (listen, bound) = self.listen;
        let running = Running { config: &self.config, listen, bound, state: self.memory.directory() };
        running.check(&config)?;
        running.log(&warnings, &config);
        let keeps_tls = running.loses_tls(&config.server);
        self.logging.commit(logging);
        self.records.commit(records);
        self.state.reconfigure(&config.server);
        if keeps_tls {
            config.server.tls = self.config.server.tls.take();
        } else {
            self.certificate = Certificate::of(&config.server);
            self.looks.follow_reload();
        }
        self.metrics.configure(&config);
        self.history.configure(&config, curl);
        self.budget.set_limits(config.budget);
        memory::show(&self.budget, &self.metrics);
        self.memory.retain(&config);
        // A budget that is new, or back, may be used up already: no run would tell what is spent of it.
        self.memory.spent(&self.budget);
        let scheduled = self.schedule(&config, targets).await;
        self.config = config;
        match scheduled {
            Err(Silent::Busy) => {
                warn!("Scheduler is busy, its probes follow the new configuration late");
                Ok(())
            }
            scheduled => scheduled.map_err(|error| error.to_string()),
        }
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
                error!(%part, "A part is stuck, the watchdog is not fed");
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
        self.looks.begin(&self.certificate);
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
            "{} probes of {} providers, {failing} failing{paused}; {}://{}/{}{remark}",
            self.config.probes.len(),
            self.config.providers.len(),
            if self.config.server.tls.is_some() { "https" } else { "http" },
            self.listen.1,
            self.reload,
        )
    }

    /// The error is a part's that gave up before.
    async fn stop(self) -> Result<(), Fatal> {
        self.health.reach(Readiness::Stopping);
        self.notifier.stopping("Stopping: waiting for runs in flight");
        info!("Daemon stops");
        let mut result = Ok(());
        if self.probing.has_ended() {
            result = self.probing.end().map_err(|gave_up| Fatal::Other(gave_up.to_string()));
        } else {
            match self.probing.stop(DRAIN).await {
                Ok(0) => {}
                Ok(aborted) => warn!(aborted, "Runs were aborted, they took longer than the stop may"),
                Err(error) => error!(%error, "Runs could not be awaited"),
            }
        }
        self.server.stop(CLOSE);
        // It releases the last records.
        self.memory.stop(CLOSE);
        self.records.stop(CLOSE);
        self.notifier.flush(CLOSE);
        info!("Daemon has stopped");
        result
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
