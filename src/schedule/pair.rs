//! Pairs of probes that run in the same slot, one after the other, in random order.
//!
//! Each probe has its own worker, with its own backoff, limits and turns, and the workers
//! coordinate here. The second one in a slot waits until the first has run or was held back, and
//! receives its result. It does not wait for a probe that has no worker, is late, exceeds its
//! timeout or has skipped the slot.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::plan::{Moment, hash};
use crate::{
    config::{Comparison, Probe},
    outcome::{Compared, Measure, Pair, Side},
};

/// Pairs of all comparisons.
#[derive(Debug, Default)]
pub(super) struct Meetings(Mutex<HashMap<Arc<Comparison>, Weak<Meeting>>>);

/// Progress of each side. `None` if it has no worker.
#[derive(Debug, Default)]
struct Meeting {
    gateway: watch::Sender<Option<Progress>>,
    direct: watch::Sender<Option<Progress>>,
}

impl Meeting {
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
    running: Option<(u64, Moment)>,
    /// Slot of the last finished run, and its measurements.
    ended: Option<(u64, Measure)>,
}

/// When and after which result a run may begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cue {
    /// Time at which it should begin: its slot, or the end of the other side's run.
    pub(super) since: Moment,
    /// Latest time at which it may begin, including the wait for the other side and for a permit.
    pub(super) latest: Moment,
    /// Result of the other side in the same slot. `None` if this side is first or alone.
    pub(super) other: Option<Measure>,
}

/// What a side does in a slot, given the progress of the other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    /// Wait for the other side's run, which ends by this time.
    After(Moment),
    /// Wait for the other side, which has not started.
    Wait,
    /// Run, with the other side's result in this slot, if there is one.
    Now(Option<Measure>),
}

impl Meetings {
    /// Registers the probe with its comparison, with all slots before `next` accounted for. Returns
    /// `None` if it has no comparison.
    pub(super) fn seat(&self, probe: &Probe, next: u64) -> Option<Seat> {
        let comparison = probe.comparison.as_ref()?;
        // Nothing panics while the lock is held.
        let mut meetings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meeting = meetings.get(comparison).and_then(Weak::upgrade).unwrap_or_else(|| {
            meetings.retain(|_, meeting| meeting.strong_count() > 0);
            let meeting = Arc::default();
            meetings.insert(Arc::clone(comparison), Arc::downgrade(&meeting));
            meeting
        });
        let side = comparison.side(&probe.name);
        meeting.side(side).send_replace(Some(Progress { next, ..Progress::default() }));
        let other = meeting.side(side.other()).subscribe();
        Some(Seat { comparison: Arc::clone(comparison), side, meeting, other })
    }
}

/// One side of a comparison. When it is dropped, the other side no longer waits for it.
#[derive(Debug)]
pub(super) struct Seat {
    comparison: Arc<Comparison>,
    side: Side,
    meeting: Arc<Meeting>,
    other: watch::Receiver<Option<Progress>>,
}

impl Seat {
    /// Builds the comparison part of an outcome from this run and the other side's run in the same
    /// slot.
    pub(super) fn compared(&self, run: Measure, other: Option<Measure>) -> Compared {
        Compared {
            comparison: self.comparison.name.clone(),
            side: self.side,
            pair: other.map(|other| Pair::new(self.side, run, other)),
        }
    }

    /// Records that all slots before `next` are run or skipped.
    pub(super) fn passed(&self, next: u64) {
        self.note(|progress| progress.next = next);
    }

    /// Records that run `number` begins, and its latest end.
    pub(super) fn begins(&self, number: u64, end: Moment) {
        self.note(|progress| (progress.next, progress.running) = (number + 1, Some((number, end))));
    }

    /// Records that run `number` has ended.
    pub(super) fn ended(&self, number: u64, measure: Measure) {
        self.note(|progress| (progress.running, progress.ended) = (None, Some((number, measure))));
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.meeting.side(self.side).send_modify(|progress| change(progress.get_or_insert_default()));
    }

    /// Returns what to do in slot `number`.
    pub(super) fn turn(&mut self, number: u64) -> Turn {
        let other = *self.other.borrow_and_update();
        if first(&self.comparison.name, number) == self.side {
            return Turn::Now(None);
        }
        match other {
            Some(Progress { running: Some((running, end)), .. }) if running == number => Turn::After(end),
            Some(Progress { ended: Some((ended, measure)), .. }) if ended == number => {
                Turn::Now(Some(measure))
            }
            Some(Progress { next, .. }) if next <= number => Turn::Wait,
            Some(_) | None => Turn::Now(None),
        }
    }

    /// Waits for progress of the other side, up to `latest`.
    pub(super) async fn changed(&mut self, latest: Instant) {
        // The caller checks the progress in either case.
        let _ = timeout_at(latest, self.other.changed()).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.meeting.side(self.side).send_replace(None);
    }
}

/// Returns which side goes first in a slot. Both sides compute the same.
fn first(comparison: &str, number: u64) -> Side {
    if hash(&format!("{comparison} {number}")).is_multiple_of(2) { Side::Gateway } else { Side::Direct }
}
