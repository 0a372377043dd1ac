//! What has changed since the state was last written, no larger than the state itself.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::file::{Identity, Kept, KeptBackoff, KeptSpending};

/// What has changed since the last write: of each thing its last value, so that it grows with the probes and not with the
/// time that a write takes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// What the reloads have left, before all that follows; `None`: there was no reload.
    retained: Option<Retained>,
    waits: BTreeMap<Arc<Identity>, Option<KeptBackoff>>,
    runs: BTreeMap<Arc<Identity>, Runs>,
    /// `None`: it is as before.
    spending: Option<KeptSpending>,
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
    /// `None`: it is as before.
    last_success: Option<SystemTime>,
}

impl Changes {
    pub(super) fn waits(&mut self, who: &Arc<Identity>, backoff: Option<KeptBackoff>) {
        self.waits.insert(Arc::clone(who), backoff);
    }

    pub(super) fn spent(&mut self, spending: KeptSpending) {
        self.spending = Some(spending);
    }

    pub(super) fn ran(&mut self, who: &Arc<Identity>, time: SystemTime, success: bool) {
        let earlier = self.runs.get(who).and_then(|runs| runs.last_success);
        let last_success = if success { Some(time) } else { earlier };
        self.runs.insert(Arc::clone(who), Runs { last_run: time, last_success });
    }

    /// Forgets all probes but these, which are sorted, and the spending where there is no budget. A probe that one reload
    /// takes away and the next one brings back begins anew.
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

    /// Takes them over into what is kept.
    pub(super) fn apply(self, kept: &mut Kept) {
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
