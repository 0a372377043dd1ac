//! The daemon from start to stop.

use std::{
    env,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

use super::{
    books::Books,
    core_dumps::forbid_core_dumps,
    delivery::{ProbeTarget, export_budget},
    fatal::{Fatal, surroundings},
    file_watcher::FileWatcher,
    listener_certificate::Certificate,
    loading::{Loader, Prepared, Source},
    probing::{CommandError, Probing},
    reload_checks::Running,
    state_store::StateStore,
};
use crate::{
    config::{Config, Loaded},
    health::{Health, Heartbeat, Readiness, Supervisor, catch_panic},
    history::History,
    logging::Logging,
    metrics::Metrics,
    outcome::rfc3339,
    probe::{NetworkStack, Target, curl},
    records::Records,
    schedule::DailyBudget,
    server::{self, ControlHandles, HttpServer, ReloadRequest, ServerState},
    signals::{Signal, Signals},
    systemd::{self, Notifier},
};

/// Time for runs in flight after a signal to stop. With the rest, a stop takes at most about 11 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Time for each other part to stop.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Time without a heartbeat before the main loop counts as stuck.
const MAIN_LOOP_STUCK_AFTER: Duration = Duration::from_secs(20);

/// Interval at which the status line is updated and the listener's certificate is checked.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);

/// Message for a configuration without any key.
const NO_KEY: &str = "no provider has a key yet, so only checks that need none are run; to add a key, see KEYS in man langmart-prober";

/// Runs the daemon until a signal stops it. Calls `listening` with the bound address once it is
/// ready.
pub fn run(source: &Source, listening: impl FnOnce(SocketAddr)) -> Result<(), Fatal> {
    let started = SystemTime::now();
    // Before any key is in memory.
    let core_dumps = forbid_core_dumps();
    let loaded = source.load().map_err(Fatal::Configuration)?;
    let shows_log = loaded.config.log.stderr;
    let logging = Logging::start(&loaded.config.log, surroundings());
    let logging = Arc::new(logging.map_err(|error| Fatal::Other(error.to_string()))?);
    if let Err(error) = core_dumps {
        warn!(%error, "Failed to disable core dumps, which may contain keys");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Fatal::other("cannot start the main runtime"))?;
    let mut result = runtime.block_on(serve(source, loaded, started, &logging, listening));
    // Dropping the runtime would wait for a blocked load.
    runtime.shutdown_background();
    if let Err(Fatal::Other(what)) = &result {
        error!(error = %what, "Daemon failed");
        if shows_log {
            result = Err(Fatal::Logged);
        }
    }
    logging.stop(CLOSE_TIMEOUT);
    result
}

/// Starts all parts, runs the loop, stops all parts.
async fn serve(
    source: &Source,
    loaded: Loaded,
    started: SystemTime,
    logging: &Arc<Logging>,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), Fatal> {
    // First, so that a signal during the start does not have its default effect.
    let mut signals = Signals::listen().map_err(Fatal::other("cannot listen for signals"))?;
    let (mut daemon, mut reloads) = Daemon::start(source, loaded, started, logging).await?;
    listening(daemon.listen.1);
    let mut supervisor = Supervisor::new("main loop");
    daemon.metrics.count_restarts("main", supervisor.restarts());
    let result = loop {
        if let Ok(end) = catch_panic(Box::pin(daemon.run_loop(&mut signals, &mut reloads))).await {
            break end;
        }
        // An HTTP client of the reload gets an error; systemd is notified when the loop continues.
        daemon.reloading = None;
        match supervisor.record_failure(Instant::now()) {
            Ok(pause) => sleep(pause).await,
            Err(gave_up) => break Err(Fatal::Other(gave_up.to_string())),
        }
    };
    signals.end_at_next_stop();
    daemon.stop().await.and(result)
}

/// A reload in progress.
struct Reloading {
    load: Pin<Box<dyn Future<Output = Result<Prepared, String>>>>,
    /// The HTTP request for the reload. `None` if it was a signal.
    answer: Option<oneshot::Sender<Result<(), String>>>,
    /// A signal has arrived since the start of the load, so the loaded files may be outdated.
    again: bool,
}

/// Waits for the load of a reload. Never returns if there is none.
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
    state_store: Arc<StateStore>,
    budget: Arc<DailyBudget>,
    health: Arc<Health>,
    beat: Heartbeat,
    probing: Probing,
    server: HttpServer,
    state: Arc<ServerState>,
    certificate: Certificate,
    file_watcher: FileWatcher,
    /// Start of a reload whose result has not been reported, if any.
    unreported: Option<Instant>,
    /// The configured and the bound address; a reload does not change them.
    listen: (SocketAddr, SocketAddr),
    notifier: Notifier,
    /// Interval of watchdog notifications, if systemd expects them.
    watchdog: Option<Duration>,
    /// Whether the log has reported a stuck part.
    stuck: bool,
    /// Whether the log has reported that the prober is offline.
    offline: bool,
    /// Whether the budget was exhausted at the last check.
    paused: bool,
    /// Note on the last reload in the status line.
    reload: &'static str,
}

