//! One run: an attempt at a target, from the first lookup to the verdict. It never fails: a failed
//! probe is data.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use hyper::{HeaderMap, header::CONTENT_ENCODING};
use tokio::time::timeout_at;

use super::{
    classify::{self, Verdict, classify},
    document::{Document, Fetched},
    exchange::{Call, Exchange, Response, exchange},
    expectation,
    failure::Failure,
    keep_alive::KeepAlive,
    network::NetworkCheck,
    path::{self, Path, PrepareError, Trace},
    proxy::Proxy,
    remedy::remedy,
    request::{self, RequestError},
    resolver::Resolver,
    socket::TimestampingGuard,
    stream::Listener,
    tls::Tls,
    transcript::{Recording, Transcript},
};
use crate::{
    api::hints::Clocks,
    config::{Config, Connection, Probe, Task},
    outcome::{Detail, Fault, Outcome, Reason},
};

/// The word in remedies that stands for the host of the probe.
const HOST: &str = "HOST";

/// Parts that all targets of a process share: lookups, and the kernel's timestamps switched on.
#[derive(Debug)]
pub struct NetworkStack {
    resolver: Resolver,
    _timestamping: TimestampingGuard,
}

impl NetworkStack {
    /// Starts no thread yet.
    pub fn new() -> Self {
        Self { resolver: Resolver::new(), _timestamping: TimestampingGuard::new() }
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }
}

impl Default for NetworkStack {
    fn default() -> Self {
        Self::new()
    }
}

/// A probe made ready to run.
pub struct Target {
    probe: Arc<Probe>,
    work: Work,
    /// Dropped last, so that the kernel's timestamps stay on.
    _stack: Arc<NetworkStack>,
}

impl fmt::Debug for Target {
    /// Formats the target without the connection settings, which have the proxy's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.probe.name).finish()
    }
}

/// Work of a run.
enum Work {
    /// Sends a request and judges the response.
    Exchange(Box<Call>),
    /// Goes as far as the TLS handshake.
    Network(Box<NetworkCheck>),
    /// Fetches the status page.
    Document(Arc<Document>),
}

