//! The status page: problems with their faults first, then every provider with its probes, and
//! summaries.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use maud::{Markup, html};

use super::{
    View, charts,
    figures::{Figures, Overhead, availability},
    layout::{badge, page},
    outages::outages,
    state::{Now, State},
    words::{between, clock, fault, share, span, took, took_or_none, wait},
};
use crate::{
    config::{Chat, Comparison, Pool, Probe},
    history::{History, MAX_RUNS, Run, Snapshot},
    metrics::BudgetNow,
    outcome::{Fault, Pair, PairVerdict, Reason, SkipCause, rfc3339},
};

/// Maximum number of problems that are shown; the tables contain all of them.
const MAX_PROBLEMS: usize = 50;

/// Maximum number of probes that a problem lists by name.
const MAX_NAMES: usize = 12;

/// A probe with the data of its row.
struct Row {
    probe: Arc<Probe>,
    kept: Snapshot,
    now: Now,
    figures: Figures,
}

impl Row {
    fn last(&self) -> Option<&Run> {
        self.kept.runs.last().map(|run| &**run)
    }
}

/// Renders the status page.
pub fn overview(view: &View<'_>) -> String {
    let rows = rows(view);
    let counts = State::ALL.map(|state| (state, rows.iter().filter(|row| row.now.state == state).count()));
    let summary = html! {
        @for (state, count) in counts.iter().filter(|(_, count)| *count > 0) {
            span class={ "count " (state.name()) } { svg.mark aria-hidden="true" { use href={ "#i-" (state.name()) } {} } (count) " " (state.name()) } " "
        }
        @if rows.is_empty() { "no probes are configured" }
    };
    let bad =
        counts.iter().filter(|(state, _)| *state == State::Failing).map(|(_, count)| count).sum::<usize>();
    let title = if bad > 0 { format!("({bad}) langmart-prober") } else { "langmart-prober".to_owned() };
    let content = html! {
        (prober_problems(view))
        (problems(&rows, view.now))
        (providers(&rows, view.now))
        (outages(view, rows.iter().map(|row| (&*row.probe, &*row.kept.runs))))
        div.pair {
            (comparisons(view.history, &rows))
            (pools(view.history, &rows))
            (models(&rows))
            (prober(view))
            (budget(view.budget.as_ref(), view.now))
        }
    };
    page(&title, &summary, true, &content)
}

fn rows(view: &View<'_>) -> Vec<Row> {
    let all = view.history.all();
    let row = |history: &Arc<crate::history::ProbeHistory>| {
        let kept = history.snapshot();
        let now = Now::new(&history.probe, &kept, view.budget.as_ref(), view.now);
        Row { probe: Arc::clone(&history.probe), now, figures: Figures::new(&kept.runs), kept }
    };
    all.values().map(row).collect()
}

/// Shows problems of the prober itself, which come first, because they make the results unreliable.
fn prober_problems(view: &View<'_>) -> Markup {
    html! {
        @if view.prober.offline == Some(true) {
            p.alarm role="alert" { strong { "The prober seems to be offline. " }
                "The last runs of every provider failed on the network: check this machine's DNS, routes and proxy first." }
        }
        @if let Some(part) = &view.prober.stuck {
            p.alarm role="alert" { strong { "A part of the prober is stuck: " } (part) ". The results may be out of date; check the prober's log." }
        }
        @if view.prober.own.reloaded.is_some() && !view.prober.own.reload_successful {
            p.alarm role="alert" { strong { "The last reload failed. " }
                "The previous configuration remains in use: check-config and the prober's log list the problems of the new one." }
        }
    }
}

/// The attributes by which failing probes of a provider are grouped.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Problem<'a> {
    state: State,
    provider: &'a str,
    reason: Option<Reason>,
    fault: Option<Fault>,
    detail: Option<String>,
    hint: &'a str,
    wait: Option<SkipCause>,
}

fn problem(row: &Row) -> Problem<'_> {
    let last = row.last().filter(|run| !run.success());
    let failure = last.and_then(|run| run.failure.as_deref());
    Problem {
        state: row.now.state,
        provider: &row.probe.provider.name,
        reason: last.map(|run| run.reason),
        fault: last.map(|run| run.fault),
        detail: failure.and_then(|failure| failure.detail.as_ref()).map(ToString::to_string),
        hint: failure.map_or("", |failure| &failure.hint),
        wait: row.now.wait.map(|(cause, _)| cause),
    }
}

