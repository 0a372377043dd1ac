//! Two probes that run as a pair: at the same due times, one after the other, in random order.
//!
//! Each has its worker as any other, with waits, limits and turns of its own. They meet here: who goes second at a due
//! time waits until the first has run or was held back, and learns what the first found. Nobody waits for a probe that
//! has no worker, is not there in time, takes longer than it may, or has passed the due time over.

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

/// Where the two sides of each comparison find each other.
#[derive(Debug, Default)]
pub(super) struct Meetings(Mutex<HashMap<Arc<Comparison>, Weak<Meeting>>>);

/// How far each side has come; `None`: it has no worker.
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

/// What one side has done with its due times.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The first due time that is neither run nor skipped.
    next: u64,
    /// The run in flight, and when it ends at the latest.
    running: Option<(u64, Moment)>,
    /// The run that ended last, and what it found.
    ended: Option<(u64, Measure)>,
}

/// What a run that may begin is given on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cue {
    /// Since when it should begin: its due time, or when the other side was done.
    pub(super) since: Moment,
    /// When it begins at the latest, however long it waits for the other side and for a place together.
    pub(super) latest: Moment,
    /// What the other side found at the same due time; `None`: this one is the first, or alone.
    pub(super) other: Option<Measure>,
}

/// What a side is to do at a due time, as far as the other one tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    /// To wait: the other one runs, until then at the latest.
    After(Moment),
    /// To wait: the other one has still to come.
    Wait,
    /// To run; with what the other one found at this due time, if it was there.
    Now(Option<Measure>),
}

impl Meetings {
    /// The probe's place in its comparison, with all due times before `next` passed; `None`: it is in none.
    pub(super) fn seat(&self, probe: &Probe, next: u64) -> Option<Seat> {
        let comparison = probe.comparison.as_ref()?;
        // Nothing panics while it is held.
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

/// One probe's place in its comparison. Dropped, the other side no longer waits for it.
#[derive(Debug)]
pub(super) struct Seat {
    comparison: Arc<Comparison>,
    side: Side,
    meeting: Arc<Meeting>,
    other: watch::Receiver<Option<Progress>>,
}

impl Seat {
    /// What a run's outcome says of the comparison: the run, and the one before it at the same due time.
    pub(super) fn compared(&self, run: Measure, other: Option<Measure>) -> Compared {
        Compared {
            comparison: self.comparison.name.clone(),
            side: self.side,
            pair: other.map(|other| Pair::new(self.side, run, other)),
        }
    }

    /// All due times before `next` are run or skipped.
    pub(super) fn passed(&self, next: u64) {
        self.note(|progress| progress.next = next);
    }

    /// Run `number` begins, and ends then at the latest.
    pub(super) fn begins(&self, number: u64, end: Moment) {
        self.note(|progress| (progress.next, progress.running) = (number + 1, Some((number, end))));
    }

    /// Run `number` has ended.
    pub(super) fn ended(&self, number: u64, measure: Measure) {
        self.note(|progress| (progress.running, progress.ended) = (None, Some((number, measure))));
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.meeting.side(self.side).send_modify(|progress| change(progress.get_or_insert_default()));
    }

    /// What to do at due time `number`.
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

    /// Returns when the other side has done something, or at the latest then.
    pub(super) async fn changed(&mut self, latest: Instant) {
        // In time or not: what there is to do, the next look tells.
        let _ = timeout_at(latest, self.other.changed()).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.meeting.side(self.side).send_replace(None);
    }
}

/// Who goes first at a due time. Both sides draw the same, without a word to each other.
fn first(comparison: &str, number: u64) -> Side {
    if hash(&format!("{comparison} {number}")).is_multiple_of(2) { Side::Gateway } else { Side::Direct }
}