/// Error while preparing a configuration's probes.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No connection settings for a provider.
    #[error(transparent)]
    Provider(#[from] PrepareError),
    /// No request for a probe.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Target {
    /// Makes every probe of a configuration ready. The probes of a provider share its TLS settings.
    pub fn prepare(config: &Config, stack: &Arc<NetworkStack>) -> Result<Vec<Arc<Self>>, TargetError> {
        let mut prepared: Vec<(&str, Tls)> = Vec::new();
        let mut targets = Vec::with_capacity(config.probes.len());
        for probe in &config.probes {
            let provider = &*probe.provider;
            let known = prepared.iter().find(|(name, _)| *name == provider.name);
            let tls = if let Some((_, tls)) = known {
                tls.clone()
            } else {
                let tls = path::tls(provider, &config.system_roots)?;
                prepared.push((&provider.name, tls.clone()));
                tls
            };
            let work = work(probe, tls, stack.resolver.clone())?;
            targets.push(Arc::new(Self { probe: probe.clone(), work, _stack: stack.clone() }));
        }
        Ok(targets)
    }

    /// Returns the probe.
    pub fn probe(&self) -> &Arc<Probe> {
        &self.probe
    }

    /// Makes one attempt, with the time that the probe has.
    pub async fn run(&self) -> Outcome {
        self.run_within(self.probe.timeout).await
    }

    /// Makes one attempt, with this time.
    pub async fn run_within(&self, timeout: Duration) -> Outcome {
        self.attempt(timeout, None).await
    }

    /// Makes one attempt, and returns what was sent and received in it.
    pub async fn run_with_transcript(&self) -> (Outcome, Transcript) {
        let mut recording = Recording::default();
        let outcome = self.attempt(self.probe.timeout, Some(&mut recording)).await;
        (outcome, recording.transcript(&self.probe))
    }

    async fn attempt(&self, timeout: Duration, recording: Option<&mut Recording>) -> Outcome {
        let probe = &self.probe;
        let mut outcome = match &self.work {
            Work::Exchange(call) => self.exchange(call, timeout, recording).await,
            Work::Network(network) => network.run(timeout).await,
            Work::Document(document) => self.fetch(document, timeout, recording).await,
        };
        outcome.fault = probe.check().blame(outcome.fault);
        outcome.estimated_cost_usd = cost(probe, &outcome);
        apply_retirement(probe, &mut outcome);
        if outcome.success() && outcome.detail.is_none() && outcome.cached_input_tokens > Some(0) {
            outcome.detail = Some(Detail::CachedPrompt);
        }
        let hint = remedy(probe, &outcome);
        outcome.hint =
            if hint.contains(HOST) { hint.replace(HOST, probe.host()).into() } else { hint.into() };
        // The readers of a stream wait for its first token.
        let took = outcome.time_to_first_token.unwrap_or(outcome.duration);
        outcome.slow = outcome.success() && probe.slow_after.is_some_and(|slow_after| took > slow_after);
        outcome
    }

    /// Sends one request, and returns the verdict on the response.
    async fn exchange(&self, call: &Call, timeout: Duration, recording: Option<&mut Recording>) -> Outcome {
        let probe = &self.probe;
        let mut listener = match &probe.task {
            Task::Stream(stream) => Some(Listener::new(probe.provider.api, stream)),
            _ => None,
        };
        let (time, started) = (SystemTime::now(), Instant::now());
        let deadline = started + timeout;
        let exchange = exchange(call, timeout, listener.as_mut(), recording).await;
        let Exchange { response, failure, trace, sent, head, clock, connection } = exchange;
        let mut outcome = path_findings(time, trace);
        (outcome.clock, outcome.connection) = (clock, connection);
        // A refusal is not streamed.
        let listener = listener.filter(|_| response.as_ref().is_some_and(Response::is_success));
        let until_head = head.unwrap_or(started).saturating_duration_since(started);
        let end = ExchangeEnd { response, failure, arrived: time + until_head, deadline };
        self.decide(&mut outcome, end, listener.as_ref()).await;
        if let Some(listener) = listener {
            listener.measure(&mut outcome, sent);
        }
        outcome
    }

    /// Fetches the status page, and returns the verdict on it.
    async fn fetch(
        &self,
        document: &Arc<Document>,
        timeout: Duration,
        recording: Option<&mut Recording>,
    ) -> Outcome {
        let (time, deadline) = (SystemTime::now(), Instant::now() + timeout);
        let Fetched { response, failure, phases, until_head } = document.fetch(timeout, recording).await;
        let mut outcome = Outcome::new(time, Reason::Internal, Fault::Prober);
        (outcome.phases, outcome.duration) = (phases, phases.total());
        let end = ExchangeEnd { response, failure, arrived: time + until_head, deadline };
        self.decide(&mut outcome, end, None).await;
        outcome
    }

    /// Writes the response's facts and the verdict into the outcome.
    async fn decide(&self, outcome: &mut Outcome, end: ExchangeEnd, listener: Option<&Listener>) {
        let ExchangeEnd { response, failure, arrived, deadline } = end;
        if let Some(failure) = failure {
            failure.write_into(outcome);
            if let Some(response) = &response {
                let clocks = head_facts(outcome, response, arrived);
                (outcome.request_id, outcome.ratelimit) =
                    classify::headers_only(&self.probe, response, &clocks);
            }
        } else if let Some(response) = response {
            let clocks = head_facts(outcome, &response, arrived);
            let coding = response.is_success().then(|| content_coding(&response.headers)).flatten();
            match self.judge(response, clocks, listener, deadline).await {
                Ok(verdict) => verdict.write_into(outcome),
                Err(failure) => failure.write_into(outcome),
            }
            if let Some(coding) = coding.filter(|_| !outcome.success()) {
                outcome.detail = Some(Detail::Compressed(coding));
            }
        }
    }

    /// Returns the verdict on a whole response. A large one is classified on a thread of its own,
    /// so that the thread that times the other probes is not kept. A search for the operator's
    /// pattern counts in the run's timeout; other work on the response is ours, and does not.
    async fn judge(
        &self,
        mut response: Response,
        clocks: Clocks,
        listener: Option<&Listener>,
        deadline: Instant,
    ) -> Result<Verdict, Failure> {
        if let Some(listener) = listener {
            let Some(foreign) = listener.foreign() else {
                return Ok(classify::stream(&self.probe, &response, &clocks, listener));
            };
            response.body = foreign.to_vec();
        }
        if !classify::is_heavy(self.probe.check(), &response.body) {
            return Ok(classify(&self.probe, &response, &clocks));
        }
        let searches = expectation::searches(&self.probe.task);
        let begun = Arc::new(AtomicBool::new(false));
        let (probe, begins) = (self.probe.clone(), begun.clone());
        let mut classifying = tokio::task::spawn_blocking(move || {
            begins.store(true, Relaxed);
            classify(&probe, &response, &clocks)
        });
        let ended = match timeout_at(deadline.into(), &mut classifying).await {
            Err(_) if searches => {
                // One that no thread has taken yet never begins.
                classifying.abort();
                return Err(expectation::late_search(self.probe.provider.api, begun.load(Relaxed)));
            }
            Err(_) => classifying.await,
            Ok(ended) => ended,
        };
        ended.map_err(|_| Failure::new(Reason::Internal, Fault::Prober, Detail::ClassificationFailed))
    }
}