fn problems(rows: &[Row], now: SystemTime) -> Markup {
    let mut groups: BTreeMap<Problem<'_>, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.now.state.needs_attention() || row.now.stuck) {
        groups.entry(problem(row)).or_default().push(row);
    }
    let all = groups.len();
    html! {
        section #problems aria-labelledby="problems-title" {
            h2 #problems-title { "Needs attention" }
            @if groups.is_empty() {
                @if rows.iter().all(|row| row.last().is_none()) {
                    p.calm { "No probe has run yet." }
                } @else {
                    p.calm { "Nothing: all probes that have run are up." }
                }
            }
            ul.problems {
                @for (problem, rows) in groups.iter().take(MAX_PROBLEMS) { (write_problem(problem, rows, now)) }
            }
            @if all > MAX_PROBLEMS { p { (all - MAX_PROBLEMS) " more in the tables below." } }
        }
    }
}

fn write_problem(problem: &Problem<'_>, rows: &[&Row], now: SystemTime) -> Markup {
    let since = rows.iter().filter_map(|row| row.kept.failing_since).min();
    let until = rows.iter().filter_map(|row| row.now.wait).map(|(_, until)| until).max();
    html! {
        li class={ "problem " (problem.state.name()) } {
            p.what {
                (badge(problem.state)) " "
                strong { (problem.provider) } " "
                @if let Some(cause) = problem.reason { span.reason { (cause.info().summary) } }
                @else if problem.state == State::Slow { span.reason { "slower than slow_after" } }
                @else if problem.wait == Some(SkipCause::Budget) { span.reason { "the daily budget is used up" } }
                @else { span.reason { "overdue" } }
            }
            p.who {
                @for (number, row) in rows.iter().take(MAX_NAMES).enumerate() {
                    @if number > 0 { ", " }
                    a href={ "/probes/" (row.probe.name) } { (row.probe.name) }
                }
                @if rows.len() > MAX_NAMES { " and " (rows.len() - MAX_NAMES) " more" }
            }
            dl.facts {
                @if let Some(blamed) = problem.fault { div { dt { "Fault" } dd { (fault(blamed)) } } }
                @if let Some(since) = since {
                    div { dt { "Since" } dd { (time(since, now)) " UTC, " (span(between(since, now))) } }
                }
                @if let Some((until, cause)) = until.zip(problem.wait) {
                    div { dt { "Waiting until" } dd { (time(until, now)) " UTC, because of " (wait(cause)) } }
                }
                @if let Some(detail) = &problem.detail { div { dt { "Detail" } dd { (detail) } } }
            }
            @if !problem.hint.is_empty() { p.remedy { strong { "What to do: " } (problem.hint) } }
        }
    }
}

/// Formats a time for people, with the machine-readable form as attribute.
pub(super) fn time(time: SystemTime, now: SystemTime) -> Markup {
    html! { time datetime=(rfc3339(time)) { (clock(time, now)) } }
}

fn providers(rows: &[Row], now: SystemTime) -> Markup {
    let mut providers: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        providers.entry(&row.probe.provider.name).or_default().push(row);
    }
    html! {
        section #providers aria-labelledby="providers-title" {
            h2 #providers-title { "Providers" }
            p.note { "Over the last " (MAX_RUNS) " runs of each probe at most, since the start of the daemon. "
                "In the rows of marks the latest run is on the right: low marks are successes, tall ones are failures. "
                "Available is the share of runs without a fault of gateway, provider or network: your own rejected key is not downtime, nor are failures "
                "while the prober was offline." }
            @for (name, rows) in &providers { (provider(name, rows, now)) }
        }
    }
}

fn provider(name: &str, rows: &[&Row], now: SystemTime) -> Markup {
    let worst = rows.iter().map(|row| row.now.state).min().unwrap_or(State::Unknown);
    let of_service = rows.iter().filter(|row| row.probe.check().addresses_service());
    let available = availability(of_service.flat_map(|row| &row.kept.runs));
    let first = rows.first().map(|row| &row.probe.provider);
    html! {
        article.provider id={ "provider-" (name) } {
            header {
                h3 { (badge(worst)) " " (name) }
                @if let Some(provider) = first { span.host { (provider.api) " · " (provider.host()) } }
                @if let Some(available) = available { span.available { (share(available)) " available" } }
            }
            table {
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "Probe" } th.runs scope="col" { "Last runs" }
                    th.n scope="col" { abbr title="median duration" { "p50" } }
                    th.n.wide scope="col" { abbr title="95th percentile of the duration" { "p95" } }
                    th.n.wide scope="col" { "First token" } th.n.wide scope="col" { "Available" } th.n.wide scope="col" { "Next run" }
                } }
                tbody { @for row in rows { (write_row(row, now)) } }
            }
        }
    }
}

