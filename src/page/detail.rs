//! The page of one probe: results, phases, failures, service information, configuration, and the
//! equivalent curl command.

use std::{sync::Arc, time::SystemTime};

use maud::{Markup, html};

use super::{
    View, charts,
    figures::Figures,
    layout::{badge, page},
    overview::time,
    state::{Now, state_after},
    words::{between, fault, interval, share, span, took, took_or_none, wait},
};
use crate::{
    config::{Probe, Task, dns_server_name},
    history::{ProbeHistory, Run, Snapshot},
    outcome::{Maintenance, Outcome, Phases, date},
};

/// Maximum number of failures, and of rows in the table of runs.
const MAX_FAILURES: usize = 10;
const MAX_ROWS: usize = 25;

/// Renders the page of a probe.
pub fn detail(view: &View<'_>, history: &ProbeHistory) -> String {
    let probe = &history.probe;
    let kept = history.snapshot();
    let state = Now::new(probe, &kept, view.budget.as_ref(), view.now);
    let now = view.now;
    let summary = html! { (badge(state.state)) " " (probe.name) };
    let content = html! {
        nav.crumbs aria-label="Breadcrumb" {
            a href="/" { "All probes" } " / " a href={ "/#provider-" (probe.provider.name) } { (probe.provider.name) }
        }
        h1 { (probe.name) }
        p.lead { (badge(state.state)) " " (probe.check()) " of " (probe.provider.name)
            @if let Some(model) = &probe.model { ", model " (model) } }
        (verdict(&kept, &state, now))
        (figures(&kept))
        section #phases aria-labelledby="phases-title" {
            h2 #phases-title { "Phases of the last runs" }
            (chart(&kept.runs, now))
        }
        (failures(&kept.runs, now))
        div.pair {
            (service_information(&kept, now))
            (configuration(probe))
        }
        section #reproduce aria-labelledby="reproduce-title" {
            h2 #reproduce-title { "Send the same request with curl" }
            pre tabindex="0" { code { (history.curl) } }
        }
    };
    page(&format!("{} · langmart-prober", probe.name), &summary, false, &content)
}

fn verdict(kept: &Snapshot, state: &Now, now: SystemTime) -> Markup {
    let Some(last) = kept.runs.last() else {
        return html! { p.calm { "It has not run since the daemon started." @if let Some(due) = kept.waiting.next_run { " The next run is at " (time(due, now)) " UTC." } } };
    };
    html! {
        div class={ "problem " (state.state.name()) } {
            p { "Last run at " (time(last.time, now)) " UTC: " strong { (last.reason.info().summary) } " after " (took(last.duration())) @if last.slow { ", which is slow" } "." }
            dl.facts {
                @if !last.success() { div { dt { "Fault" } dd { (fault(last.fault)) } } }
                @if let Some(since) = kept.failing_since { div { dt { "Since" } dd { (time(since, now)) " UTC, " (span(between(since, now))) } } }
                @if let Some((cause, until)) = state.wait {
                    div { dt { "Waiting" } dd { "until " (time(until, now)) " UTC, because of " (wait(cause)) } }
                }
                @if let Some(held) = kept.skipped { div { dt { "Skipped since" } dd { (held.runs) @if held.runs == 1 { " run" } @else { " runs, the latest" } " because of " (wait(held.cause)) } } }
                @if let Some(due) = kept.waiting.next_run { div { dt { "Next run" } dd { (time(due, now)) " UTC" } } }
                @if state.stuck { div { dt { "Stuck" } dd { "the run is overdue; check the prober's log" } } }
                (facts_of_failure(last))
            }
            @if let Some(failure) = last.failure.as_deref().filter(|failure| !failure.hint.is_empty()) {
                p.remedy { strong { "What to do: " } (failure.hint) }
            }
        }
    }
}

fn facts_of_failure(run: &Run) -> Markup {
    html! {
        @if let Some(status) = run.http_status() { div { dt { "Status" } dd { (status) } } }
        @if let Some(failure) = run.failure.as_deref() {
            @if let Some(detail) = &failure.detail { div { dt { "Detail" } dd { (detail) } } }
            @if let Some(code) = &failure.error_code { div { dt { "Code" } dd { (code) } } }
            @if let Some(upstream) = failure.upstream { div { dt { "Upstream" } dd { (upstream) } } }
            @if let Some(id) = &failure.request_id { div { dt { "Request" } dd { (id) } } }
            @if let Some(seconds) = failure.retry_after { div { dt { "Retry after" } dd { (seconds) " s" } } }
        }
    }
}

