//! The marks that one run leaves on its way, and the five phases between them.
//!
//! A connection is made inside the request's own task, since no other request could make or leave one meanwhile, so a
//! task-local reaches every hook: the resolver's, the TLS session store's, the connector's.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

pub(super) use crate::outcome::LookupFailure;
use crate::outcome::Phases;

tokio::task_local! {
    static MARKS: Arc<Marks>;
}

/// What the hooks saw of one run.
#[derive(Debug)]
pub(super) struct Marks(Mutex<Seen>);

/// See [`Marks`]. A moment is `None` until it is reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// A connection was asked for; `None` throughout a run that has one from the run before.
    pub(super) dialled: Option<Instant>,
    /// The lookup was asked for.
    pub(super) lookup: Option<Instant>,
    /// The lookup was answered, well or ill.
    pub(super) resolved: Option<Instant>,
    /// Whether it was the proxy's name. With a SOCKS proxy there can be two lookups, first the target's.
    pub(super) lookup_of_proxy: bool,
    /// What it answered; of two lookups the first.
    pub(super) addresses: Vec<IpAddr>,
    /// Why it answered nothing.
    pub(super) lookup_failure: Option<LookupFailure>,
    /// Whether the next handshake will be with an https proxy, which comes before the target's.
    pub(super) proxy_handshake_ahead: bool,
    /// What was wrong with the proxy's chain.
    pub(super) proxy_certificate_failure: Option<CertificateFailure>,
    /// The handshake with the target began, so there was a connection.
    pub(super) handshake: Option<Instant>,
    /// The connection was ready for the request.
    pub(super) connected: Option<Instant>,
    /// The connection took the request's body; `None` where that is not looked at, too.
    pub(super) handed_over: Option<Instant>,
    /// The version, once the server has signed.
    pub(super) tls_version: Option<&'static str>,
    /// Earliest end of validity in the presented chain.
    pub(super) not_after: Option<SystemTime>,
    /// What was wrong with the chain.
    pub(super) certificate_failure: Option<CertificateFailure>,
}

/// What a certificate chain lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CertificateFailure {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for another name.
    WrongName,
    /// Nobody whom we trust vouches for it.
    UntrustedIssuer,
    /// Anything else: revoked, wrong purpose, bad signature or encoding.
    Unusable,
}

impl Marks {
    /// Of a run that is about to start. `tls_proxy`: there is a proxy, and it speaks TLS itself.
    pub(super) fn new(tls_proxy: bool) -> Self {
        Self(Mutex::new(Seen { proxy_handshake_ahead: tls_proxy, ..Seen::default() }))
    }

    /// What has been seen so far.
    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Writes into them from outside of the run's own task.
    pub(super) fn write(&self, write: impl FnOnce(&mut Seen)) {
        write(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A panic between two assignments leaves nothing half-done that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the hooks that are reached while `future` runs write into `marks`.
pub(super) async fn observed<F: Future>(marks: Arc<Marks>, future: F) -> F::Output {
    MARKS.scope(marks, future).await
}

/// Writes into the current run's marks; without a run, nowhere.
pub(super) fn mark(write: impl FnOnce(&mut Seen)) {
    // `Err` means that no run is observed, as in a unit test of a hook.
    let _ = MARKS.try_with(|marks| marks.write(write));
}

/// Where a run that began at `started` and ended at `ended` spent its time. `headers` is when the response's headers
/// were there. A phase that was cut short ends with the run, the ones after it are zero: so they always sum to the
/// duration.
pub(super) fn phases(seen: &Seen, started: Instant, headers: Option<Instant>, ended: Instant) -> Phases {
    let mut at = started;
    let mut until = |mark: Option<Instant>, reached: bool| -> Duration {
        if !reached {
            return Duration::ZERO;
        }
        let next = mark.unwrap_or(ended).clamp(at, ended.max(at));
        let duration = next - at;
        at = next;
        duration
    };
    let Seen { lookup, resolved, handshake, connected, .. } = seen;
    // An address literal has no lookup, plain HTTP no handshake.
    let resolve = until(*resolved, lookup.is_some());
    let connect = until(handshake.or(*connected), lookup.is_none() || resolved.is_some());
    let tls = until(*connected, handshake.is_some());
    let processing = until(headers, connected.is_some());
    let transfer = until(Some(ended), headers.is_some());
    Phases { resolve, connect, tls, processing, transfer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(marks: [Option<u64>; 5], ended: u64, expected: [u64; 5]) {
        let start = Instant::now();
        let at = |offset: Option<u64>| offset.map(|offset| start + Duration::from_millis(offset));
        let [lookup, resolved, handshake, connected, headers] = marks;
        let seen = Seen {
            lookup: at(lookup),
            resolved: at(resolved),
            handshake: at(handshake),
            connected: at(connected),
            ..Seen::default()
        };
        let ended = start + Duration::from_millis(ended);
        let phases = phases(&seen, start, at(headers), ended);
        assert_eq!(phases.durations().map(|phase| phase.as_millis() as u64), expected);
        assert_eq!(phases.durations().iter().sum::<Duration>(), ended - start, "the phases fill the run");
    }

    #[test]
    fn phases_are_consecutive_and_fill_the_run() {
        // A whole https run; plain http; an address literal; plain http to one.
        check([Some(0), Some(5), Some(15), Some(36), Some(50)], 60, [5, 10, 21, 14, 10]);
        check([Some(0), Some(5), None, Some(15), Some(50)], 60, [5, 10, 0, 35, 10]);
        check([None, None, Some(15), Some(36), Some(50)], 60, [0, 15, 21, 14, 10]);
        check([None, None, None, Some(15), Some(50)], 50, [0, 15, 0, 35, 0]);
    }

    #[test]
    fn a_run_that_ends_early_charges_the_phase_that_it_was_in() {
        check([Some(0), None, None, None, None], 30, [30, 0, 0, 0, 0]);
        check([Some(0), Some(5), None, None, None], 30, [5, 25, 0, 0, 0]);
        check([None, None, None, None, None], 30, [0, 30, 0, 0, 0]);
        check([Some(0), Some(5), Some(15), None, None], 30, [5, 10, 15, 0, 0]);
        check([Some(0), Some(5), Some(15), Some(20), None], 30, [5, 10, 5, 10, 0]);
    }
}
