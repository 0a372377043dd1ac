//! The walk itself: the guide's steps in their order, as far as they make sense.

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

/// How long each of the system's name servers has to answer.
const NAME_SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a walk came to.
pub(super) struct Found {
    pub(super) steps: Vec<Step>,
    /// `None`: all is well.
    pub(super) diagnosis: Option<Diagnosis>,
}

/// Where the steps go as they are taken.
type Live<'a> = dyn FnMut(&Step) -> io::Result<()> + 'a;

/// Takes the steps.
pub(super) async fn walk(plan: &Plan, live: &mut Live<'_>) -> io::Result<Found> {
    let mut walk = Walk { plan, steps: Vec::new(), live };
    walk.take(steps::configuration(&plan.provider))?;
    walk.take(steps::proxy(&plan.provider))?;
    if walk.way().await? {
        walk.service().await?;
    }
    // On a host of its own: it answers also where the service does not, and tells then whether the fault is known.
    walk.status().await?;
    let steps = walk.steps;
    Ok(Found { diagnosis: diagnose(&plan.provider, &steps), steps })
}

struct Walk<'a, 'l> {
    plan: &'a Plan,
    steps: Vec<Step>,
    live: &'a mut Live<'l>,
}

impl Walk<'_, '_> {
    fn take(&mut self, step: Step) -> io::Result<()> {
        (self.live)(&step)?;
        self.steps.push(step);
        Ok(())
    }

    /// The way to the service; the value is whether it is open.
    async fn way(&mut self) -> io::Result<bool> {
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

    /// What the service says.
    async fn service(&mut self) -> io::Result<()> {
        let plan = self.plan;
        let mut compared = false;
        let mut told = Vec::new();
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
                told.clone_from(&outcome.ratelimit);
            }
            // A key that is refused, or held back, fares no better in the calls that follow.
            if *name == "key" && !outcome.success() {
                break;
            }
        }
        if !plan.calls.iter().any(|(name, _)| *name == "key") {
            let why = if plan.provider.key.is_none() { "none is configured" } else { "not tried without it" };
            self.take(Step::new("key", Verdict::Skipped, why))?;
        }
        self.take(steps::limits(&told))
    }

    /// What the provider says of itself.
    async fn status(&mut self) -> io::Result<()> {
        let Some(target) = &self.plan.status else {
            let page = places::account(&self.plan.provider).and_then(places::status_page);
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
