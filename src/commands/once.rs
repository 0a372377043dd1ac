//! `once`: runs probes a single time, and prints the results with a remedy for each failure.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, EXIT_USAGE,
    command_line::{command_line, service_hint},
    forbid_core_dumps, ranking,
    table::{self, milliseconds},
};
use crate::{
    config::{self, Chat, Environment, Keys, Problems, Schedule},
    outcome::{Check, Fault, Outcome, Phases, Record},
    probe::{NetworkStack, Target, Transcript},
};

/// Minimum time between the starts of two runs. All runs share one thread; if they started at the
/// same time, the work for one would delay the measurements of the others.
const START_SPACING: Duration = Duration::from_millis(2);

/// The arguments of the command.
pub struct Once<'a> {
    /// Path to the configuration file.
    pub path: &'a Path,
    /// Whether to print records instead of the table.
    pub json: bool,
    /// Whether to print requests and responses, too.
    pub verbose: bool,
    /// Names of probes; all if empty.
    pub probes: &'a [String],
    /// Whether standard error is a terminal, which can show progress.
    pub terminal: bool,
}

/// Runs the command. Results go to `out`, messages to `err`. Returns the exit status.
pub fn once(request: &Once<'_>, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    // Before any key is in memory.
    forbid_core_dumps(err);
    let loaded = match config::load(request.path, Keys::Required, &Environment::from_process()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_problems(request, &problems, err);
            return Ok(EXIT_CONFIGURATION);
        }
    };
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    let targets = match Target::prepare(&loaded.config, &Arc::new(NetworkStack::new())) {
        Ok(targets) => targets,
        Err(error) => {
            writeln!(err, "{error}")?;
            return Ok(EXIT_FAILED);
        }
    };
    let unknown = |name: &&String| targets.iter().all(|target| target.probe().name != **name);
    if let Some(name) = request.probes.iter().find(unknown) {
        let known: Vec<&str> = targets.iter().map(|target| &*target.probe().name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        writeln!(err, "no probe is named {name}; the configuration has: {known}")?;
        return Ok(EXIT_USAGE);
    }
    if targets.is_empty() {
        writeln!(err, "no probe is configured; add checks to a provider or a [[probe]]")?;
        return Ok(EXIT_FAILED);
    }
    let wanted =
        |target: &Arc<Target>| request.probes.is_empty() || request.probes.contains(&target.probe().name);
    let targets: Vec<Arc<Target>> = targets.into_iter().filter(wanted).collect();

    if loaded.config.budget.is_some() && targets.iter().any(|target| target.probe().check().generates()) {
        writeln!(err, "note: runs by hand do not count towards the budget, which only the daemon enforces")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let runs = runtime.block_on(run_all(&targets, &loaded.config.schedule, request, err))?;
    // Does not wait for lookups or connections that are still pending.
    runtime.shutdown_background();
    let outcomes = runs.iter().map(|(outcome, _)| outcome);
    let results: Vec<(&Target, &Outcome)> = targets.iter().map(Arc::as_ref).zip(outcomes).collect();
    print_transcripts(&targets, &runs, err)?;
    if request.json {
        print_records(&results, out)?;
    } else {
        print_for_people(&results, out, err)?;
    }
    Ok(if runs.iter().all(|(outcome, _)| outcome.success()) { EXIT_OK } else { EXIT_FAILED })
}

/// Prints the problems of the configuration. Write errors are ignored; the exit status reports the
/// failure.
fn print_problems(request: &Once<'_>, problems: &Problems, err: &mut impl Write) {
    let _ = writeln!(err, "{problems}");
    let environment = Environment::from_process();
    // Without other problems, the keys are missing.
    if let Ok(loaded) = config::load(request.path, Keys::Reported, &environment) {
        let flags = [(request.json, "--json"), (request.verbose, "--verbose")];
        let command = command_line("once", request.path, &flags, request.probes);
        let _ = write!(err, "{}", service_hint(&loaded.unread, &environment, &command));
    }
}

/// The outcome of a run, and its transcript if one was requested.
type Run = (Outcome, Option<Transcript>);

/// Runs all targets within the configured limits. Returns the outcomes in the order of the targets.
async fn run_all(
    targets: &[Arc<Target>],
    limits: &Schedule,
    request: &Once<'_>,
    err: &mut impl Write,
) -> io::Result<Vec<Run>> {
    let (terminal, verbose) = (request.terminal, request.verbose);
    let all = Arc::new(Semaphore::new(limits.max_concurrent));
    let mut providers: BTreeMap<&str, Arc<Semaphore>> = BTreeMap::new();
    let mut runs = JoinSet::new();
    for (index, target) in targets.iter().enumerate() {
        let provider = providers
            .entry(&target.probe().provider.name)
            .or_insert_with(|| Arc::new(Semaphore::new(limits.max_concurrent_per_provider)));
        let (target, provider, all) = (target.clone(), provider.clone(), all.clone());
        runs.spawn(async move {
            tokio::time::sleep(START_SPACING * index as u32).await;
            // The provider's permit first, so that no run holds one of all while it waits for the
            // provider's.
            let _permits = (provider.acquire_owned().await, all.acquire_owned().await);
            let run = if verbose {
                let (outcome, transcript) = target.run_with_transcript().await;
                (outcome, Some(transcript))
            } else {
                (target.run().await, None)
            };
            (index, run)
        });
    }
    let mut outcomes: Vec<Option<Run>> = targets.iter().map(|_| None).collect();
    let mut progress = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            finished = runs.join_next() => match finished {
                Some(finished) => {
                    let (index, run) = finished.map_err(io::Error::other)?;
                    outcomes[index] = Some(run);
                }
                None => break,
            },
            _ = progress.tick(), if terminal => show_progress(targets, &outcomes, err)?,
        }
    }
    if terminal {
        write!(err, "\r\x1b[K")?;
        err.flush()?;
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// Overwrites the progress line with the number of finished runs and a probe that is still running.
fn show_progress(targets: &[Arc<Target>], outcomes: &[Option<Run>], err: &mut impl Write) -> io::Result<()> {
    let mut waiting = targets.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_none());
    if let Some((first, _)) = waiting.next() {
        let done = outcomes.iter().flatten().count();
        let name = &first.probe().name;
        write!(err, "\r\x1b[K{done} of {} done, waiting for {name} …", targets.len())?;
        err.flush()?;
    }
    Ok(())
}

