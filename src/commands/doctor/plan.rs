//! The probes of a walk: the doctor's own, whatever the configuration schedules.

use std::{mem, sync::Arc, time::Duration};

use crate::{
    config::{Config, Probe, Provider, Task},
    outcome::Api,
    probe::{PrepareError, Resolver, Target},
};

/// How long a step may take where the configuration has no probe that says it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What to run for one provider.
pub(super) struct Plan {
    pub(super) provider: Arc<Provider>,
    /// `None`: the API has none, and the configuration no path for it.
    pub(super) health: Option<Arc<Target>>,
    /// `None`: there is no key, or it could not be read.
    pub(super) auth: Option<Arc<Target>>,
    /// The model list; with the models that the configuration's own probes look for in it. Empty where a key is missing.
    pub(super) models: Vec<Arc<Target>>,
    /// What is left on the account; `None`: the API does not tell, or there is no key.
    pub(super) balance: Option<Arc<Target>>,
    /// The provider's status page; `None`: none is known in a form that can be read.
    pub(super) status: Option<Arc<Target>>,
    /// Completions, if they are wanted.
    pub(super) generation: Vec<Arc<Target>>,
    /// Completions that are configured, wanted or not.
    pub(super) could_generate: bool,
}

/// What a probe of the doctor's is for.
#[derive(Clone, Copy)]
enum Part {
    Health,
    Auth,
    Models,
    Balance,
    Status,
    Generation,
}

/// A plan for each of the named providers, for all where `names` is empty.
pub(super) fn plans(
    mut config: Config,
    generate: bool,
    names: &[String],
    resolver: &Arc<Resolver>,
) -> Result<Vec<Plan>, PrepareError> {
    let scheduled = mem::take(&mut config.probes);
    let wanted = |provider: &&Arc<Provider>| names.is_empty() || names.contains(&provider.name);
    let providers: Vec<Arc<Provider>> = config.providers.values().filter(wanted).cloned().collect();
    let mut plans = Vec::new();
    for provider in providers {
        let of_it = |probe: &&Arc<Probe>| probe.provider.name == provider.name;
        let scheduled: Vec<&Arc<Probe>> = scheduled.iter().filter(of_it).collect();
        let parts = parts(&provider, &scheduled, generate);
        let could_generate = scheduled.iter().any(|probe| probe.check().generates());
        config.probes = parts.iter().map(|(_, probe)| Arc::clone(probe)).collect();
        let targets = Target::prepare(&config, resolver)?;
        plans.push(sorted(provider, parts.iter().map(|(part, _)| *part).zip(targets), could_generate));
    }
    Ok(plans)
}

fn sorted(
    provider: Arc<Provider>,
    targets: impl Iterator<Item = (Part, Arc<Target>)>,
    could_generate: bool,
) -> Plan {
    let (models, generation) = (Vec::new(), Vec::new());
    let (health, auth, balance, status) = (None, None, None, None);
    let mut plan = Plan { provider, health, auth, models, balance, status, generation, could_generate };
    for (part, target) in targets {
        match part {
            Part::Health => plan.health = Some(target),
            Part::Auth => plan.auth = Some(target),
            Part::Models => plan.models.push(target),
            Part::Balance => plan.balance = Some(target),
            Part::Status => plan.status = Some(target),
            Part::Generation => plan.generation.push(target),
        }
    }
    plan
}

/// What is to be probed of a provider, and how.
fn parts(provider: &Arc<Provider>, scheduled: &[&Arc<Probe>], generate: bool) -> Vec<(Part, Arc<Probe>)> {
    let plain = scheduled.iter().filter(|probe| !probe.check().generates());
    let timeout = plain.map(|probe| probe.timeout).max().unwrap_or(TIMEOUT);
    let own = |part, name: &str, task, model| {
        let name = format!("{}-{name}", provider.name);
        let provider = Arc::clone(provider);
        (part, Arc::new(Probe { name, provider, task, model, interval: timeout, timeout }))
    };
    let mut parts = Vec::new();
    if provider.api == Api::Langmart || provider.paths.health.is_some() {
        parts.push(own(Part::Health, "health", Task::Health, None));
    }
    if let Some(source) = &provider.status_source {
        parts.push(own(Part::Status, "status", Task::Status(source.clone()), None));
    }
    if provider.key.as_ref().is_some_and(|key| key.value.expose().is_empty()) {
        return parts;
    }
    if provider.key.is_some() {
        parts.push(own(Part::Auth, "auth", Task::Auth, None));
        if matches!(provider.api, Api::Langmart | Api::Openrouter) {
            parts.push(own(Part::Balance, "balance", Task::Balance, None));
        }
    }
    let mut looked_for: Vec<Option<String>> = scheduled
        .iter()
        .filter(|probe| probe.task == Task::Models && probe.model.is_some())
        .map(|probe| probe.model.clone())
        .collect();
    looked_for.sort();
    looked_for.dedup();
    // A gateway's or provider's own list wants a key; one of the operator's own servers may not.
    if looked_for.is_empty() && (provider.key.is_some() || provider.api == Api::Openai) {
        looked_for.push(None);
    }
    parts.extend(looked_for.into_iter().map(|model| own(Part::Models, "models", Task::Models, model)));
    if generate {
        let generating = scheduled.iter().filter(|probe| probe.check().generates());
        parts.extend(generating.map(|probe| (Part::Generation, Arc::clone(probe))));
    }
    parts
}