fn write_row(row: &Row, now: SystemTime) -> Markup {
    let probe = &row.probe;
    let figures = &row.figures;
    html! {
        tr {
            td { (badge(row.now.state)) }
            th scope="row" {
                a href={ "/probes/" (probe.name) } { (probe.name) }
                span.sub { (probe.check()) @if let Some(model) = &probe.model { " · " (model) } }
                @if let Some((cause, _)) = row.now.wait { span.sub { "waiting because of " (wait(cause)) } }
                @if row.last().is_some_and(|run| run.is_of_another_model) { span.sub { "another model answers" } }
                @if row.last().is_some_and(|run| run.buffered) { span.sub { "the stream is held back" } }
            }
            td.runs { (charts::strip(&row.kept.runs)) }
            td.n { (took_or_none(figures.p50)) }
            td.n.wide { (took_or_none(figures.p95)) }
            td.n.wide { (took_or_none(figures.first_token)) }
            td.n.wide { (figures.availability.filter(|_| probe.check().addresses_service()).map_or_else(|| "–".to_owned(), share)) }
            td.n.wide { @if let Some(due) = row.kept.waiting.next_run { (clock(due, now)) } @else { "–" } }
        }
    }
}

fn comparisons(history: &History, rows: &[Row]) -> Markup {
    let comparisons = history.comparisons();
    html! {
        @if !comparisons.is_empty() {
            section #comparisons aria-labelledby="comparisons-title" {
                h2 #comparisons-title { "Gateway compared with direct" }
                table {
                    thead { tr {
                        th scope="col" { "Comparison" } th.n scope="col" { "Gateway" } th.n scope="col" { "Direct" }
                        th.n scope="col" { "Overhead" } th scope="col" { "Faults" }
                    } }
                    tbody { @for comparison in comparisons.iter() { (write_comparison(comparison, rows)) } }
                }
                p.note { "Medians over pairs of successful runs." }
            }
        }
    }
}

fn write_comparison(comparison: &Comparison, rows: &[Row]) -> Markup {
    // The result of a pair is stored with its second run.
    let is_of = |row: &&Row| row.probe.name == comparison.gateway || row.probe.name == comparison.direct;
    let pairs: Vec<&Pair> = rows.iter().filter(is_of).flat_map(|row| &row.kept.pairs).collect();
    let overhead = Overhead::new(&pairs);
    let count = |verdict| pairs.iter().filter(|pair| pair.verdict() == verdict).count();
    let blamed = [
        ("gateway", count(PairVerdict::GatewayFault)),
        ("provider", count(PairVerdict::ProviderFault)),
        ("direct connection", count(PairVerdict::DirectFault)),
        ("unclear", count(PairVerdict::Inconclusive)),
    ];
    html! {
        tr {
            th scope="row" { (comparison.name) span.sub { (pairs.len()) " pairs" } }
            td.n { (took_or_none(overhead.map(|overhead| overhead.gateway))) }
            td.n { (took_or_none(overhead.map(|overhead| overhead.direct))) }
            td.n { @if let Some(overhead) = overhead { (signed(overhead.seconds)) } @else { "–" } }
            td {
                @for (number, (who, count)) in blamed.iter().filter(|(_, count)| *count > 0).enumerate() {
                    @if number > 0 { ", " } (count) " " (who)
                }
                @if blamed.iter().all(|(_, count)| *count == 0) { "none" }
            }
        }
    }
}

fn signed(seconds: f64) -> String {
    format!(
        "{}{}",
        if seconds < 0.0 { "−" } else { "+" },
        took(std::time::Duration::from_secs_f64(seconds.abs()))
    )
}

fn pools(history: &History, rows: &[Row]) -> Markup {
    let pools = history.pools();
    html! {
        @if !pools.is_empty() {
            section #pools aria-labelledby="pools-title" {
                h2 #pools-title { "Pools" }
                table {
                    thead { tr { th scope="col" { "Pool" } th.n scope="col" { "Available" } th scope="col" { "Members" } } }
                    tbody { @for pool in pools.iter() { (write_pool(pool, rows)) } }
                }
                p.note { "Weighted share of members whose last run succeeded; members without a run are ignored." }
            }
        }
    }
}

fn write_pool(pool: &Pool, rows: &[Row]) -> Markup {
    // Rows are sorted by name.
    let row = |name: &String| rows.binary_search_by(|row| row.probe.name.cmp(name)).ok().map(|at| &rows[at]);
    let members: Vec<_> =
        pool.members.iter().filter_map(|member| Some((member.weight, row(&member.probe)?))).collect();
    let weight = |counts: fn(&Run) -> bool| -> u64 {
        let counted = members.iter().filter(|(_, row)| row.last().is_some_and(counts));
        counted.map(|(weight, _)| u64::from(*weight)).sum()
    };
    let known = weight(|_| true);
    html! {
        tr {
            th scope="row" { (pool.name) }
            td.n { @if known > 0 { (share(weight(Run::success) as f64 / known as f64)) } @else { "–" } }
            td { ul.members { @for (weight, row) in &members {
                li { (badge(row.now.state)) " " a href={ "/probes/" (row.probe.name) } { (row.probe.name) }
                    @if *weight > 1 { " × " (weight) } }
            } } }
        }
    }
}

