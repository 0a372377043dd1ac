//! Runs of now, which somebody asks for: extra attempts beside the schedule, as rechecks are.
//!
//! They need a place, the provider's pace and budget like any run, and move nothing of the schedule unless they are told to
//! wait for longer than it does: a probe that waits is not run, and an attempt has no more time than there is until the next
//! due time. All who ask while a run of the probe is in flight, a due one too, share its result.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    work::{Event, Work},
    worker::Worker,
};
use crate::outcome::{Demanded, Outcome, SkipCause};

/// Who may wait for one probe's run at a time; one more is told that it is busy.
pub(super) const MOST_WAITING: usize = 128;

/// How long an attempt may wait for a place and for the provider's pace: a moment, since whoever asks has little time.
const ADMISSION: Duration = Duration::from_millis(100);

/// Somebody asks for a run of now.
#[derive(Debug)]
pub struct Demand {
    /// When the run must have ended.
    pub deadline: Instant,
    /// Takes what comes of it. Dropped, the probe is gone or has changed meanwhile.
    pub answer: oneshot::Sender<Demanded>,
}

impl Demand {
    /// Whether somebody still waits for it.
    fn is_live(&self) -> bool {
        !self.answer.is_closed() && self.deadline > Instant::now()
    }
}

/// Those who wait for a probe's run.
#[derive(Debug)]
pub(super) struct Demands {
    incoming: mpsc::Receiver<Demand>,
    /// They wait for the due run that is about to begin.
    waiting: Vec<Demand>,
}

impl Demands {
    pub(super) fn new(incoming: mpsc::Receiver<Demand>) -> Self {
        Self { incoming, waiting: Vec::new() }
    }

    /// The next one; never, where nobody can ask.
    pub(super) async fn next(&mut self) -> Demand {
        loop {
            match self.incoming.recv().await {
                Some(demand) if demand.is_live() => return demand,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// All that wait now.
    fn take(&mut self) -> Vec<Demand> {
        let mut all = std::mem::take(&mut self.waiting);
        while let Ok(demand) = self.incoming.try_recv() {
            all.push(demand);
        }
        all
    }

    /// The due run that some wait for is not made.
    pub(super) fn skip(&mut self, cause: SkipCause) {
        tell(std::mem::take(&mut self.waiting), &Demanded::Waits(cause));
    }

    /// The probe has changed: those who wait for its due run ask again.
    pub(super) fn dismiss(&mut self) {
        self.waiting.clear();
    }

    /// A run has ended: whoever waits gets it.
    pub(super) fn share(&mut self, outcome: &Outcome) {
        let waiting = self.take();
        if !waiting.is_empty() {
            tell(waiting, &Demanded::Ran(Arc::new(outcome.clone())));
        }
    }
}

fn tell(waiting: Vec<Demand>, what: &Demanded) {
    for demand in waiting {
        // Who has gone meanwhile is not told.
        let _ = demand.answer.send(what.clone());
    }
}

impl<W: Work> Worker<W> {
    /// Runs the probe for whoever asks, or says why it is not run.
    pub(super) async fn serve(&mut self, first: Demand) {
        let deadline = first.deadline;
        self.demands.waiting.push(first);
        if self.backoff.resume(self.next).is_some() || self.backoff.forbids(self.now()) {
            return tell(self.demands.take(), &Demanded::Waits(SkipCause::Backoff));
        }
        if !self.has_room() {
            return tell(self.demands.take(), &Demanded::Waits(SkipCause::Budget));
        }
        if self.time_left(Instant::now()).is_none() {
            // The due run begins in a moment, and is theirs too; if it is skipped, they are told why.
            return;
        }
        match self.attempt_until(deadline).await {
            Ok(outcome) => {
                self.demands.share(&outcome);
                self.report(Event::Demanded(outcome));
            }
            Err(Some(cause)) => tell(self.demands.take(), &Demanded::Waits(cause)),
            // A reload has changed the probe: who waits asks again.
            Err(None) => drop(self.demands.take()),
        }
    }

    /// One attempt; the error is what it would have to wait for, `None`: a reload has changed the probe.
    async fn attempt_until(&mut self, deadline: Instant) -> Result<Outcome, Option<SkipCause>> {
        let admission = self.admitted(Instant::now() + ADMISSION).await?;
        let left = self.time_left(Instant::now()).ok_or(Some(SkipCause::Concurrency))?;
        let within = left.min(deadline.saturating_duration_since(Instant::now()));
        self.attempt_between(admission, within).await.ok_or(Some(SkipCause::Budget))
    }
}
