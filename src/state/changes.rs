//! Changes since the last write of the state. Their size is bounded by that of the state itself.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::file::{Identity, PersistedBackoff, PersistedSpending, PersistedState};

/// Changes since the last write. Only the latest value of each item is kept, so the size depends on
/// the number of probes and not on how long a write takes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Probes that remained after the reloads, which happened before all changes below. `None` if
    /// there was no reload.
    retained: Option<Retained>,
    waits: BTreeMap<Arc<Identity>, Option<PersistedBackoff>>,
    runs: BTreeMap<Arc<Identity>, Runs>,
    /// `None` if it has not changed.
    spending: Option<PersistedSpending>,
}

#[derive(Debug)]
struct Retained {
    /// Sorted.
    probes: Vec<Arc<Identity>>,
    budget: bool,
}

#[derive(Clone, Copy, Debug)]
struct Runs {
    last_run: SystemTime,
    /// `None` if it has not changed.
    last_success: Option<SystemTime>,
}

impl Changes {
    pub(super) fn set_backoff(&mut self, who: &Arc<Identity>, backoff: Option<PersistedBackoff>) {
        self.waits.insert(Arc::clone(who), backoff);
    }

    pub(super) fn set_spending(&mut self, spending: PersistedSpending) {
        self.spending = Some(spending);
    }

    pub(super) fn record_run(&mut self, who: &Arc<Identity>, time: SystemTime, success: bool) {
        let earlier = self.runs.get(who).and_then(|runs| runs.last_success);
        let last_success = if success { Some(time) } else { earlier };
        self.runs.insert(Arc::clone(who), Runs { last_run: time, last_success });
    }

    /// Drops all probes except these, which are sorted, and the spending if there is no budget. A
    /// probe that one reload removes and the next one restores starts without state.
    pub(super) fn retain(&mut self, mut probes: Vec<Arc<Identity>>, budget: bool) {
        self.waits.retain(|who, _| probes.binary_search(who).is_ok());
        self.runs.retain(|who, _| probes.binary_search(who).is_ok());
        self.spending = self.spending.filter(|_| budget);
        let before = self.retained.take();
        if let Some(before) = &before {
            probes.retain(|who| before.probes.binary_search(who).is_ok());
        }
        self.retained =
            Some(Retained { probes, budget: budget && before.is_none_or(|before| before.budget) });
    }

    /// Applies the changes to the state.
    pub(super) fn apply(self, kept: &mut PersistedState) {
        let Self { retained, waits, runs, spending } = self;
        if let Some(Retained { probes, budget }) = retained {
            kept.probes.retain(|who, _| probes.binary_search_by(|known| (**known).cmp(who)).is_ok());
            kept.spending = kept.spending.filter(|_| budget);
        }
        for (who, backoff) in waits {
            match kept.probes.get_mut(&*who) {
                Some(probe) => probe.backoff = backoff,
                None if backoff.is_none() => {}
                None => kept.probes.entry((*who).clone()).or_default().backoff = backoff,
            }
        }
        for (who, Runs { last_run, last_success }) in runs {
            let probe = match kept.probes.get_mut(&*who) {
                Some(probe) => probe,
                None => kept.probes.entry((*who).clone()).or_default(),
            };
            probe.last_run = Some(last_run);
            probe.last_success = last_success.or(probe.last_success);
        }
        kept.spending = spending.or(kept.spending);
    }
}