fn figures(kept: &Snapshot) -> Markup {
    let figures = Figures::new(&kept.runs);
    html! {
        section #figures aria-labelledby="figures-title" {
            h2 #figures-title { "Last runs: " (kept.runs.len()) " in memory" }
            (charts::strip(&kept.runs))
            dl.facts {
                div { dt { "p50" } dd { (took_or_none(figures.p50)) } }
                div { dt { "p95" } dd { (took_or_none(figures.p95)) } }
                @if figures.first_token.is_some() { div { dt { "First token, p50" } dd { (took_or_none(figures.first_token)) } } }
                @if figures.per_token.is_some() { div { dt { "Time per token, p50" } dd { (took_or_none(figures.per_token)) } } }
                div { dt { "Available" } dd { (figures.availability.map_or_else(|| "–".to_owned(), share)) } }
            }
        }
    }
}

fn chart(runs: &[Arc<Run>], now: SystemTime) -> Markup {
    let longest = runs.iter().map(|run| run.duration()).max();
    html! {
        @if let Some(longest) = longest {
            p.legend {
                @for name in Phases::NAMES { span { svg.swatch aria-hidden="true" viewBox="0 0 10 10" { rect class={ "p-" (name) } width="10" height="10" {} } (name) } " " }
                span { svg.swatch aria-hidden="true" viewBox="0 0 10 10" { path.mark d="M0 10h10L5 0z" {} } "failed" }
                span.scale { "top: " (took(longest)) }
            }
            (charts::phases(runs))
            details #runs {
                summary { "The latest " (runs.len().min(MAX_ROWS)) " as a table" }
                div.scroll tabindex="0" role="region" aria-label="Runs" {
                    table {
                        thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "Result" } th.n scope="col" { "Duration" }
                            @for name in Phases::NAMES { th.n scope="col" { (name) } } th.n scope="col" { "First token" } } }
                        tbody { @for run in runs.iter().rev().take(MAX_ROWS) {
                            tr {
                                th scope="row" { (time(run.time, now)) }
                                td { (badge(state_after(run))) " " (run.reason.info().summary) }
                                td.n { (took(run.duration())) }
                                @for phase in run.phases() { td.n { (took(phase)) } }
                                td.n { (took_or_none(run.first_token())) }
                            }
                        } }
                    }
                }
            }
        } @else { p.calm { "No run yet." } }
    }
}

fn failures(runs: &[Arc<Run>], now: SystemTime) -> Markup {
    let failed: Vec<_> = runs.iter().rev().filter(|run| !run.success()).take(MAX_FAILURES).collect();
    html! {
        section #failures aria-labelledby="failures-title" {
            h2 #failures-title { "Last failures" }
            @if failed.is_empty() { p.calm { "None among the runs in memory." } }
            @else {
                div.scroll tabindex="0" role="region" aria-label="Failures" {
                    table.failures {
                        thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "Cause" } th scope="col" { "Fault" } th scope="col" { "Detail" } th scope="col" { "What to do" } } }
                        tbody { @for run in failed { (write_failure(run, now)) } }
                    }
                }
            }
        }
    }
}

fn write_failure(run: &Run, now: SystemTime) -> Markup {
    let failure = run.failure.as_deref();
    html! {
        tr {
            th scope="row" { (time(run.time, now)) }
            td { (run.reason.info().summary) @if let Some(status) = run.http_status() { span.sub { "status " (status) } } }
            td { (run.fault) }
            td {
                @if let Some(failure) = failure {
                    @if let Some(detail) = &failure.detail { (detail) }
                    @if let Some(code) = &failure.error_code { span.sub { "code " (code) } }
                    @if let Some(id) = &failure.request_id { span.sub { "request " (id) } }
                }
            }
            td { @if let Some(failure) = failure { (failure.hint) } }
        }
    }
}

