//! `/probe`: runs a configured probe on demand, like `blackbox_exporter`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::{StatusCode, http::request};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use super::guard;
use crate::{
    history::{History, ProbeHistory},
    outcome::{OnDemandResult, SkipCause},
    page::{self, Answer},
};

/// Capacity of the queue of requests to the scheduler.
pub const MAX_RUN_REQUESTS: usize = 128;

/// Header in which a browser reports the origin of a request (W3C Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Header in which Prometheus sends its scrape timeout, in seconds.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// Time before the scrape timeout at which the response must be ready.
const TIMEOUT_MARGIN: Duration = Duration::from_millis(500);

/// Maximum duration of a run, below the timeout of a request.
const MAX_RUN_TIME: Duration = Duration::from_secs(28);

/// Minimum duration of a run, and time for the response after a run was given up.
const MIN_RUN_TIME: Duration = Duration::from_millis(50);

/// A request for an on-demand run.
#[derive(Debug)]
pub struct RunRequest {
    /// Name of the probe.
    pub probe: String,
    /// Maximum duration of the run.
    pub within: Duration,
    /// Receives the result. It is dropped if there is none.
    pub answer: oneshot::Sender<OnDemandResult>,
}

/// Status and text of a refusal.
type Refusal = (StatusCode, String);

fn refuse<T>(status: StatusCode, text: &str) -> Result<T, Refusal> {
    Err((status, format!("{text}\n")))
}

/// Runs a probe and renders its metrics. `generation` permits chat and stream checks; `secure` is
/// true with TLS.
pub(super) async fn run(
    head: &request::Parts,
    history: &History,
    runs: &mpsc::Sender<RunRequest>,
    generation: bool,
    secure: bool,
) -> Result<String, Refusal> {
    let known = permitted_probe(head, history, generation, secure)?;
    let probe = &known.probe;
    let within = run_time(head, probe.timeout);
    let (answer, result) = oneshot::channel();
    let request = RunRequest { probe: probe.name.clone(), within, answer };
    match runs.try_send(request) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "Too many requests are waiting for runs.");
        }
        Err(TrySendError::Closed(_)) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "The daemon is stopping.");
        }
    }
    let (outcome, not_run) = match timeout(within + MIN_RUN_TIME, result).await {
        Ok(Ok(OnDemandResult::Ran(outcome))) => (Some(outcome), None),
        Ok(Ok(OnDemandResult::Skipped(cause))) => (known.snapshot().latest, Some(cause)),
        // The probe is being rechecked, waits for its pair, or was changed by a reload.
        Ok(Err(_)) | Err(_) => (known.snapshot().latest, Some(SkipCause::Concurrency)),
    };
    // Without a result there must be no samples: `probe_success 0` would report a failure that did
    // not happen.
    let Some(outcome) = outcome.as_deref() else {
        let why = not_run.map_or(String::new(), |cause| format!(" ({cause})"));
        let text = format!("The probe cannot be run now{why}, and has no earlier result.");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &text);
    };
    let debug = parameter(head, "debug").is_some_and(|debug| debug == "true");
    Ok(page::answer(&Answer { probe, outcome, not_run, debug, now: SystemTime::now() }))
}

/// Returns the probe that a request names, if it may be run for it.
fn permitted_probe(
    head: &request::Parts,
    history: &History,
    generation: bool,
    secure: bool,
) -> Result<Arc<ProbeHistory>, Refusal> {
    // A browser sends such requests for images of other sites without an Origin header.
    if header(head, SEC_FETCH_SITE).is_some_and(|site| matches!(site, "cross-site" | "same-site")) {
        return refuse(StatusCode::FORBIDDEN, "Pages of other sites must not run probes.");
    }
    let Some(target) = parameter(head, "target") else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "Parameter target is missing: add ?target=NAME with the name of a configured probe.",
        );
    };
    let Some(known) = history.all().get(&target).cloned() else {
        return refuse(StatusCode::NOT_FOUND, "No probe of that name is configured.");
    };
    if !known.probe.check().generates() {
        return Ok(known);
    }
    if !generation {
        return refuse(
            StatusCode::FORBIDDEN,
            "Chat and stream probes consume tokens: set probe_generation = true in [server] to allow them.",
        );
    }
    // Pages of other sites cannot send Prometheus' header, because browsers send a preflight
    // request first.
    let trusted_client = guard::sends_fetch_metadata(head, secure)
        || [SEC_FETCH_SITE, SCRAPE_TIMEOUT].iter().any(|name| head.headers.contains_key(*name));
    if !trusted_client {
        return refuse(
            StatusCode::FORBIDDEN,
            "This consumes tokens, and over plain HTTP it could be requested by a page of any site: use TLS, or the header \
             X-Prometheus-Scrape-Timeout-Seconds, which Prometheus sends.",
        );
    }
    Ok(known)
}

/// Returns the value of a parameter of the query.
fn parameter(head: &request::Parts, wanted: &str) -> Option<String> {
    let mut all = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    all.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// Returns the maximum duration of the run: the probe's timeout, limited by the scrape timeout.
fn run_time(head: &request::Parts, probe: Duration) -> Duration {
    let scrape = header(head, SCRAPE_TIMEOUT)
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let bound = scrape.map_or(MAX_RUN_TIME, |scrape| scrape.saturating_sub(TIMEOUT_MARGIN).max(MIN_RUN_TIME));
    probe.min(bound).min(MAX_RUN_TIME)
}

fn header<'a>(head: &'a request::Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}
