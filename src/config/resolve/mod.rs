//! From the file's tables to the configuration. Each section has a file; this one has the
//! constraints between sections.

mod budget;
mod completion;
mod context;
mod generated;
mod groups;
mod http;
mod probe;
mod provider;
mod run_options;
mod sections;
mod server;
mod shard;
mod values;

use std::{collections::BTreeMap, sync::Arc};

use toml::de::DeTable;

pub(super) use self::context::Context;
use self::{context::Placed, groups::Known, provider::Draft};
use super::{
    environment::is_loopback,
    model::{Config, KeySource, Log, Provider, Schedule, Server},
    problem::{Place, Report, shown},
    raw::Section,
};

/// Maximum number of probes of a configuration, which bounds tasks and series.
const MAX_PROBES: usize = 10_000;

/// Returns the configuration of a file. It must not be used if an error was reported: invalid
/// values are replaced by defaults, so that the rest can be checked.
pub(super) fn config(table: &DeTable<'_>, context: &Context<'_>) -> Config {
    let mut root = Section::root(table, context.report);
    root.texts("include", |_| Ok(()));
    let server = server::server(root.section("server"), context);
    let log = sections::log(root.section("log"), context);
    let state_directory = sections::state_directory(root.section("state"), context);
    let schedule = sections::schedule(root.section("schedule"));
    let shard = shard::shard(&mut root, context);
    let budget = budget::budget(&mut root);
    let defaults = sections::defaults(root.section("defaults"));

    let mut probes = Vec::new();
    let mut providers = BTreeMap::new();
    for entry in root.section("provider").entries() {
        let section = Section::from_value(entry.value, entry.place, context.report);
        let provider = provider::provider(entry.key, section, shard, context);
        probes.extend(generated::probes(&provider, &defaults, context.report));
        providers.insert(entry.key.to_owned(), provider);
    }
    let mut named = generated::names(&providers);
    for (value, place) in root.elements("probe", "an array of tables, each written under [[probe]]") {
        named.extend(probe::names(value));
        let section = Section::from_value(value, place, context.report);
        probes.extend(probe::written(section, &mut providers, &defaults, context));
    }
    let known = Known::new(&probes, &named, context.report);
    let mut comparisons = groups::comparisons(&mut root, &known);
    let mut pools = groups::pools(&mut root, &known);
    groups::set_comparisons(&mut probes, &comparisons);
    root.finish();
    if let Some(budget) = &budget {
        budget::check(budget, &probes, context.report);
    }
    probes.sort_by_key(|placed| placed.place.line);
    distinct(&probes, context.report);
    // After other errors, missing parts may not really be missing.
    let complete = context.report.is_good();
    if probes.is_empty() {
        let message = "no probe is configured; add checks to a provider or a [[probe]]";
        complete.then(|| context.report.warning(&Place::default(), message));
    } else if let Some(shard) = shard {
        shard::keep(shard, &mut probes, &mut comparisons, &mut pools, context.report);
    }

    for provider in providers.values().filter(|provider| complete && !provider.used) {
        let message = "no probe uses this provider; add checks or a [[probe]], or remove it";
        context.report.warning(&provider.place, message);
    }
    shared_keys(&providers, context.report);
    run_options::check_rate_limits(&providers, &probes, context.report);
    let usable =
        providers.into_iter().filter_map(|(name, drafted)| Some((name, drafted.provider?))).collect();
    let budget = budget.map(|placed| placed.budget);
    let budget = budget.map(|whole| shard.map_or(whole, |shard| shard.of_budget(whole)));
    let config = finished(server, log, schedule, usable, probes, context);
    Config { shard, budget, state_directory, comparisons, pools, ..config }
}

/// Warns of keys that are sent to a second host. The usual cause is a copied line with an unchanged
/// variable.
fn shared_keys(providers: &BTreeMap<String, Draft>, report: &Report) {
    let keyed = |draft: &&Draft| draft.provider.as_ref().is_some_and(|p| p.key.is_some());
    let mut drafts: Vec<_> = providers.values().filter(keyed).collect();
    drafts.sort_by_key(|draft| draft.place.line);
    let mut first: Vec<(&KeySource, &Provider)> = Vec::new();
    for draft in drafts {
        let Some((provider, key)) = draft.provider.as_deref().and_then(|p| Some((p, p.key.as_ref()?))) else {
            continue;
        };
        match first.iter().find(|(source, _)| **source == key.source) {
            Some((_, other)) if !same_place(other, provider) => {
                let message = format!(
                    "{} is also the key of provider.{}, which is another host; a key is usually valid for one service only",
                    key.source, other.name
                );
                report.warning(&draft.key_place, message);
            }
            Some(_) => {}
            None => first.push((&key.source, provider)),
        }
    }
}

/// Returns whether a key may be valid for both providers: they have the same host, or both are on
/// this machine.
fn same_place(one: &Provider, other: &Provider) -> bool {
    one.host() == other.host() || is_loopback(&one.base_url) && is_loopback(&other.base_url)
}

/// Creates the configuration of the parts, after the probes were checked and restricted to the
/// shard.
fn finished(
    server: Server,
    log: Log,
    schedule: Schedule,
    providers: BTreeMap<String, Arc<Provider>>,
    probes: Vec<Placed>,
    context: &Context<'_>,
) -> Config {
    if probes.len() > MAX_PROBES {
        let message = format!("{} probes are too many; allowed: {MAX_PROBES}", probes.len());
        context.report.error(&Place::default(), message);
    }
    let system_roots = context.environment.trusted_roots().unwrap_or_else(|message| {
        context.report.error(&Place::default(), message);
        Vec::new()
    });
    let needs_roots = |provider: &Arc<Provider>| {
        provider.base_url.scheme() == "https" && provider.ca_certificates.is_empty()
    };
    if system_roots.is_empty() && providers.values().any(needs_roots) {
        let message = "the system has no trusted root certificates: every https probe will fail; \
                       install the package ca-certificates, or set ca_file";
        context.report.warning(&Place::default(), message);
    }
    Config {
        server,
        log,
        schedule,
        shard: None,
        budget: None,
        state_directory: None,
        providers,
        probes: probes.into_iter().map(|placed| Arc::new(placed.probe)).collect(),
        comparisons: Vec::new(),
        pools: Vec::new(),
        system_roots: Arc::new(system_roots),
    }
}

/// Reports probes with the name of an earlier one.
fn distinct(probes: &[Placed], report: &Report) {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for Placed { probe, place } in probes {
        if let Some(first) = seen.get(probe.name.as_str()) {
            let message = format!(
                "the probe name {} is used by {} in {}; names must be unique, generated ones included",
                shown(&probe.name),
                first.path,
                report.named_line(first.line)
            );
            report.error(place, message);
        } else {
            seen.insert(&probe.name, place);
        }
    }
}