/// Prints the transcript of each run. Its lines are indented, so that no text from the network can
/// imitate a heading.
fn print_transcripts(targets: &[Arc<Target>], runs: &[Run], err: &mut impl Write) -> io::Result<()> {
    for (target, (_, transcript)) in targets.iter().zip(runs) {
        let Some(transcript) = transcript else { continue };
        let text = transcript.to_string();
        let text = if text.is_empty() { "  no request was sent\n" } else { &text };
        writeln!(err, "{}\n{text}", target.probe().name)?;
    }
    Ok(())
}

/// Prints one record per line.
fn print_records(results: &[(&Target, &Outcome)], out: &mut impl Write) -> io::Result<()> {
    for (target, outcome) in results {
        let record = Record { subject: target.probe().subject(), outcome };
        writeln!(out, "{}", serde_json::to_string(&record)?)?;
    }
    Ok(())
}

/// Prints the table and the ranking, then the remedies and the cost.
fn print_for_people(
    results: &[(&Target, &Outcome)],
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<()> {
    print_table(results, out)?;
    let ranked = results.iter().map(|&(target, outcome)| {
        let probe = target.probe();
        let prompt_words = probe.chat().map_or(0, Chat::prompt_words);
        ranking::Run { subject: probe.subject(), prompt_words, outcome }
    });
    if let Some(ranking) = ranking::render(ranked) {
        write!(out, "\n{ranking}")?;
    }
    out.flush()?;
    print_remedies(results, err)?;
    let costs = results.iter().filter_map(|(_, outcome)| outcome.estimated_cost_usd);
    if let Some(cost) = costs.reduce(|sum, cost| sum + cost) {
        writeln!(err, "estimated cost: {cost:.6} USD")?;
    }
    Ok(())
}

fn print_table(results: &[(&Target, &Outcome)], out: &mut impl Write) -> io::Result<()> {
    let mut rows =
        vec![vec!["PROBE".to_owned(), "RESULT".into(), "FAULT".into(), "STATUS".into(), "TOTAL".into()]];
    // The column is omitted if there is no stream.
    let streams = results.iter().any(|(target, _)| target.probe().check() == Check::Stream);
    rows[0].extend(streams.then(|| "FIRST TOKEN".to_owned()));
    rows[0].extend(Phases::NAMES.map(str::to_uppercase));
    for (target, outcome) in results {
        let mut row = vec![
            target.probe().name.clone(),
            outcome.reason.to_string(),
            if outcome.success() { String::new() } else { outcome.fault.to_string() },
            outcome.http_status.map(|status| status.to_string()).unwrap_or_default(),
            milliseconds(outcome.duration),
        ];
        row.extend(streams.then(|| outcome.time_to_first_token.map(milliseconds).unwrap_or_default()));
        row.extend(outcome.phases.durations().map(milliseconds));
        rows.push(row);
    }
    out.write_all(table::render(&rows, 3).as_bytes())
}

/// Prints the remedy for each failure.
fn print_remedies(results: &[(&Target, &Outcome)], err: &mut impl Write) -> io::Result<()> {
    for (target, outcome) in results.iter().filter(|(_, outcome)| !outcome.success()) {
        let Outcome { reason, fault, detail, hint, error_code, upstream, request_id, retry_after, .. } =
            outcome;
        write!(err, "\n{}: {reason}, {}", target.probe().name, fault_text(target.probe().check(), *fault))?;
        if let Some(detail) = detail {
            write!(err, ": {detail}")?;
        }
        writeln!(err)?;
        let facts = [
            error_code.as_ref().map(|code| format!("code {code}")),
            upstream.map(|upstream| format!("upstream {upstream}")),
            request_id.as_ref().map(|id| format!("request ID {id}")),
            retry_after.map(|seconds| format!("retry after {seconds} s")),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        if !facts.is_empty() {
            writeln!(err, "  {}", facts.join(", "))?;
        }
        writeln!(err, "  {hint}")?;
    }
    for (target, outcome) in results.iter().filter(|(_, outcome)| outcome.success()) {
        if let Some(remark) = &outcome.detail {
            writeln!(err, "\n{}: note: {remark}", target.probe().name)?;
        }
        if !outcome.hint.is_empty() {
            writeln!(err, "\n{}: note: {}", target.probe().name, outcome.hint)?;
        }
    }
    Ok(())
}

/// Returns the responsible party in words.
fn fault_text(check: Check, fault: Fault) -> &'static str {
    match fault {
        Fault::Caller if !check.addresses_service() => "a failure of the status page, not of the service",
        Fault::None => "no fault",
        Fault::Network => "on the network path",
        Fault::Gateway => "the gateway's fault",
        Fault::Provider => "the provider's fault",
        Fault::Caller => "on our side: key, limits, credit or configuration",
        Fault::Prober => "the prober's own fault",
    }
}
