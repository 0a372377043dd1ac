//! Detects whether the prober itself is offline, so that failures are not attributed to the
//! providers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::outcome::Fault;

/// The last run of a probe that addresses its provider's service.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRun<'a> {
    pub(super) provider: &'a str,
    /// Host of the provider's base URL.
    pub(super) host: &'a str,
    /// Time since its end on the monotonic clock, which is independent of steps of the wall clock.
    pub(super) age: Duration,
    pub(super) fault: Fault,
    /// Interval of the probe.
    pub(super) interval: Duration,
    /// Whether the probe is in backoff, so that its last run is older than its schedule implies.
    pub(super) waiting: bool,
}

/// Returns whether the last run of every provider failed on the network. Runs that ended more than
/// two intervals ago, and those of probes in backoff, are ignored. Returns `None` if fewer than two
/// providers with different hosts remain, because a single host may be offline itself.
pub(super) fn offline<'a>(runs: impl IntoIterator<Item = LastRun<'a>>) -> Option<bool> {
    let mut last_of: BTreeMap<&str, LastRun<'_>> = BTreeMap::new();
    for run in runs.into_iter().filter(|run| !run.waiting && run.age <= 2 * run.interval) {
        let last = last_of.entry(run.provider).or_insert(run);
        if run.age < last.age {
            *last = run;
        }
    }
    let hosts: BTreeSet<&str> = last_of.values().map(|run| run.host).collect();
    (hosts.len() >= 2).then(|| last_of.values().all(|run| run.fault == Fault::Network))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a run that ended `ago` seconds ago, of a probe with an interval of a minute.
    fn run(provider: &'static str, host: &'static str, ago: u64, fault: Fault) -> LastRun<'static> {
        LastRun {
            provider,
            host,
            age: Duration::from_secs(ago),
            fault,
            interval: Duration::from_secs(60),
            waiting: false,
        }
    }

    #[track_caller]
    fn check(runs: &[LastRun<'_>], expected: Option<bool>) {
        assert_eq!(offline(runs.iter().copied()), expected);
    }

    #[test]
    fn offline_is_when_no_provider_can_be_reached() {
        use Fault::{Caller, Gateway, Network, None, Prober, Provider};

        let a = |fault| run("a", "a.example", 10, fault);
        let b = |fault| run("b", "b.example", 20, fault);
        check(&[a(Network), b(Network)], Some(true));
        for fault in [None, Caller, Gateway, Provider, Prober] {
            check(&[a(Network), b(fault)], Some(false));
        }
        check(&[a(None), b(None)], Some(false));
    }

    #[test]
    fn two_providers_with_different_hosts_are_needed() {
        check(&[], None);
        check(&[run("a", "a.example", 1, Fault::Network), run("a", "a.example", 2, Fault::Network)], None);
        // Two accounts with one provider use one host.
        check(&[run("a", "a.example", 1, Fault::Network), run("b", "a.example", 1, Fault::Network)], None);
        check(&[run("a", "a.example", 1, Fault::None), run("b", "a.example", 1, Fault::None)], None);
    }

    #[test]
    fn last_run_of_a_provider_decides() {
        let b = run("b", "b.example", 5, Fault::Network);
        let older = |fault| run("a", "a.example", 30, fault);
        let newer = |fault| run("a", "a.example", 10, fault);
        check(&[older(Fault::None), newer(Fault::Network), b], Some(true));
        check(&[newer(Fault::Network), older(Fault::None), b], Some(true));
        check(&[older(Fault::Network), b, newer(Fault::None)], Some(false));
    }

    #[test]
    fn old_runs_and_probes_in_backoff_are_ignored() {
        let b = run("b", "b.example", 5, Fault::Network);
        let c = run("c", "c.example", 5, Fault::Network);
        check(&[run("a", "a.example", 120, Fault::None), b], Some(false));
        check(&[run("a", "a.example", 121, Fault::None), b], None);
        check(&[run("a", "a.example", 121, Fault::None), b, c], Some(true));
        let waiting = LastRun { waiting: true, ..run("a", "a.example", 5, Fault::Caller) };
        check(&[waiting, b], None);
        check(&[waiting, b, c], Some(true));
        // A probe with a long interval is judged by that interval.
        let rare = LastRun { interval: Duration::from_secs(300), ..run("a", "a.example", 599, Fault::None) };
        check(&[rare, b], Some(false));
    }
}
