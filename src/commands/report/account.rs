//! `--account`: what LangMart's account API reports about the failed requests.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;

use super::{
    command::{Report, ReportFormat},
    ledger::or_dash,
};
use crate::{
    api::gate,
    commands::{
        command_line::{command_line, service_hint},
        forbid_core_dumps,
    },
    config::{self, Config, Environment, Keys},
    outcome::{Api, rfc3339},
    probe::{AccountApi, AccountError, AccountFailure, AccountRequest, AccountRequests, NetworkStack},
};

/// Maximum number of requests that are asked about per provider.
const MAX_REQUESTS: usize = 10;

/// Time after which no further request of a provider is asked about.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// Pause before each request, so that the account's rate limit is left to others.
const PAUSE: Duration = Duration::from_millis(100);

/// Mark of the section in every format.
const MARK: &str = "As LangMart reports it; not measured by this prober.";

/// A failed request: its time and its ID.
pub(super) type FailedRequest = (SystemTime, String);

/// What `--account` asks for.
pub(super) struct AccountQuery<'a> {
    request: Report<'a>,
    environment: &'a Environment<'a>,
    /// Names of the providers to ask, of the API `langmart`.
    providers: Vec<String>,
    since: SystemTime,
}

/// The account of one provider.
#[derive(Debug, Serialize)]
pub(super) struct AccountReport {
    provider: String,
    note: &'static str,
    /// Error statistics of the account, for all its requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<AccountError>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requests: Vec<AccountRequest>,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<String>,
}

impl<'a> AccountQuery<'a> {
    /// Returns the query of the providers whose probes are reported.
    pub(super) fn new(
        request: &Report<'a>,
        environment: &'a Environment<'a>,
        config: &Config,
        since: SystemTime,
    ) -> Self {
        let probes = config.probes.iter().filter(|probe| request.includes(&probe.name, &probe.provider.name));
        let providers = probes.map(|probe| &probe.provider).filter(|provider| provider.api == Api::Langmart);
        let names: BTreeSet<String> = providers.map(|provider| provider.name.clone()).collect();
        let providers = names.into_iter().collect();
        Self { request: *request, environment, providers, since }
    }

    /// Reads the accounts. `failed` returns the failed requests of a provider.
    pub(super) fn run(
        &self,
        failed: impl Fn(&str) -> Vec<FailedRequest>,
        err: &mut impl io::Write,
    ) -> io::Result<Vec<AccountReport>> {
        if self.providers.is_empty() {
            writeln!(err, "warning: --account: no reported probe has a provider of the API langmart")?;
            return Ok(Vec::new());
        }
        // Before any key is in memory.
        forbid_core_dumps(err);
        let mut reports: Vec<_> = self.providers.iter().map(|name| AccountReport::new(name)).collect();
        let Some(config) = self.with_keys(err)? else {
            for report in &mut reports {
                report.failures.push("its key cannot be used: see the messages of this command".to_owned());
            }
            return Ok(reports);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stack = Arc::new(NetworkStack::new());
        for report in &mut reports {
            let Some(provider) = config.providers.get(&report.provider) else { continue };
            match AccountApi::new(provider, &config.system_roots, &stack) {
                Ok(api) => {
                    let failed = latest(failed(&report.provider));
                    let (provider, count) = (&report.provider, failed.len());
                    writeln!(err, "Asking LangMart's account API, provider {provider}; requests: {count}")?;
                    runtime.block_on(report.read(&api, (self.since, self.request.now), &failed));
                }
                Err(error) => report.failures.push(error.to_string()),
            }
        }
        // Does not wait for lookups that are still pending.
        runtime.shutdown_background();
        Ok(reports)
    }

    /// Loads the configuration with the keys of the providers. Returns `None` if it is invalid with
    /// them, and writes the problems to `err`.
    fn with_keys(&self, err: &mut impl io::Write) -> io::Result<Option<Config>> {
        let loaded =
            match config::load(self.request.path, Keys::ReportedOf(&self.providers), self.environment) {
                Ok(loaded) => loaded,
                Err(problems) => {
                    writeln!(err, "{problems}")?;
                    return Ok(None);
                }
            };
        if !loaded.unread.is_empty() {
            for warning in &loaded.warnings {
                writeln!(err, "warning: {warning}")?;
            }
            write!(err, "{}", service_hint(&loaded.unread, self.environment, &self.command()))?;
        }
        Ok(Some(loaded.config))
    }

    /// Returns the command line that repeats the query.
    fn command(&self) -> String {
        let Report { path, incidents, since, probe, provider, format, vantages, .. } = self.request;
        let flags =
            [(true, "--account"), (incidents, "--incidents"), (format == ReportFormat::Json, "--json")];
        let options = [("--since", since), ("--probe", probe), ("--provider", provider)];
        let given = options.into_iter().filter_map(|(name, value)| Some([name, value?]));
        let vantages = vantages.iter().map(|vantage| ["--vantage", vantage]);
        let words: Vec<String> = given.chain(vantages).flatten().map(str::to_owned).collect();
        command_line("report", path, &flags, &words)
    }
}

/// Returns the latest failed requests, the last one first, each once.
fn latest(mut failed: Vec<FailedRequest>) -> Vec<FailedRequest> {
    failed.retain(|(_, id)| gate::request_id(id).is_some());
    failed.sort_unstable();
    failed.reverse();
    let mut seen = BTreeSet::new();
    failed.retain(|(_, id)| seen.insert(id.clone()));
    failed.truncate(MAX_REQUESTS);
    failed
}

impl AccountReport {
    fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            note: MARK,
            errors: Vec::new(),
            requests: Vec::new(),
            failures: Vec::new(),
        }
    }

    async fn read(
        &mut self,
        api: &AccountApi,
        (since, until): (SystemTime, SystemTime),
        failed: &[FailedRequest],
    ) {
        let started = Instant::now();
        match api.errors(since, until).await {
            Ok(errors) => self.errors = errors,
            Err(error) => {
                self.failures.push(format!("error statistics: {error}"));
                if error.is_lasting() {
                    return;
                }
            }
        }
        if failed.is_empty() {
            self.failures.push("requests: no failed run of the report has a request ID".to_owned());
        }
        let mut known = Vec::new();
        for (number, (time, id)) in failed.iter().enumerate() {
            if started.elapsed() > MAX_DURATION {
                let (rest, limit) = (failed.len() - number, MAX_DURATION.as_secs());
                self.failures.push(format!("requests: {rest} are left out after {limit} s"));
                return;
            }
            match self.find(api, &mut known, *time, id).await {
                Ok(None) => {}
                Ok(Some(missing)) => self.failures.push(format!("request {id}: {missing}")),
                Err(error) => {
                    self.failures.push(format!("request {id}: {error}"));
                    if error.is_lasting() {
                        return;
                    }
                }
            }
        }
    }

    /// Adds the log of a request. Returns that LangMart does not list it, if so. `known` are logs
    /// that were listed for other requests.
    async fn find(
        &mut self,
        api: &AccountApi,
        known: &mut Vec<AccountRequest>,
        time: SystemTime,
        id: &str,
    ) -> Result<Option<String>, AccountFailure> {
        let is_it = |log: &AccountRequest| log.request_id == id || log.log_id.as_deref() == Some(id);
        let mut missing = String::new();
        if !known.iter().any(is_it) {
            tokio::time::sleep(PAUSE).await;
            let AccountRequests { requests, is_complete } = api.requests_around(time).await?;
            missing = if is_complete {
                "LangMart lists no request with this ID".to_owned()
            } else {
                let count = requests.len();
                format!("not among the {count} listed requests around that time; LangMart has more")
            };
            known.extend(requests);
        }
        let Some(position) = known.iter().position(is_it) else { return Ok(Some(missing)) };
        let mut log = known.swap_remove(position);
        let details = api.add_details(&mut log).await;
        self.requests.push(log);
        details.map(|()| None)
    }
}

