//! `/probe`: runs a configured probe now for whoever asks, as `blackbox_exporter` does with a target.

use std::time::{Duration, SystemTime};

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
    history::History,
    outcome::{Demanded, SkipCause},
    page::{self, Answer},
};

/// Requests that may be on their way to the scheduler at a time.
pub const MOST_RUN_REQUESTS: usize = 128;

/// Where a browser says a request comes from (W3C Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// How long Prometheus waits, in seconds.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// How long before Prometheus gives up there must be an answer.
const OFFSET: Duration = Duration::from_millis(500);

/// The most that a run may take here: below the time that a connection has for a request.
const LONGEST: Duration = Duration::from_secs(28);

/// What remains for the answer where a run is given up.
const SHORTEST: Duration = Duration::from_millis(50);

/// Someone asks for a run of now and waits.
#[derive(Debug)]
pub struct RunRequest {
    /// The probe's name.
    pub probe: String,
    /// How long the run may take from now on.
    pub within: Duration,
    /// Takes what comes of it. Dropped, nothing will.
    pub answer: oneshot::Sender<Demanded>,
}

/// The answer, or the status and text of a refusal; `generation`: tokens may be spent, `secure`: it is asked over TLS.
pub(super) async fn run(
    head: &request::Parts,
    history: &History,
    runs: &mpsc::Sender<RunRequest>,
    generation: bool,
    secure: bool,
) -> Result<String, (StatusCode, String)> {
    let refuse = |status, text: &str| Err((status, format!("{text}\n")));
    // A page of another site can have a browser ask for this without an Origin, as for an image.
    if header(head, SEC_FETCH_SITE).is_some_and(|site| matches!(site, "cross-site" | "same-site")) {
        return refuse(StatusCode::FORBIDDEN, "A page of another site may not run probes.");
    }
    let query = head.uri.query().unwrap_or_default();
    let parameter = |wanted: &str| {
        let mut all = url::form_urlencoded::parse(query.as_bytes());
        all.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
    };
    let Some(target) = parameter("target") else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "Target parameter is missing: write ?target=NAME of a configured probe.",
        );
    };
    let Some(known) = history.all().get(&target).cloned() else {
        return refuse(StatusCode::NOT_FOUND, "No probe of that name is configured: only those can be run.");
    };
    let probe = &known.probe;
    if probe.check().generates() && !generation {
        return refuse(
            StatusCode::FORBIDDEN,
            "Chat and stream probes spend tokens: set probe_generation = true in [server] to have them run here.",
        );
    }
    // No page of another site can have a browser send Prometheus' header without asking first, which is not answered.
    let known_asker = guard::is_told_by_browsers(head, secure)
        || [SEC_FETCH_SITE, SCRAPE_TIMEOUT].iter().any(|name| head.headers.contains_key(*name));
    if probe.check().generates() && !known_asker {
        return refuse(
            StatusCode::FORBIDDEN,
            "Over plain HTTP a page of any site could ask for this, which spends tokens: ask over TLS, or with the header \
             X-Prometheus-Scrape-Timeout-Seconds, as Prometheus does.",
        );
    }
    let within = patience(head, probe.timeout);
    let (answer, result) = oneshot::channel();
    let request = RunRequest { probe: target, within, answer };
    match runs.try_send(request) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "Too many runs are waited for already.");
        }
        Err(TrySendError::Closed(_)) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "The daemon is stopping.");
        }
    }
    let (outcome, waits) = match timeout(within + SHORTEST, result).await {
        Ok(Ok(Demanded::Ran(outcome))) => (Some(outcome), None),
        Ok(Ok(Demanded::Waits(cause))) => (known.snapshot().latest, Some(cause)),
        // It is being rechecked, waits for the other probe of its pair, or has just been changed by a reload.
        Ok(Err(_)) | Err(_) => (known.snapshot().latest, Some(SkipCause::Concurrency)),
    };
    // No sample at all: a success of 0 would tell of a failure that nobody has seen.
    let Some(outcome) = outcome.as_deref() else {
        let why = waits.map_or(String::new(), |cause| format!(" ({cause})"));
        let text = format!("The probe waits{why}, and there is no result yet that could be given instead.");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &text);
    };
    let debug = parameter("debug").is_some_and(|debug| debug == "true");
    Ok(page::answer(&Answer { probe, outcome, waits, debug, now: SystemTime::now() }))
}

/// As long as the probe has, and no longer than whoever asks waits.
fn patience(head: &request::Parts, probe: Duration) -> Duration {
    let scrape = header(head, SCRAPE_TIMEOUT)
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let bound = scrape.map_or(LONGEST, |scrape| scrape.saturating_sub(OFFSET).max(SHORTEST));
    probe.min(bound).min(LONGEST)
}

fn header<'a>(head: &'a request::Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}
