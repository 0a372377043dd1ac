//! `once`: runs probes a single time, shows what they found, and says what to do about each failure.

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
    by_hand::by_hand,
    forbid_core_dumps, ranking,
    table::{self, milliseconds},
};
use crate::{
    config::{self, Chat, Keys, Problems, Schedule, Surroundings, systemd_run},
    outcome::{Check, Fault, Outcome, Phases, Record},
    probe::{NetworkStack, Target, Transcript},
};

/// From the beginning of one run to that of the next, at least. All run in one thread, which would have its own work for
/// the others in every time that it measures, were they to begin at the same moment.
const APART: Duration = Duration::from_millis(2);

/// What the person asked for.
pub struct Once<'a> {
    /// The configuration.
    pub path: &'a Path,
    /// Records in place of the table.
    pub json: bool,
    /// Also what was sent and received, for a person's eyes.
    pub verbose: bool,
    /// Names of probes; all if empty.
    pub probes: &'a [String],
    /// Whether standard error is a terminal, where progress makes sense.
    pub terminal: bool,
}

/// Runs the command: results to `out`, everything for people to `err`. The value is the exit status.
pub fn once(request: &Once<'_>, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    // Before there is a key in memory.
    forbid_core_dumps(err);
    let loaded = match config::load(request.path, Keys::Required, &Surroundings::of_process()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            refuse(request, &problems, err);
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
    let wanted =
        |target: &Arc<Target>| request.probes.is_empty() || request.probes.contains(&target.probe().name);
    let targets: Vec<Arc<Target>> = targets.into_iter().filter(wanted).collect();

    if loaded.config.budget.is_some() && targets.iter().any(|target| target.probe().check().generates()) {
        writeln!(err, "note: what is run by hand is outside the budget, which only the daemon keeps")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let runs = runtime.block_on(run_all(&targets, &loaded.config.schedule, request, err))?;
    // Nothing that still waits for a resolver or a peer keeps a person from the prompt.
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

/// Says what is wrong with the configuration. Where standard error is closed the exit status still tells.
fn refuse(request: &Once<'_>, problems: &Problems, err: &mut impl Write) {
    let _ = writeln!(err, "{problems}");
    if let Some(line) = with_credentials(request) {
        let _ = writeln!(
            err,
            "To have the credentials, as root and with the paths of the unit's LoadCredential=:\n  {line}"
        );
    }
}

/// The command that gives this one all the credentials that the file names; `None`: it names none, or has other problems,
/// or this is the unit.
fn with_credentials(request: &Once<'_>) -> Option<String> {
    let surroundings = Surroundings::of_process();
    let loaded = config::load(request.path, Keys::Skipped, &surroundings).ok()?;
    if loaded.credentials.is_empty() || surroundings.credentials_directory().is_some() {
        return None;
    }
    let flags = [(request.json, "--json"), (request.verbose, "--verbose")];
    let command = by_hand("once", request.path, &flags, request.probes);
    Some(systemd_run(loaded.credentials.iter().map(String::as_str), &command))
}

/// What a run came to, and what was said in it where that was asked for.
type Run = (Outcome, Option<Transcript>);

/// Runs all targets within the configuration's limits; the outcomes come in the order of the targets.
async fn run_all(
    targets: &[Arc<Target>],
    limits: &Schedule,
    request: &Once<'_>,
    err: &mut impl Write,
) -> io::Result<Vec<Run>> {
    let (terminal, verbose) = (request.terminal, request.verbose);
    let all = Arc::new(Semaphore::new(limits.max_concurrent));
    let mut lanes: BTreeMap<&str, Arc<Semaphore>> = BTreeMap::new();
    let mut runs = JoinSet::new();
    for (index, target) in targets.iter().enumerate() {
        let lane = lanes
            .entry(&target.probe().provider.name)
            .or_insert_with(|| Arc::new(Semaphore::new(limits.max_concurrent_per_provider)));
        let (target, lane, all) = (target.clone(), lane.clone(), all.clone());
        runs.spawn(async move {
            tokio::time::sleep(APART * index as u32).await;
            // The provider's place first, so that nobody holds one of all while waiting for it.
            let _places = (lane.acquire_owned().await, all.acquire_owned().await);
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

/// One line that is written over, with what is still waited for.
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

/// What was said in each run, in lines that nothing from the network can imitate the heading of.
fn print_transcripts(targets: &[Arc<Target>], runs: &[Run], err: &mut impl Write) -> io::Result<()> {
    for (target, (_, transcript)) in targets.iter().zip(runs) {
        let Some(transcript) = transcript else { continue };
        let text = transcript.to_string();
        let said = if text.is_empty() { "  no request was sent\n" } else { &text };
        writeln!(err, "{}\n{said}", target.probe().name)?;
    }
    Ok(())
}

/// A record a line.
fn print_records(results: &[(&Target, &Outcome)], out: &mut impl Write) -> io::Result<()> {
    for (target, outcome) in results {
        let record = Record { subject: target.probe().subject(), outcome };
        writeln!(out, "{}", serde_json::to_string(&record)?)?;
    }
    Ok(())
}

/// The table and the ranking, then what to do, and what it cost.
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
    // Of streams alone; without any it would be a column of nothing.
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
    // Names and words to the left, figures to the right.
    out.write_all(table::render(&rows, 3).as_bytes())
}

/// What to do about each failure, by the guide's remedies.
fn print_remedies(results: &[(&Target, &Outcome)], err: &mut impl Write) -> io::Result<()> {
    for (target, outcome) in results.iter().filter(|(_, outcome)| !outcome.success()) {
        let Outcome { reason, fault, detail, hint, error_code, upstream, request_id, retry_after, .. } =
            outcome;
        write!(err, "\n{}: {reason}, {}", target.probe().name, party(target.probe().check(), *fault))?;
        if !detail.is_empty() {
            write!(err, ": {detail}")?;
        }
        writeln!(err)?;
        let facts = [
            error_code.as_ref().map(|code| format!("code {code}")),
            upstream.map(|upstream| format!("upstream {upstream}")),
            request_id.as_ref().map(|id| format!("request id {id}")),
            retry_after.map(|seconds| format!("asks to wait {seconds} s")),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        if !facts.is_empty() {
            writeln!(err, "  {}", facts.join(", "))?;
        }
        writeln!(err, "  {hint}")?;
    }
    Ok(())
}

/// Whose part failed, for a person.
fn party(check: Check, fault: Fault) -> &'static str {
    match fault {
        Fault::Caller if !check.addresses_service() => "the status page's trouble, not the service's",
        Fault::None => "nobody's fault",
        Fault::Network => "on the way there",
        Fault::Gateway => "the gateway's fault",
        Fault::Provider => "the provider's fault",
        Fault::Caller => "on our side: key, limits, credit or the probe itself",
        Fault::Prober => "the prober's own fault",
    }
}
