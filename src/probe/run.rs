//! One run: an attempt at a target, from the first lookup to the verdict. It never fails: a failed probe is data.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{Client, Request};
use rustls::ClientConfig;

use super::{
    classify::{self, Verdict, classify},
    client::{self, ClientError},
    clock,
    exchange::{Exchange, Response, exchange},
    failure::{Failure, Route},
    follow::follow,
    hints::Clocks,
    network::Network,
    remedy::remedy,
    request::{self, RequestError},
    resolver::Resolver,
    stream::Listener,
    transcript::{self, Transcript},
    warm::Kept,
};
use crate::{
    config::{Config, Connection, Probe, Provider, Task},
    outcome::{Fault, Outcome, Phases, Reason, Tls},
};

/// A probe made ready to run.
pub struct Target {
    probe: Arc<Probe>,
    work: Work,
}

impl fmt::Debug for Target {
    /// Without the client, which would show the proxy's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.probe.name).finish()
    }
}

/// What a run does.
enum Work {
    /// Sends a request and judges the response.
    Exchange(Box<Call>),
    /// Goes as far as the TLS handshake.
    Network(Box<Network>),
}

/// A request, and who sends it.
struct Call {
    client: Client,
    request: Request,
    /// `None`: each run has a connection of its own.
    kept: Option<Kept>,
}

/// Why a configuration's probes cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No client for a provider.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No request for a probe.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Target {
    /// Makes every probe of a configuration ready: one request a probe, one client a provider and one besides for each
    /// probe that keeps its connection.
    pub fn prepare(config: &Config, resolver: &Arc<Resolver>) -> Result<Vec<Arc<Self>>, PrepareError> {
        let mut clients: Vec<(&Provider, ClientConfig, Client)> = Vec::new();
        let mut targets = Vec::with_capacity(config.probes.len());
        for probe in &config.probes {
            let provider = &*probe.provider;
            let known = clients.iter().find(|(known, ..)| known.name == provider.name);
            let (tls, client) = if let Some((_, tls, client)) = known {
                (tls.clone(), client.clone())
            } else {
                let tls = client::tls(provider, &config.system_roots)?;
                let client = client::client(provider, tls.clone(), resolver.clone(), Connection::Cold)?;
                clients.push((provider, tls.clone(), client.clone()));
                (tls, client)
            };
            let work = match request::request(probe)? {
                Some(request) if probe.connection == Connection::Warm => {
                    let client = client::client(provider, tls, resolver.clone(), Connection::Warm)?;
                    Work::Exchange(Box::new(Call { client, request, kept: Some(Kept::default()) }))
                }
                Some(request) => Work::Exchange(Box::new(Call { client, request, kept: None })),
                None => Work::Network(Box::new(Network::new(provider, tls, resolver.clone())?)),
            };
            targets.push(Arc::new(Self { probe: probe.clone(), work }));
        }
        Ok(targets)
    }

    /// What it is.
    pub fn probe(&self) -> &Arc<Probe> {
        &self.probe
    }

    /// One attempt, with the time that the probe has.
    pub async fn run(&self) -> Outcome {
        self.run_within(self.probe.timeout).await
    }

    /// One attempt, with this time.
    pub async fn run_within(&self, timeout: Duration) -> Outcome {
        let probe = &self.probe;
        let mut outcome = match &self.work {
            Work::Exchange(call) => self.ask(call, timeout).await,
            Work::Network(network) => network.run(timeout).await,
        };
        outcome.fault = probe.check().blame(outcome.fault);
        outcome.estimated_cost_usd = cost(probe, &outcome);
        outcome.hint = remedy(probe.provider.api, probe.check(), &outcome);
        // Of a stream the first token is what its readers wait for.
        let took = outcome.time_to_first_token.unwrap_or(outcome.duration);
        outcome.slow = outcome.success() && probe.slow_after.is_some_and(|slow_after| took > slow_after);
        outcome
    }

    /// One attempt, and what was said in it.
    pub async fn run_with_transcript(&self) -> (Outcome, Transcript) {
        transcript::recorded(&self.probe, self.run()).await
    }

    /// One request, and what comes of it.
    async fn ask(&self, call: &Call, timeout: Duration) -> Outcome {
        let probe = &self.probe;
        let Call { client, request, kept } = call;
        let request = request.try_clone().expect("its body is bytes in memory, which can be cloned");
        let mut listener = match &probe.task {
            Task::Stream(stream) => Some(Listener::new(probe.provider.api, stream)),
            _ => None,
        };
        let time = SystemTime::now();
        let route = Route::to(&probe.provider);
        let (exchange, before) = match probe.task {
            Task::Status(_) => follow(client, request, timeout, route).await,
            _ => (exchange(client, request, timeout, route, listener.as_mut()).await, Phases::default()),
        };
        let mut outcome = facts(time, &exchange, before);
        outcome.connection = kept.as_ref().map(|kept| kept.note(&exchange));
        let Exchange { response, failure, started, headers, seen, .. } = exchange;
        // What is refused is not streamed.
        let listener = listener.filter(|_| response.as_ref().is_some_and(Response::is_success));
        let clocks = response.as_ref().map(|response| {
            let elapsed = headers.map_or_else(Default::default, |headers| headers - started);
            Clocks::read(time + before.total() + elapsed, &response.headers)
        });
        outcome.clock_offset = clocks.and_then(|clocks| clocks.offset());
        match (response, clocks, failure) {
            (Some(response), Some(clocks), None) => {
                decide(&mut outcome, self.judge(response, clocks, listener.as_ref()).await);
            }
            (response, clocks, failure) => {
                if let (Some(response), Some(clocks)) = (response, clocks) {
                    (outcome.request_id, outcome.ratelimit) =
                        classify::headers_only(probe, &response, &clocks);
                }
                if let Some(Failure { reason, fault, detail }) = failure {
                    (outcome.reason, outcome.fault, outcome.detail) = (reason, fault, detail);
                }
            }
        }
        if let Some(listener) = listener {
            listener.measure(&mut outcome, seen.handed_over);
        }
        outcome
    }

    /// The verdict on a whole response; a large one is taken apart on a thread of its own, so that the thread that times
    /// the other probes is not kept.
    async fn judge(
        &self,
        mut response: Response,
        clocks: Clocks,
        listener: Option<&Listener>,
    ) -> Option<Verdict> {
        if let Some(listener) = listener {
            let Some(foreign) = listener.foreign() else {
                return Some(classify::stream(&self.probe, &response, &clocks, &listener.ending()));
            };
            response.body = foreign.to_vec();
        }
        if !classify::is_heavy(self.probe.check(), &response.body) {
            return Some(classify(&self.probe, &response, &clocks));
        }
        let probe = self.probe.clone();
        tokio::task::spawn_blocking(move || classify(&probe, &response, &clocks)).await.ok()
    }
}

