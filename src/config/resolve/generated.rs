//! The probes that a provider's `checks` generate, and the requirements of each check.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    context::{Defaults, Placed},
    probe::probe,
    provider::Draft,
};
use crate::{
    config::{
        model::{Provider, Task},
        problem::{Place, Report},
    },
    outcome::{Api, Check},
};

/// Returns the probes that a provider's `checks` generate.
pub(super) fn probes(draft: &Draft, defaults: &Defaults, report: &Report) -> Vec<Placed> {
    let Some(provider) = &draft.provider else { return Vec::new() };
    let placed = |(check, place): &(Check, Place)| {
        check_requirements(*check, provider, draft.keyed || draft.keyless)
            .unwrap_or_else(|message| report.error(place, message));
        let task = match check {
            Check::Network => Task::Network,
            Check::Status => Task::Status(provider.status_source.clone()?),
            Check::Health => Task::Health,
            Check::Auth => Task::Auth,
            Check::Balance => Task::Balance,
            _ => Task::Models,
        };
        let name = format!("{}-{check}", provider.name);
        Some(Placed { probe: probe(name, provider, task, None, defaults.plain), place: place.clone() })
    };
    draft.checks.iter().filter_map(placed).collect()
}

/// Returns the names of the probes that `checks` generates, including those with problems.
pub(super) fn names(drafts: &BTreeMap<String, Draft>) -> BTreeSet<String> {
    let names = |(name, draft): (&String, &Draft)| {
        draft.checks.iter().map(|(check, _)| format!("{name}-{check}")).collect::<Vec<_>>()
    };
    drafts.iter().flat_map(names).collect()
}

/// Checks what a check requires of its provider. `has_key` is true if it has a key or needs none.
pub(super) fn check_requirements(check: Check, provider: &Provider, has_key: bool) -> Result<(), String> {
    let api = provider.api.profile();
    if check == Check::Balance && api.paths.balance.is_none() {
        let with_balance = Api::ALL.iter().filter(|api| api.profile().paths.balance.is_some());
        return Err(format!(
            "balance is supported by {}, not by {}; remove it",
            listed(with_balance),
            provider.api
        ));
    }
    let keyed = matches!(check, Check::Auth | Check::Models | Check::Chat | Check::Stream | Check::Balance);
    if keyed && !has_key {
        return Err(format!("{check} needs a key; set provider.{}.api_key", provider.name));
    }
    if check == Check::Health && api.paths.health.is_none() && provider.paths.health.is_none() {
        return Err(format!(
            "health needs a path, and {} has no default; set provider.{}.health_path",
            provider.api, provider.name
        ));
    }
    if check == Check::Status && provider.status_source.is_none() {
        return Err(format!(
            "status needs a status page, and none is known for this provider; set provider.{}.status_url",
            provider.name
        ));
    }
    Ok(())
}

/// Returns the names of APIs for a sentence: `langmart and openrouter`.
pub(super) fn listed<'a>(apis: impl Iterator<Item = &'a Api>) -> String {
    apis.map(|api| api.name()).collect::<Vec<_>>().join(" and ")
}
