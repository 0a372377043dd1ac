//! Pairs of probes that run in the same slot, one after the other, in random order.
//!
//! Each probe has its own worker, with its own backoff, limits and turns, and the workers
//! coordinate here. The second one in a slot waits until the first has run or was held back, and
//! receives its result. It does not wait for a probe that has no worker, is late, exceeds its
//! timeout or has skipped the slot.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::plan::{Timestamp, hash};
use crate::{
    config::{Comparison, Probe},
    outcome::{Compared, Measure, Pair, Side},
    sync::Mutex,
};

/// Pairs of all comparisons.
#[derive(Debug, Default)]
pub(super) struct PairCoordinator(Mutex<HashMap<Arc<Comparison>, Weak<PairState>>>);

/// Progress of each side. `None` if it has no worker.
#[derive(Debug, Default)]
struct PairState {
    gateway: watch::Sender<Option<Progress>>,
    direct: watch::Sender<Option<Progress>>,
}

impl PairState {
    fn side(&self, side: Side) -> &watch::Sender<Option<Progress>> {
        match side {
            Side::Gateway => &self.gateway,
            Side::Direct => &self.direct,
        }
    }
}

/// Progress of one side through its slots.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// First slot that is neither run nor skipped.
    next: u64,
    /// Slot of the run in flight, and its latest end.
    running: Option<(u64, Timestamp)>,
    /// Slot of the last finished run, and its measurements.
    ended: Option<(u64, Measure)>,
}

/// Time at which a run may begin, and the result that precedes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartSlot {
    /// Time at which it should begin: its slot, or the end of the other side's run.
    pub(super) since: Timestamp,
    /// Latest time at which it may begin, including the wait for the other side and for a permit.
    pub(super) latest: Timestamp,
    /// Result of the other side in the same slot. `None` if this side is first or alone.
    pub(super) other: Option<Measure>,
}

/// Decision of a side in a slot, given the progress of the other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum PairDecision {
    /// Wait for the other side's run, which ends by this time.
    After(Timestamp),
    /// Wait for the other side, which has not started.
    Wait,
    /// Run, with the other side's result in this slot, if there is one.
    Now(Option<Measure>),
}

impl PairCoordinator {
    /// Registers the probe with its comparison, with all slots before `next` accounted for. Returns
    /// `None` if it has no comparison.
    pub(super) fn register(&self, probe: &Probe, next: u64) -> Option<PairHandle> {
        let comparison = probe.comparison.as_ref()?;
        let mut pairs = self.0.lock();
        let state = pairs.get(comparison).and_then(Weak::upgrade).unwrap_or_else(|| {
            pairs.retain(|_, state| state.strong_count() > 0);
            let state = Arc::default();
            pairs.insert(Arc::clone(comparison), Arc::downgrade(&state));
            state
        });
        let side = comparison.side(&probe.name);
        state.side(side).send_replace(Some(Progress { next, ..Progress::default() }));
        let other = state.side(side.other()).subscribe();
        Some(PairHandle { comparison: Arc::clone(comparison), side, state, other })
    }
}

/// One side of a comparison. When it is dropped, the other side no longer waits for it.
#[derive(Debug)]
pub(super) struct PairHandle {
    comparison: Arc<Comparison>,
    side: Side,
    state: Arc<PairState>,
    other: watch::Receiver<Option<Progress>>,
}

impl PairHandle {
    /// Builds the comparison part of an outcome from this run and the other side's run in the same
    /// slot.
    pub(super) fn comparison(&self, run: Measure, other: Option<Measure>) -> Compared {
        Compared {
            comparison: self.comparison.name.clone(),
            side: self.side,
            pair: other.map(|other| Pair::new(self.side, run, other)),
        }
    }

    /// Records that all slots before `next` are run or skipped.
    pub(super) fn set_next(&self, next: u64) {
        self.update(|progress| progress.next = next);
    }

    /// Records that run `number` begins, and its latest end.
    pub(super) fn run_started(&self, number: u64, end: Timestamp) {
        self.update(|progress| (progress.next, progress.running) = (number + 1, Some((number, end))));
    }

    /// Records that run `number` has ended.
    pub(super) fn run_ended(&self, number: u64, measure: Measure) {
        self.update(|progress| (progress.running, progress.ended) = (None, Some((number, measure))));
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.state.side(self.side).send_modify(|progress| change(progress.get_or_insert_default()));
    }

    /// Returns what to do in slot `number`.
    pub(super) fn decide(&mut self, number: u64) -> PairDecision {
        let other = *self.other.borrow_and_update();
        if first_side(&self.comparison.name, number) == self.side {
            return PairDecision::Now(None);
        }
        match other {
            Some(Progress { running: Some((running, end)), .. }) if running == number => {
                PairDecision::After(end)
            }
            Some(Progress { ended: Some((ended, measure)), .. }) if ended == number => {
                PairDecision::Now(Some(measure))
            }
            Some(Progress { next, .. }) if next <= number => PairDecision::Wait,
            Some(_) | None => PairDecision::Now(None),
        }
    }

    /// Waits for progress of the other side, up to `latest`.
    pub(super) async fn wait_for_progress(&mut self, latest: Instant) {
        // The caller checks the progress in either case.
        let _ = timeout_at(latest, self.other.changed()).await;
    }
}

impl Drop for PairHandle {
    fn drop(&mut self) {
        self.state.side(self.side).send_replace(None);
    }
}

/// Returns which side goes first in a slot. Both sides compute the same.
fn first_side(comparison: &str, number: u64) -> Side {
    if hash(&format!("{comparison} {number}")).is_multiple_of(2) { Side::Gateway } else { Side::Direct }
}