/// Ranks models by the time to the first visible text: the first token of a stream, otherwise the
/// complete answer.
fn models(rows: &[Row]) -> Markup {
    let mut ranked: Vec<_> = rows
        .iter()
        .filter(|row| row.probe.check().generates())
        .filter_map(|row| Some((row.figures.first_token.or(row.figures.p50)?, row)))
        .collect();
    ranked.sort_by_key(|(seen, _)| *seen);
    let prompt = |row: &Row| row.probe.chat().map_or(0, |chat| chat.prompt.len());
    // Prompt sizes are shown only if they differ.
    let sized = ranked.iter().any(|(_, row)| prompt(row) != prompt(ranked[0].1));
    html! {
        @if !ranked.is_empty() {
            section #models aria-labelledby="models-title" {
                h2 #models-title { "Models by speed" }
                table {
                    thead { tr {
                        th.n scope="col" { "#" } th scope="col" { "Model" } th.n scope="col" { "First text" }
                        th.n scope="col" { "Total" } th.n scope="col" { "Tokens per second" }
                    } }
                    tbody { @for (number, (seen, row)) in ranked.iter().enumerate() {
                        tr {
                            td.n { (number + 1) }
                            th scope="row" { (row.probe.model.as_deref().unwrap_or_default())
                                span.sub { (row.probe.provider.name) " · " (row.probe.check())
                                    @if sized { " · prompt of " (row.probe.chat().map_or(0, Chat::prompt_words)) " words" } } }
                            td.n { (took(*seen)) }
                            td.n { (took_or_none(row.figures.p50)) }
                            td.n { @match row.figures.per_token {
                                Some(each) if !each.is_zero() => { (format!("{:.0}", 1.0 / each.as_secs_f64())) }
                                _ => "–"
                            } }
                        }
                    } }
                }
                p.note { "Medians. The first text is the first token of a stream, otherwise the whole answer." }
            }
        }
    }
}

fn budget(budget: Option<&BudgetNow>, now: SystemTime) -> Markup {
    html! {
        @if let Some(budget) = budget {
            section #budget aria-labelledby="budget-title" {
                h2 #budget-title { "Budget of the UTC day" }
                dl.facts {
                    @if let Some(limit) = budget.limits.daily_cost_usd {
                        div { dt { "Cost" } dd { (format!("{:.4} of {limit} USD", budget.spent_usd)) } }
                    }
                    @if let Some(limit) = budget.limits.daily_tokens {
                        div { dt { "Tokens" } dd { (budget.spent_tokens) " of " (limit) } }
                    }
                    @if let Some(resumes) = budget.resumes {
                        div { dt { "Reached" } dd { "chat and stream resume at " (time(resumes, now)) " UTC" } }
                    }
                }
            }
        }
    }
}

fn prober(view: &View<'_>) -> Markup {
    let own = &view.prober.own;
    html! {
        section #prober aria-labelledby="prober-title" {
            h2 #prober-title { "This prober" }
            dl.facts.rows {
                div { dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) } }
                div { dt { "State" } dd { (view.prober.readiness) ", " @if let Some(part) = &view.prober.stuck { (part) " is stuck" } @else { "all parts alive" } } }
                div { dt { "Network" } dd { @match view.prober.offline {
                    Some(true) => "offline",
                    Some(false) => "online",
                    None => "unknown with fewer than two providers",
                } } }
                div { dt { "Up since" } dd { (time(view.prober.started, view.now)) " UTC, " (span(between(view.prober.started, view.now))) } }
                div { dt { "Configuration" } dd {
                    @match own.reloaded {
                        Some(at) => { "loaded at " (time(at, view.now)) " UTC" }
                        None => "not loaded yet",
                    }
                    @if own.reloaded.is_some() && !own.reload_successful { ", the last reload failed" }
                } }
                div { dt { "Lag" } dd { @match own.lag {
                    Some(lag) => { "99 % of runs started within " (took(lag)) " of their scheduled time" }
                    None => "no run yet, or more than 10 s for over 1 % of runs",
                } } }
                div { dt { "Lines lost" } dd { (own.lines_dropped) " dropped, " (own.write_errors) " failed writes" } }
                div { dt { "Restarted tasks" } dd { (own.restarts) } }
                div { dt { "This page" } dd { (time(view.now, view.now)) " UTC" } }
            }
        }
    }
}