fn service_information(kept: &Snapshot, now: SystemTime) -> Markup {
    let latest = kept.latest.as_deref();
    html! {
        section #service aria-labelledby="service-title" {
            h2 #service-title { "Reported by the service" }
            dl.facts.rows {
                @if let Some(not_after) = kept.last_reported.tls.and_then(|tls| tls.not_after) {
                    div { dt { "Certificate" } dd {
                        @if not_after > now { "valid until " (time(not_after, now)) " UTC, " (span(between(now, not_after))) }
                        @else { "expired at " (time(not_after, now)) " UTC" }
                        @if let Some(version) = kept.last_reported.tls.and_then(|tls| tls.version) { "; TLS " (version) }
                    } }
                }
                @if let Some(outcome) = latest { (lookup(outcome)) }
                @if let Some(balance) = kept.last_reported.balance { div { dt { "Balance" } dd { (format!("{:.2} USD", balance.usd)) @if let Some(minimum) = balance.minimum_usd { (format!(", minimum {minimum:.2} USD")) } } } }
                @if let Some(page) = &kept.last_reported.status_page {
                    div { dt { "Status page" } dd { (page.indicator) @if let Some(open) = page.open_incidents { ", " (open) " open incidents" } } }
                    @if let Some(maintenance) = page.maintenance { (announced(&maintenance, now)) }
                    @for (name, status) in &page.components { div { dt { (name) } dd { (status) } } }
                }
                @if let Some((at, limits)) = &kept.last_reported.ratelimit {
                    @for limit in limits {
                        div { dt { "Limit of " (limit.resource) } dd {
                            @match (limit.remaining, limit.limit) {
                                (Some(remaining), Some(most)) => { (remaining) " of " (most) " left" }
                                (Some(remaining), None) => { (remaining) " left" }
                                (None, Some(most)) => { "limit " (most) }
                                (None, None) => "not reported",
                            }
                            @if let Some(reset) = limit.reset { ", resets at " (time(reset, now)) " UTC" }
                            " (reported at " (time(*at, now)) " UTC)"
                        } }
                    }
                }
                @if let Some(offset) = latest.and_then(|outcome| outcome.clock_offset) { div { dt { "Clock" } dd { (format!("{offset:+.0} s against the server's")) } } }
                @if let Some(reported) = latest.and_then(|outcome| outcome.reported_processing) { div { dt { "Processing" } dd { (took(reported)) ", as reported by the service" } } }
                @if let Some(limit) = latest.and_then(|outcome| outcome.limited_by) { div { dt { "Limited by" } dd { (limit) } } }
                @if let Some(outcome) = latest { (answered(outcome)) }
                @if let Some(end) = latest.and_then(|outcome| outcome.model_shutdown) { div { dt { "Model" } dd { "shuts down on " (date(end)) } } }
                @if latest.is_none() { div { dt { "Status" } dd { "no run yet" } } }
            }
        }
    }
}

/// Shows the facts of the last completion: the model, the stream, and the prompt cache.
fn answered(outcome: &Outcome) -> Markup {
    html! {
        @if let Some(model) = &outcome.answered_model {
            div { dt { "Answered by" } dd { (model) @match outcome.model_match {
                Some(true) => ", as requested",
                Some(false) => { ", " strong { "not the requested model" } }
                None => "",
            } } }
        }
        @if let Some(stream) = &outcome.stream {
            div { dt { "Stream" } dd {
                (stream.pieces) " pieces in " (stream.bursts) " bursts, longest pause " (took(stream.longest_gap))
                @if outcome.buffered == Some(true) { ", " strong { "held back by a proxy or gateway" } }
            } }
        }
        @if outcome.success() && !outcome.hint.is_empty() { div { dt { "What to do" } dd { (outcome.hint) } } }
    }
}

fn announced(maintenance: &Maintenance, now: SystemTime) -> Markup {
    html! {
        div { dt { "Maintenance" } dd {
            @if maintenance.in_progress { "in progress" } @else { "announced" }
            @if let Some(start) = maintenance.start { ", from " (time(start, now)) " UTC" }
            @if let Some(end) = maintenance.end { ", until " (time(end, now)) " UTC" }
        } }
    }
}

fn lookup(outcome: &Outcome) -> Markup {
    html! {
        @if !outcome.dns.is_empty() {
            div { dt { "DNS" } dd { @for (number, address) in outcome.dns.iter().enumerate() { @if number > 0 { ", " } (address) } } }
        }
        @if let Some(network) = outcome.network.as_deref() {
            @for server in &network.dns_servers {
                div { dt { "DNS server " (server.server) } dd { @match &server.answer { Ok(addresses) => { (addresses.len()) " addresses" } Err(failure) => { (failure) } } ", " (took(server.duration)) } }
            }
        }
        @for failed in &outcome.failed_addresses { div { dt { (failed.address) } dd { (failed.error) } } }
        @if let Some(address) = outcome.remote_address { div { dt { "Address" } dd { (address) } } }
        @if let Some(version) = outcome.http_version { div { dt { "HTTP" } dd { (version) } } }
    }
}

