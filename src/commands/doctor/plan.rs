//! The probes of a walk, which do not depend on those of the configuration.

use std::{mem, sync::Arc, time::Duration};

use crate::{
    config::{Config, Connection, Probe, Provider, Task},
    probe::{NetworkStack, Target, TargetError},
};

/// Timeout of a step without a configured probe.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the step of a completion.
pub(super) const COMPLETION: &str = "completion";

/// Runs for one provider.
pub(super) struct Plan {
    pub(super) provider: Arc<Provider>,
    /// The network path, without a request.
    pub(super) network: Arc<Target>,
    /// Requests to the service by the names of the steps, in their order.
    pub(super) calls: Vec<(&'static str, Arc<Target>)>,
    /// The provider's status page. `None` if none is known in a supported format.
    pub(super) status: Option<Arc<Target>>,
    /// Whether completions are configured, permitted or not.
    pub(super) could_generate: bool,
}

impl Plan {
    /// Returns the number of completions that will be sent.
    pub(super) fn completions(&self) -> usize {
        self.calls.iter().filter(|(step, _)| *step == COMPLETION).count()
    }
}

/// Creates a plan for each of the named providers, or for all if `names` is empty.
pub(super) fn plans(
    mut config: Config,
    generate: bool,
    names: &[String],
    network: &Arc<NetworkStack>,
) -> Result<Vec<Plan>, TargetError> {
    let scheduled = mem::take(&mut config.probes);
    let wanted = |provider: &&Arc<Provider>| names.is_empty() || names.contains(&provider.name);
    let providers: Vec<Arc<Provider>> = config.providers.values().filter(wanted).cloned().collect();
    let mut plans = Vec::new();
    for provider in providers {
        let of_it = |probe: &&Arc<Probe>| probe.provider.name == provider.name;
        let scheduled: Vec<&Arc<Probe>> = scheduled.iter().filter(of_it).collect();
        let doctor = ProbeFactory::of(&provider, &scheduled);
        let calls = doctor.calls(&scheduled, generate);
        let status = provider.status_source.clone();
        let status = status.map(|page| doctor.probe("status", Task::Status(page), None));

        config.probes = vec![doctor.probe("network", Task::Network, None)];
        config.probes.extend(status.clone());
        config.probes.extend(calls.iter().map(|(_, probe)| Arc::clone(probe)));
        let mut targets = Target::prepare(&config, network)?.into_iter();
        let Some(network) = targets.next() else { continue };
        let status = status.and_then(|_| targets.next());
        let calls = calls.into_iter().map(|(step, _)| step).zip(targets).collect();
        let could_generate = scheduled.iter().any(|probe| probe.check().generates());
        plans.push(Plan { provider, network, calls, status, could_generate });
    }
    Ok(plans)
}

/// Creates the probes of one provider.
pub(super) struct ProbeFactory<'a> {
    pub(super) provider: &'a Arc<Provider>,
    pub(super) timeout: Duration,
}

impl<'a> ProbeFactory<'a> {
    /// Takes the longest timeout of the configured probes.
    fn of(provider: &'a Arc<Provider>, scheduled: &[&Arc<Probe>]) -> Self {
        let plain = scheduled.iter().filter(|probe| !probe.check().generates());
        Self { provider, timeout: plain.map(|probe| probe.timeout).max().unwrap_or(DEFAULT_TIMEOUT) }
    }

    pub(super) fn probe(&self, check: &str, task: Task, model: Option<String>) -> Arc<Probe> {
        let Self { provider, timeout } = *self;
        let name = format!("{}-{check}", provider.name);
        Arc::new(Probe {
            name,
            provider: Arc::clone(provider),
            task,
            model,
            retires: None,
            interval: timeout,
            timeout,
            connection: Connection::Cold,
            slow_after: None,
            recheck: None,
            comparison: None,
        })
    }

    /// Returns the requests to the service for which there are a path and a key.
    fn calls(&self, scheduled: &[&Arc<Probe>], generate: bool) -> Vec<(&'static str, Arc<Probe>)> {
        let provider = self.provider;
        let api = provider.api.profile();
        let mut calls = Vec::new();
        if api.paths.health.is_some() || provider.paths.health.is_some() {
            calls.push(("health", self.probe("health", Task::Health, None)));
        }
        if provider.key.as_ref().is_some_and(|key| key.value.expose().is_empty()) {
            return calls;
        }
        if provider.key.is_some() {
            calls.push(("key", self.probe("auth", Task::Auth, None)));
            if api.paths.balance.is_some() {
                calls.push(("balance", self.probe("balance", Task::Balance, None)));
            }
        }
        let has_model = |probe: &&&Arc<Probe>| probe.task == Task::Models && probe.model.is_some();
        let mut models: Vec<Option<String>> =
            scheduled.iter().filter(has_model).map(|probe| probe.model.clone()).collect();
        models.sort();
        models.dedup();
        // The list of a gateway or provider requires a key; that of an operator's own server may
        // not.
        if models.is_empty() && (provider.key.is_some() || api.may_be_keyless) {
            models.push(None);
        }
        calls.extend(models.into_iter().map(|model| ("models", self.probe("models", Task::Models, model))));
        if generate {
            let generating = scheduled.iter().filter(|probe| probe.check().generates());
            calls.extend(generating.map(|probe| (COMPLETION, Arc::clone(probe))));
        }
        calls
    }
}
