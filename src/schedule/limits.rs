//! Limits of concurrent runs, in total and per provider, first come, first served.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{config::Schedule, sync::Mutex};

/// Limits of concurrent runs. A reload may change them at any time; runs in flight beyond new
/// limits continue.
#[derive(Debug)]
pub(super) struct Limits {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: Schedule,
    in_flight: usize,
    /// Providers with a run in flight or a waiting probe, by name.
    providers: HashMap<String, ProviderSlots>,
    /// Next ticket. Tickets increase, so the smallest one arrived first.
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct ProviderSlots {
    in_flight: usize,
    /// Waiting probes by ticket. A probe waits at most once, which bounds the size.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Limits {
    pub(super) fn new(settings: Schedule) -> Arc<Self> {
        let state = State { settings, in_flight: 0, providers: HashMap::new(), next_ticket: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub(super) fn set(&self, settings: Schedule) {
        let mut state = self.lock();
        state.settings = settings;
        state.admit();
    }

    /// Returns the maximum for every wait that a service asks for.
    pub(super) fn max_backoff(&self) -> Duration {
        self.lock().settings.max_backoff
    }

    /// Returns the number of runs in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Waits for a slot, which is released when it is dropped.
    ///
    /// A free slot goes to the first probe in the queue whose provider is below its own limit. So
    /// no probe holds one of the total slots while it waits for its provider's, and a full provider
    /// delays no other. Dropping the future leaves the queue.
    pub(super) async fn slot(self: &Arc<Self>, provider: &str) -> Slot {
        let (turn, slot) = self.enter(provider);
        turn.await.expect("a ticket leaves the queue by its turn, or with the slot that is held here");
        slot
    }

    fn enter(self: &Arc<Self>, provider: &str) -> (oneshot::Receiver<()>, Slot) {
        let (sender, turn) = oneshot::channel();
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.providers.entry(provider.to_owned()).or_default().waiting.insert(ticket, sender);
        state.admit();
        (turn, Slot { limits: Arc::clone(self), provider: provider.to_owned(), ticket })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Admits all probes that may run. It visits each busy provider, not each waiting probe.
    fn admit(&mut self) {
        while self.in_flight < self.settings.max_concurrent {
            let first = self
                .providers
                .values_mut()
                .filter(|provider_slots| provider_slots.in_flight < self.settings.max_concurrent_per_provider)
                .filter_map(|provider_slots| {
                    Some((*provider_slots.waiting.first_key_value()?.0, provider_slots))
                })
                .min_by_key(|(ticket, _)| *ticket);
            let Some((ticket, provider_slots)) = first else { return };
            if let Some(turn) = provider_slots.waiting.remove(&ticket) {
                // If the probe has just left the queue, it drops its slot next, which updates the
                // counts.
                let _ = turn.send(());
            }
            provider_slots.in_flight += 1;
            self.in_flight += 1;
        }
    }

    /// Removes a probe that was in flight or in the queue.
    fn leave(&mut self, provider: &str, ticket: u64) {
        let Some(provider_slots) = self.providers.get_mut(provider) else { return };
        if provider_slots.waiting.remove(&ticket).is_none() {
            provider_slots.in_flight -= 1;
            self.in_flight -= 1;
        }
        if provider_slots.in_flight == 0 && provider_slots.waiting.is_empty() {
            self.providers.remove(provider);
        }
        self.admit();
    }
}

/// A slot among the runs in flight, or a position in the queue for one.
#[derive(Debug)]
pub(super) struct Slot {
    limits: Arc<Limits>,
    provider: String,
    ticket: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.limits.lock().leave(&self.provider, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    type Arrival = Pin<Box<dyn Future<Output = Slot>>>;

    fn settings(max_concurrent: usize, max_concurrent_per_provider: usize) -> Schedule {
        Schedule { max_concurrent, max_concurrent_per_provider, max_backoff: Duration::ZERO }
    }

    /// Requests a slot and enters the queue.
    fn arrive(limits: &Arc<Limits>, provider: &'static str) -> (Arrival, Option<Slot>) {
        let limits = Arc::clone(limits);
        let mut arrival: Arrival = Box::pin(async move { limits.slot(provider).await });
        let slot = poll_slot(&mut arrival);
        (arrival, slot)
    }

    fn poll_slot(arrival: &mut Arrival) -> Option<Slot> {
        match arrival.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    #[test]
    fn first_come_first_served() {
        let limits = Limits::new(settings(1, 1));
        let mut slot = arrive(&limits, "a").1;
        let mut queue: Vec<_> = ["b", "a", "b", "c", "a"].map(|name| arrive(&limits, name).0).into();
        while !queue.is_empty() {
            assert!(slot.is_some());
            assert_eq!(limits.in_flight(), 1);
            assert!(queue.iter_mut().all(|arrival| poll_slot(arrival).is_none()));
            drop(slot);
            slot = poll_slot(&mut queue.remove(0));
        }
        drop(slot);
        assert_eq!(limits.in_flight(), 0);
        assert!(limits.lock().providers.is_empty());
    }

    #[test]
    fn full_provider_delays_no_other_provider() {
        let limits = Limits::new(settings(2, 1));
        let (_, first) = arrive(&limits, "a");
        let (mut second, none) = arrive(&limits, "a");
        assert!(first.is_some() && none.is_none());
        let (_, other) = arrive(&limits, "b");
        assert!(other.is_some());
        drop(other);
        assert!(poll_slot(&mut second).is_none());
        assert_eq!(limits.in_flight(), 1);
        drop(first);
        assert!(poll_slot(&mut second).is_some());
    }

    #[test]
    fn first_in_queue_keeps_its_position_if_provider_is_full() {
        let limits = Limits::new(settings(2, 1));
        let (_, a) = arrive(&limits, "a");
        let (_, b) = arrive(&limits, "b");
        let (mut second_a, _) = arrive(&limits, "a");
        let (mut c, _) = arrive(&limits, "c");
        // The end of the run frees a slot in total and one of provider a, and second_a arrived
        // before c.
        drop(a);
        assert!(poll_slot(&mut c).is_none());
        let second_a = poll_slot(&mut second_a);
        assert!(second_a.is_some());
        drop(b);
        assert!(poll_slot(&mut c).is_some());
    }

    #[test]
    fn dropped_request_frees_its_queue_position() {
        let limits = Limits::new(settings(1, 1));
        let (_, slot) = arrive(&limits, "a");
        let (second, _) = arrive(&limits, "a");
        let (third, _) = arrive(&limits, "a");
        let (mut fourth, _) = arrive(&limits, "b");
        drop(second);
        assert!(poll_slot(&mut fourth).is_none());
        // Third is admitted now, but has not been polled.
        drop(slot);
        assert_eq!(limits.in_flight(), 1);
        assert!(poll_slot(&mut fourth).is_none());
        drop(third);
        let slot = poll_slot(&mut fourth);
        assert!(slot.is_some());
        drop(slot);
        assert_eq!(limits.in_flight(), 0);
        assert!(limits.lock().providers.is_empty());
    }

    #[test]
    fn limits_change_while_runs_are_in_flight() {
        let limits = Limits::new(settings(1, 1));
        let (_, first) = arrive(&limits, "a");
        let mut queue: Vec<_> = (0..3).map(|_| arrive(&limits, "a").0).collect();
        limits.set(settings(3, 3));
        let mut slots: Vec<_> = queue[..2].iter_mut().filter_map(poll_slot).collect();
        assert_eq!((limits.in_flight(), slots.len()), (3, 2));
        limits.set(settings(1, 3));
        let mut last = queue.pop().unwrap();
        // All three in flight must end before the next is admitted, because the limit is now one.
        drop(first);
        slots.pop();
        assert_eq!(limits.in_flight(), 1);
        assert!(poll_slot(&mut last).is_none());
        slots.pop();
        assert!(poll_slot(&mut last).is_some());
    }
}