/// Returns how often systemd's watchdog is to be fed; `None` without one.
fn watchdog_interval() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    systemd::watchdog_interval(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref())
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
            warn!(%warning, "Configuration warning");
        }
        let listen = config.server.listen;
        let listener = server::bind(listen).map_err(|error| Fatal::cannot_listen(listen, &error))?;
        let books = Books::open(&config, started, logging)?;
        let health = Arc::new(Health::new());
        let (probing, runs) = books.start_probing(&config, &health)?;
        let Books { records, metrics, history, state_store, budget } = books;
        let (reload, reloads) = mpsc::channel(1);
        let state = Arc::new(ServerState::new(
            metrics.clone(),
            history.clone(),
            health.clone(),
            ControlHandles { reload, runs },
            &config.server,
        ));
        let server =
            HttpServer::start(listener, state.clone()).map_err(Fatal::other("cannot start the listener"))?;
        metrics.count_restarts("server", server.restarts());
        let network = Arc::new(NetworkStack::new());
        let targets = Target::prepare(&config, &network).map_err(|error| Fatal::Other(error.to_string()))?;
        let daemon = Self {
            loader: Loader::new(source.clone(), logging.clone(), records.clone(), network),
            reloading: None,
            certificate: Certificate::new(&config.server),
            config,
            logging: logging.clone(),
            metrics,
            history,
            records,
            beat: health.part("main loop", MAIN_LOOP_STUCK_AFTER),
            state_store,
            budget,
            health,
            probing,
            listen: (listen, server.address()),
            server,
            state,
            file_watcher: FileWatcher::default(),
            unreported: None,
            notifier,
            watchdog: watchdog_interval(),
            stuck: false,
            offline: false,
            paused: false,
            reload: "",
        };
        daemon.begin(targets).await.map_err(|error| Fatal::Other(error.to_string()))?;
        Ok((daemon, reloads))
    }

    /// Schedules the probes, and announces that the daemon is ready.
    async fn begin(&self, targets: Vec<Arc<Target>>) -> Result<(), CommandError> {
        self.schedule(&self.config, targets).await?;
        self.metrics.reloaded(true, SystemTime::now());
        self.health.advance_to(Readiness::Ready);
        self.notifier.ready(&self.status());
        info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %self.listen.1,
            providers = self.config.providers.len(),
            probes = self.config.probes.len(),
            "Daemon ready"
        );
        if self.lacks_keys() {
            info!("{NO_KEY}");
        }
        Ok(())
    }

    /// Runs the select loop until a signal stops it or a part gives up. It never waits for a file.
    async fn run_loop(
        &mut self,
        signals: &mut Signals,
        reloads: &mut mpsc::Receiver<ReloadRequest>,
    ) -> Result<(), Fatal> {
        if self.unreported.is_some() {
            self.report_reload(&Err(
                "the main loop panicked; please report it with the lines \"Panicked\" of the log".to_owned(),
            ));
        }
        let mut watchdog = every(self.watchdog.unwrap_or(HOUSEKEEPING_INTERVAL));
        let mut housekeeping = every(HOUSEKEEPING_INTERVAL);
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
                found = self.file_watcher.end() => self.certificate.apply_check(found, &self.state),
                _ = watchdog.tick() => self.feed_watchdog(),
                _ = housekeeping.tick() => self.housekeeping(),
            }
            if self.probing.has_ended() {
                return Ok(());
            }
            if let Some(gave_up) = self.server.gave_up() {
                return Err(Fatal::Other(gave_up.to_string()));
            }
        }
    }

    /// Passes the targets of a configuration to the scheduler.
    async fn schedule(&self, config: &Config, targets: Vec<Arc<Target>>) -> Result<(), CommandError> {
        let prepared = |target| ProbeTarget::new(target, &self.metrics, &self.history, &self.health);
        self.probing.apply(config.schedule.clone(), targets.into_iter().map(prepared).collect()).await
    }

    /// Starts a reload.
    fn begin_reload(&mut self, answer: Option<oneshot::Sender<Result<(), String>>>) {
        self.notifier.reloading();
        self.unreported = Some(Instant::now());
        self.reloading = Some(Reloading { load: Box::pin(self.loader.begin()), answer, again: false });
    }

    /// Ends a reload. A valid configuration takes effect as a whole; the error lists the problems
    /// of an invalid one, one per line.
    async fn end_reload(&mut self, result: Result<Prepared, String>) {
        let Some(Reloading { answer, again, .. }) = self.reloading.take() else { return };
        let result = match result {
            Ok(prepared) => self.apply(prepared).await,
            Err(problems) => Err(problems),
        };
        self.report_reload(&result);
        if let Some(answer) = answer {
            // The client may have disconnected.
            let _ = answer.send(result);
        }
        if again {
            self.begin_reload(None);
        }
    }

    fn report_reload(&mut self, result: &Result<(), String>) {
        self.unreported = None;
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
                    error!(problem, "Failed to reload configuration; the previous one remains in use");
                }
                self.reload = "; the last reload failed, see the log";
            }
        }
        self.notifier.ready(&self.status());
    }

    /// Rejects the configuration, or applies all of it. Everything else that can fail has been
    /// prepared.
    async fn apply(&mut self, prepared: Prepared) -> Result<(), String> {
        let Prepared { mut config, warnings, targets, logging, records } = prepared;
        let (listen, bound) = self.listen;
        let running = Running { config: &self.config, listen, bound, state: self.state_store.directory() };
        running.check(&config)?;
        running.log(&warnings, &config);
        let keeps_tls = running.loses_tls(&config.server);
        self.logging.commit(logging);
        self.records.commit(records);
        self.state.reconfigure(&config.server);
        if keeps_tls {
            config.server.tls = self.config.server.tls.take();
        } else {
            self.certificate = Certificate::new(&config.server);
            self.file_watcher.follow_reload();
        }
        self.metrics.configure(&config);
        self.history.configure(&config, curl);
        self.budget.set_limits(config.budget);
        export_budget(&self.budget, &self.metrics);
        self.state_store.retain(&config);
        // A new budget may already be exhausted, in which case no run would export its spending.
        self.state_store.spent(&self.budget);
        let scheduled = self.schedule(&config, targets).await;
        self.config = config;
        match scheduled {
            Err(CommandError::Busy) => {
                warn!("Scheduler busy; the new configuration will be applied to its probes late");
                Ok(())
            }
            scheduled => scheduled.map_err(|error| error.to_string()),
        }
    }

    /// Notifies systemd's watchdog if no part is stuck.
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
                error!(%part, "Part stuck; watchdog notifications stopped");
            }
            Some(_) => {}
        }
    }

    fn housekeeping(&mut self) {
        match self.metrics.offline(SystemTime::now()) {
            Some(true) if !self.offline => {
                self.offline = true;
                warn!("Prober offline; no provider is reachable");
            }
            Some(false) if self.offline => {
                self.offline = false;
                info!("Prober online again");
            }
            // Unknown means unchanged.
            Some(_) | None => {}
        }
        // A new day resets the spending even without a run.
        export_budget(&self.budget, &self.metrics);
        let paused = self.budget.resumes().is_some();
        if self.paused && !paused {
            info!("Budget available again; generation checks resumed");
        }
        self.paused = paused;
        self.file_watcher.begin(&self.certificate);
        self.notifier.status(&self.status());
    }

    /// Returns whether no provider has a key, as after the installation of the package.
    fn lacks_keys(&self) -> bool {
        let providers = &self.config.providers;
        !providers.is_empty() && providers.values().all(|provider| provider.key.is_none())
    }

    /// Returns the status line for `systemctl status`.
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

    /// Stops all parts. Returns the error of the scheduler if it has given up.
    async fn stop(self) -> Result<(), Fatal> {
        self.health.advance_to(Readiness::Stopping);
        self.notifier.stopping("Stopping: waiting for runs in flight");
        info!("Daemon stopping");
        let mut result = Ok(());
        if self.probing.has_ended() {
            result = self.probing.end().map_err(|gave_up| Fatal::Other(gave_up.to_string()));
        } else {
            match self.probing.stop(DRAIN_TIMEOUT).await {
                Ok(0) => {}
                Ok(aborted) => warn!(aborted, "Shutdown deadline reached; runs in flight aborted"),
                Err(error) => error!(%error, "Failed to wait for runs in flight"),
            }
        }
        self.server.stop(CLOSE_TIMEOUT);
        // Writes the last records.
        self.state_store.stop(CLOSE_TIMEOUT);
        self.records.stop(CLOSE_TIMEOUT);
        self.notifier.flush(CLOSE_TIMEOUT);
        info!("Daemon stopped");
        result
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
