//! On-demand runs: extra attempts outside the schedule, as rechecks are.
//!
//! An on-demand run needs a permit, the provider's rate limit and budget like any run. It does not
//! affect the schedule unless the service asks for a longer wait than the schedule has. A probe in
//! backoff is not run, and an attempt must end before the next slot. All requests that arrive while
//! a run of the probe is in flight, a scheduled one too, share its result.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    work::{Event, Work},
    worker::Worker,
};
use crate::outcome::{OnDemandResult, Outcome, SkipCause};

/// Maximum number of requests waiting for one probe's run. Further requests are rejected as busy.
pub(super) const MAX_WAITERS: usize = 128;

/// Maximum time that an attempt waits for a permit and for the provider's rate limit. It is short,
/// because the client is waiting.
const MAX_PERMIT_WAIT: Duration = Duration::from_millis(100);

/// Request for a run.
#[derive(Debug)]
pub struct OnDemandRequest {
    /// Time by which the run must have ended.
    pub deadline: Instant,
    /// Receives the result. It is dropped if the probe was removed or has changed.
    pub answer: oneshot::Sender<OnDemandResult>,
}

impl OnDemandRequest {
    /// Returns whether the client still waits for the result.
    fn is_waiting(&self) -> bool {
        !self.answer.is_closed() && self.deadline > Instant::now()
    }
}

/// Requests waiting for a probe's run.
#[derive(Debug)]
pub(super) struct Waiters {
    incoming: mpsc::Receiver<OnDemandRequest>,
    /// Requests that wait for the scheduled run that is about to start.
    waiting: Vec<OnDemandRequest>,
}

impl Waiters {
    pub(super) fn new(incoming: mpsc::Receiver<OnDemandRequest>) -> Self {
        Self { incoming, waiting: Vec::new() }
    }

    /// Waits for the next request. It never returns if the sender is gone.
    pub(super) async fn next(&mut self) -> OnDemandRequest {
        loop {
            match self.incoming.recv().await {
                Some(request) if request.is_waiting() => return request,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Takes all requests waiting now.
    fn take(&mut self) -> Vec<OnDemandRequest> {
        let mut all = std::mem::take(&mut self.waiting);
        while let Ok(request) = self.incoming.try_recv() {
            all.push(request);
        }
        all
    }

    /// Answers the requests that wait for a scheduled run, which was skipped.
    pub(super) fn skip(&mut self, cause: SkipCause) {
        answer_all(std::mem::take(&mut self.waiting), &OnDemandResult::Skipped(cause));
    }

    /// Drops the waiting requests after a change of the probe, so that the clients ask again.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Answers all waiting requests with the outcome of a run that has ended.
    pub(super) fn answer(&mut self, outcome: &Outcome) {
        let waiting = self.take();
        if !waiting.is_empty() {
            answer_all(waiting, &OnDemandResult::Ran(Arc::new(outcome.clone())));
        }
    }
}

fn answer_all(waiting: Vec<OnDemandRequest>, what: &OnDemandResult) {
    for request in waiting {
        // It fails if the client is gone.
        let _ = request.answer.send(what.clone());
    }
}

impl<W: Work> Worker<W> {
    /// Runs the probe for a request, or answers why it does not run.
    pub(super) async fn run_on_demand(&mut self, first: OnDemandRequest) {
        let deadline = first.deadline;
        self.waiters.waiting.push(first);
        if self.backoff.resume(self.next).is_some() || self.backoff.forbids(self.now()) {
            return answer_all(self.waiters.take(), &OnDemandResult::Skipped(SkipCause::Backoff));
        }
        if !self.has_room() {
            return answer_all(self.waiters.take(), &OnDemandResult::Skipped(SkipCause::Budget));
        }
        if self.time_left(Instant::now()).is_none() {
            // The scheduled run is about to start and answers this request too. If it is skipped,
            // so is the request.
            return;
        }
        match self.attempt_until(deadline).await {
            Ok(outcome) => {
                self.waiters.answer(&outcome);
                self.report(Event::OnDemand(outcome));
            }
            Err(Some(cause)) => answer_all(self.waiters.take(), &OnDemandResult::Skipped(cause)),
            // A reload has changed the probe, so the clients ask again.
            Err(None) => drop(self.waiters.take()),
        }
    }

    /// Makes one attempt. The error is what it would have to wait for, or `None` if a reload has
    /// changed the probe.
    async fn attempt_until(&mut self, deadline: Instant) -> Result<Outcome, Option<SkipCause>> {
        let admission = self.acquire_permits(Instant::now() + MAX_PERMIT_WAIT).await?;
        let left = self.time_left(Instant::now()).ok_or(Some(SkipCause::Concurrency))?;
        let within = left.min(deadline.saturating_duration_since(Instant::now()));
        self.attempt_between(admission, within).await.ok_or(Some(SkipCause::Budget))
    }
}
