//! The probes that a provider's `checks` generate, and what each check wants of its provider.

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

/// The probes that a provider's `checks` generate.
pub(super) fn probes(draft: &Draft, defaults: &Defaults, report: &Report) -> Vec<Placed> {
    let Some(provider) = &draft.provider else { return Vec::new() };
    let placed = |(check, place): &(Check, Place)| {
        needs(*check, provider, draft.keyed || draft.keyless)
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

/// The names of the probes that `checks` asks for, also where a problem stands against them.
pub(super) fn names(drafts: &BTreeMap<String, Draft>) -> BTreeSet<String> {
    let of = |(name, draft): (&String, &Draft)| {
        draft.checks.iter().map(|(check, _)| format!("{name}-{check}")).collect::<Vec<_>>()
    };
    drafts.iter().flat_map(of).collect()
}

/// What a check wants of its provider; `served`: it has a key, or can do without.
pub(super) fn needs(check: Check, provider: &Provider, served: bool) -> Result<(), String> {
    if check == Check::Balance && !matches!(provider.api, Api::Langmart | Api::Openrouter) {
        return Err(format!(
            "balance is what langmart and openrouter tell, and {} does not; remove it",
            provider.api
        ));
    }
    let keyed = matches!(check, Check::Auth | Check::Models | Check::Chat | Check::Stream | Check::Balance);
    if keyed && !served {
        return Err(format!("{check} needs a key; give provider.{} an api_key", provider.name));
    }
    if check == Check::Health && provider.api != Api::Langmart && provider.paths.health.is_none() {
        return Err(format!(
            "health needs a path, which {} has none of its own for; set provider.{}.health_path",
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