/// Formats the accounts as sections.
pub(super) fn write_accounts(reports: &[AccountReport], text: &mut String) -> fmt::Result {
    for report in reports {
        writeln!(text, "\n## LangMart's own account, provider {}\n\n{}", report.provider, report.note)?;
        write_errors(&report.errors, text)?;
        write_requests(&report.requests, text)?;
        if !report.failures.is_empty() {
            writeln!(text)?;
        }
        for failure in &report.failures {
            writeln!(text, "- Not read: {failure}")?;
        }
    }
    Ok(())
}

fn write_errors(errors: &[AccountError], text: &mut String) -> fmt::Result {
    if errors.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nErrors of all requests of the account, in the days of the period:\n")?;
    writeln!(text, "| status | error code | count | last occurrence |\n|---|---|---|---|")?;
    for error in errors {
        let (status, count) = (or_dash(error.status_code), or_dash(error.count));
        let (code, last) =
            (or_dash(error.error_code.as_deref()), or_dash(error.last_occurrence.map(rfc3339)));
        writeln!(text, "| {status} | {code} | {count} | {last} |")?;
    }
    Ok(())
}

fn write_requests(requests: &[AccountRequest], text: &mut String) -> fmt::Result {
    if requests.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nFailed requests of this report:\n")?;
    writeln!(
        text,
        "| request ID | log | time | status | latency | first token | cost | connections tried |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    for request in requests {
        let (log, time) = (or_dash(request.log_id.as_deref()), or_dash(request.created_at.map(rfc3339)));
        let [latency, first] = [request.latency_ms, request.time_to_first_token_ms]
            .map(|time| or_dash(time.map(|time| format!("{time} ms"))));
        let (status, cost) = (or_dash(request.status_code), or_dash(request.cost));
        let (id, tried) = (&request.request_id, or_dash(request.candidates_tried));
        writeln!(text, "| {id} | {log} | {time} | {status} | {latency} | {first} | {cost} | {tried} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn command_line_repeats_the_query() {
        let request = Report {
            path: Path::new("/etc/a.toml"),
            incidents: true,
            since: Some("7d"),
            probe: None,
            provider: Some("langmart"),
            format: ReportFormat::Json,
            account: true,
            vantages: &["fra=/srv/fra".to_owned(), "nyc=/srv/n y".to_owned()],
            terminal: false,
            now: SystemTime::UNIX_EPOCH,
            packaged_logs: Path::new("/nonexistent"),
        };
        let environment = Environment { variable: &|_| None, system_roots: &Vec::new };
        let since = SystemTime::UNIX_EPOCH;
        let query = AccountQuery { request, environment: &environment, providers: Vec::new(), since };
        assert_eq!(
            query.command(),
            "langmart-prober report --config /etc/a.toml --account --incidents --json --since 7d --provider langmart \
             --vantage 'fra=/srv/fra' --vantage 'nyc=/srv/n y'"
        );
    }

    #[test]
    fn latest_requests_are_asked_about_once() {
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let mut failed: Vec<FailedRequest> =
            (0..30).map(|second| (at(second), format!("req_{second}"))).collect();
        failed.push((at(31), "req_29".to_owned()));
        failed.push((at(32), "../errors".to_owned()));
        let asked = latest(failed);
        assert_eq!(asked.len(), MAX_REQUESTS);
        assert_eq!(
            (asked[0].clone(), asked[1].clone()),
            ((at(31), "req_29".into()), (at(28), "req_28".into()))
        );
    }
}