/// Lists the resolved configuration without secrets: the source of a key, the names of headers, the
/// size of a body.
fn configuration(probe: &Probe) -> Markup {
    let provider = &*probe.provider;
    html! {
        section #configuration aria-labelledby="configuration-title" {
            h2 #configuration-title { "Configuration as resolved" }
            dl.facts.rows {
                div { dt { "provider" } dd { (provider.name) } }
                div { dt { "api" } dd { (provider.api) } }
                div { dt { "base_url" } dd { (provider.base_url) } }
                div { dt { "api_key" } dd { @if let Some(key) = &provider.key { (key.source) } @else { "none" } } }
                @if let Some(proxy) = &provider.proxy { div { dt { "proxy" } dd { (proxy) } } }
                @if let Some(auth) = &provider.proxy_auth { div { dt { "proxy_auth" } dd { (auth.source) } } }
                @if let Some(name) = &provider.key_header { div { dt { "key_header" } dd { (name) } } }
                @if !provider.ca_certificates.is_empty() { div { dt { "ca_file" } dd { (provider.ca_certificates.len()) " certificates in addition to the system's" } } }
                @if !provider.headers.is_empty() { div { dt { "headers" } dd { (joined(provider.headers.iter().map(|(name, _)| name))) } } }
                @if !provider.dns_servers.is_empty() { div { dt { "dns_servers" } dd { (joined(provider.dns_servers.iter().map(|server| dns_server_name(*server)))) } } }
                @for (name, value) in &provider.labels { div { dt { "label " (name) } dd { (value) } } }
                @if let Some(pace) = provider.requests_per_minute { div { dt { "requests_per_minute" } dd { (pace) } } }
                div { dt { "check" } dd { (probe.check()) } }
                @if let Some(model) = &probe.model { div { dt { "model" } dd { (model) } } }
                div { dt { "interval" } dd { (interval(probe.interval)) } }
                div { dt { "timeout" } dd { (interval(probe.timeout)) } }
                div { dt { "connection" } dd { (probe.connection.name()) } }
                @if let Some(slow) = probe.slow_after { div { dt { "slow_after" } dd { (interval(slow)) } } }
                @if let Some(recheck) = probe.recheck {
                    div { dt { "recheck" } dd { "after " (interval(recheck.after)) ", step " (interval(recheck.step)) ", " (recheck.times) " times" } }
                }
                @if let Some(chat) = probe.chat() {
                    div { dt { "max_tokens" } dd { (chat.max_tokens) } }
                    div { dt { "prompt" } dd { (chat.prompt.len()) " bytes" } }
                    @if let Some(price) = chat.price { div { dt { "price" } dd { (price.input_usd_per_mtok) " in, " (price.output_usd_per_mtok) " out, USD per million tokens" } } }
                }
                @match &probe.task {
                    Task::Stream(stream) => { div { dt { "stall_timeout" } dd { (interval(stream.stall_timeout)) } } }
                    Task::Http(request) => {
                        div { dt { "method" } dd { (request.method) } }
                        div { dt { "path" } dd { (without_query(&request.path)) } }
                        @if let Some(body) = &request.body { div { dt { "body" } dd { (body.len()) " bytes" } } }
                        @if !request.headers.is_empty() { div { dt { "headers" } dd { (joined(request.headers.iter().map(|(name, _)| name))) } } }
                        div { dt { "send_key" } dd { (request.send_key) } }
                        div { dt { "expect" } dd {
                            "status " @if request.expect.status.is_empty() { "2xx" } @else { (joined(request.expect.status.iter())) }
                            @if request.expect.body_regex.is_some() { ", body_regex" }
                            @for (pointer, _) in &request.expect.json { ", json " (pointer) }
                        } }
                    }
                    Task::Status(source) => {
                        div { dt { "status_url" } dd { (source.url.origin().ascii_serialization()) (source.url.path()) } }
                        @if !source.components.is_empty() { div { dt { "components" } dd { (joined(source.components.iter())) } } }
                    }
                    _ => {}
                }
                @if let Some(comparison) = &probe.comparison { div { dt { "comparison" } dd { (comparison.name) } } }
            }
        }
    }
}

fn joined(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Removes the query, which may contain a secret.
fn without_query(path: &str) -> String {
    path.split_once('?').map_or_else(|| path.to_owned(), |(path, _)| format!("{path}?…"))
}
