//! The steps of the guide in their order, as far as they can succeed.

use std::{
    io, mem,
    time::{Duration, Instant, SystemTime},
};

use super::{
    diagnosis::{Diagnosis, diagnose},
    places,
    plan::Plan,
    steps::{self, Reached, Step, Verdict, reached},
};
use crate::probe::ask_system_servers;

/// Timeout of each of the system's name servers.
const NAME_SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of a walk.
pub(super) struct Found {
    pub(super) steps: Vec<Step>,
    /// The likely cause of the failure. `None` if everything works.
    pub(super) diagnosis: Option<Diagnosis>,
}

/// Receives each step as it is taken.
type OnStep<'a> = dyn FnMut(&Step) -> io::Result<()> + 'a;

/// Takes the steps of the plan and diagnoses them.
pub(super) async fn walk(plan: &Plan, on_step: &mut OnStep<'_>) -> io::Result<Found> {
    let mut walk = Walk { plan, steps: Vec::new(), on_step };
    walk.take(steps::configuration(&plan.provider))?;
    walk.take(steps::proxy(&plan.provider))?;
    if walk.network().await? {
        walk.service().await?;
    }
    // The status page is on a host of its own: it may be available if the service is not, and
    // report a known incident.
    walk.status().await?;
    let steps = walk.steps;
    Ok(Found { diagnosis: diagnose(&plan.provider, &steps), steps })
}

struct Walk<'a, 'l> {
    plan: &'a Plan,
    steps: Vec<Step>,
    on_step: &'a mut OnStep<'l>,
}

impl Walk<'_, '_> {
    fn take(&mut self, step: Step) -> io::Result<()> {
        (self.on_step)(&step)?;
        self.steps.push(step);
        Ok(())
    }

    /// Checks the network path to the service. Returns whether it works.
    async fn network(&mut self) -> io::Result<bool> {
        let Plan { provider, network, .. } = self.plan;
        let asking = async {
            match steps::looked_up(provider) {
                Some(name) => ask_system_servers(name, Instant::now() + NAME_SERVER_TIMEOUT).await,
                None => Vec::new(),
            }
        };
        let (outcome, servers) = tokio::join!(network.run(), asking);
        let probe = network.probe();
        self.take(steps::dns(provider, &outcome, &servers).of_failed(probe, &outcome))?;
        for step in steps::other_name_servers(provider, &outcome) {
            self.take(step)?;
        }
        let came = reached(provider, &outcome);
        if came > Reached::Lookup {
            self.take(steps::tcp(provider, &outcome).of_failed(probe, &outcome))?;
        }
        if came > Reached::Connection {
            self.take(steps::tls(provider, &outcome, SystemTime::now()).of_failed(probe, &outcome))?;
        }
        Ok(outcome.success())
    }

    /// Sends the requests to the service.
    async fn service(&mut self) -> io::Result<()> {
        let plan = self.plan;
        let mut compared = false;
        let mut limits = Vec::new();
        for (name, target) in &plan.calls {
            let outcome = target.run().await;
            if outcome.http_status.is_some() && !mem::replace(&mut compared, true) {
                self.take(steps::clock(&outcome))?;
            }
            let step = match *name {
                "balance" => steps::balance(&outcome),
                name => steps::answer(name, &outcome),
            };
            self.take(step.of(target.probe(), &outcome))?;
            if !outcome.ratelimit.is_empty() {
                limits.clone_from(&outcome.ratelimit);
            }
            // A key that is rejected or throttled would fail in the following requests, too.
            if *name == "key" && !outcome.success() {
                break;
            }
        }
        if !plan.calls.iter().any(|(name, _)| *name == "key") {
            let why = if plan.provider.key.is_none() { "none is configured" } else { "not tried without it" };
            self.take(Step::new("key", Verdict::Skipped, why))?;
        }
        self.take(steps::limits(&limits))
    }

    /// Reads the provider's status page.
    async fn status(&mut self) -> io::Result<()> {
        let Some(target) = &self.plan.status else {
            let page = places::account(&self.plan.provider).and_then(|api| api.status_page);
            let text = match page {
                Some(page) => format!("not read: see {page}, or set status_url"),
                None => "not read: no page is known; set status_url".to_owned(),
            };
            return self.take(Step::new("status", Verdict::Skipped, text));
        };
        let outcome = target.run().await;
        self.take(steps::status(&outcome).of(target.probe(), &outcome))
    }
}