/// End of the exchange of a run.
struct ExchangeEnd {
    /// The response. `None` if there was none.
    response: Option<Response>,
    /// The failure. `None` if the response decides.
    failure: Option<Failure>,
    /// Time at which the response head had arrived, by our clock.
    arrived: SystemTime,
    deadline: Instant,
}

/// Makes the work of a probe ready.
fn work(probe: &Probe, tls: Tls, resolver: Resolver) -> Result<Work, TargetError> {
    let provider = &*probe.provider;
    if let Task::Status(source) = &probe.task {
        let document = Document::new(provider, source.url.clone(), HeaderMap::new(), &tls, resolver)?;
        return Ok(Work::Document(Arc::new(document)));
    }
    let path = Path::new(provider, tls, resolver)?;
    let Some(mut request) = request::request(probe)? else {
        return Ok(Work::Network(Box::new(NetworkCheck::new(provider, path))));
    };
    let untunnelled = path.proxy.as_ref().filter(|_| path.is_untunnelled());
    if let Some(value) = untunnelled.and_then(Proxy::authorization) {
        request.authorize_proxy(value);
    }
    let keep_alive = (probe.connection == Connection::Warm).then(KeepAlive::default);
    Ok(Work::Exchange(Box::new(Call { api: provider.api, path, request, keep_alive })))
}

/// Returns an outcome with the findings of the path to the host. Its verdict is `internal` until
/// there is one.
pub(super) fn path_findings(time: SystemTime, trace: Trace) -> Outcome {
    let mut outcome = Outcome::new(time, Reason::Internal, Fault::Prober);
    outcome.dns = trace.addresses();
    outcome.phases = trace.timeline.phases();
    outcome.duration = outcome.phases.total();
    outcome.remote_address = trace.remote_address;
    outcome.tls = trace.handshake.as_ref().map(|handshake| handshake.findings(trace.cipher));
    outcome.failed_addresses = trace.dialer.into_failed();
    outcome
}

/// Returns the coding of a body, of a closed set. Returns `None` if it has none.
fn content_coding(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(CONTENT_ENCODING)?.to_str().unwrap_or_default().trim().to_ascii_lowercase();
    match &*value {
        "" | "identity" => None,
        "gzip" | "x-gzip" => Some("gzip"),
        "deflate" => Some("deflate"),
        "br" => Some("br"),
        "zstd" => Some("zstd"),
        "compress" | "x-compress" => Some("compress"),
        _ => Some("other"),
    }
}

/// Writes what the head of a response shows, and returns the clocks that its hints are read by.
fn head_facts(outcome: &mut Outcome, response: &Response, arrived: SystemTime) -> Clocks {
    outcome.http_status = Some(response.status);
    outcome.http_version = Some(response.version);
    outcome.remote_address = response.remote_address.or(outcome.remote_address);
    let clocks = Clocks::read(arrived, &response.headers);
    outcome.clock_offset = clocks.offset();
    clocks
}

/// Adds the shutdown of the model as the operator knows it, and names it as the cause where the
/// model is gone.
fn apply_retirement(probe: &Probe, outcome: &mut Outcome) {
    outcome.model_shutdown = outcome.model_shutdown.or(probe.retires);
    let has_passed = outcome.model_shutdown.is_some_and(|shutdown| shutdown <= outcome.time);
    let is_known = outcome.detail.as_ref().is_some_and(Detail::is_retirement);
    if outcome.reason == Reason::ModelNotFound && has_passed && !is_known {
        outcome.detail = Some(Detail::ModelShutDown);
    }
}

/// Returns the cost of the run's tokens. A count that is not reported costs nothing.
fn cost(probe: &Probe, outcome: &Outcome) -> Option<f64> {
    let price = probe.chat()?.price?;
    let (input, output) = (outcome.input_tokens, outcome.output_tokens);
    let cached = outcome.cached_input_tokens.unwrap_or(0);
    input.or(output).map(|_| price.cost(input.unwrap_or(0), cached, output.unwrap_or(0)))
}