/// What the exchange shows before any verdict, and the redirects `before` it took. The verdict is `internal` until
/// there is one.
fn facts(time: SystemTime, exchange: &Exchange, before: Phases) -> Outcome {
    let Exchange { response, seen, started, headers, ended, .. } = exchange;
    let mut outcome = Outcome::new(time, Reason::Internal, Fault::Prober);
    outcome.duration = before.total() + (*ended - *started);
    outcome.phases = before.plus(clock::phases(seen, *started, *headers, *ended));
    outcome.dns.clone_from(&seen.addresses);
    outcome.tls =
        seen.handshake.map(|_| Tls { version: seen.tls_version, cipher: None, not_after: seen.not_after });
    if let Some(response) = response {
        outcome.http_status = Some(response.status);
        outcome.http_version = Some(response.version);
        outcome.remote_address = response.remote_address;
    }
    outcome
}

/// What the run's tokens cost. A service that told one count alone has told nothing of the other's tokens.
fn cost(probe: &Probe, outcome: &Outcome) -> Option<f64> {
    let price = probe.chat()?.price?;
    let (input, output) = (outcome.input_tokens, outcome.output_tokens);
    input.or(output).map(|_| price.cost(input.unwrap_or(0), output.unwrap_or(0)))
}

fn decide(outcome: &mut Outcome, verdict: Option<Verdict>) {
    let Some(verdict) = verdict else {
        outcome.detail = Cow::Borrowed("the response could not be taken apart");
        return;
    };
    let Verdict {
        reason,
        fault,
        detail,
        error_code,
        upstream,
        request_id,
        retry_after,
        ratelimit,
        tokens,
        status_page,
        balance,
    } = verdict;
    (outcome.reason, outcome.fault, outcome.detail) = (reason, fault, detail);
    (outcome.error_code, outcome.upstream, outcome.request_id) = (error_code, upstream, request_id);
    (outcome.retry_after, outcome.ratelimit) = (retry_after, ratelimit);
    (outcome.input_tokens, outcome.output_tokens) = (tokens.input, tokens.output);
    outcome.tokens_estimated = tokens.estimated;
    (outcome.status_page, outcome.balance) = (status_page, balance);
}
