//! Bounds on how many connections wait for the same thing, so that no client takes all of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, MutexGuard},
};

use crate::sync::Mutex;

/// Reciprocal of the share of all connections that may wait for the same resource.
const CONNECTION_SHARE: usize = 4;

/// Bits of an IPv6 address that name the client's network; the client chooses the others.
const IPV6_NETWORK_BITS: u32 = 64;

/// The client by which waiters are counted. `None` counts all clients as one.
type Client = Option<IpAddr>;

/// Connections that wait for the same thing, counted by client.
#[derive(Debug)]
pub(super) struct Waiters {
    limit: usize,
    waiting: Mutex<BTreeMap<Client, usize>>,
}

/// A place among the waiters, until it is dropped.
#[derive(Debug)]
pub(super) struct WaitingPlace {
    waiters: Arc<Waiters>,
    client: Client,
}

impl Waiters {
    /// Allows each client a quarter of the connections, and at least one.
    pub(super) fn new(connections: usize) -> Arc<Self> {
        let limit = (connections / CONNECTION_SHARE).max(1);
        Arc::new(Self { limit, waiting: Mutex::default() })
    }

    /// Takes a place for a client. Returns `None` if the client has no place left and must be
    /// refused.
    pub(super) fn enter(self: &Arc<Self>, client: Client) -> Option<WaitingPlace> {
        let client = client.map(network);
        let mut waiting = self.lock();
        let places = waiting.entry(client).or_default();
        if *places >= self.limit {
            return None;
        }
        *places += 1;
        drop(waiting);
        Some(WaitingPlace { waiters: Arc::clone(self), client })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Client, usize>> {
        // No code panics while holding the lock.
        self.waiting.lock()
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        if let Some(places) = waiting.get_mut(&self.client) {
            *places -= 1;
            if *places == 0 {
                waiting.remove(&self.client);
            }
        }
    }
}

/// Returns the network address of the client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let host_bits = Ipv6Addr::BITS - IPV6_NETWORK_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn waiters_beyond_a_quarter_are_refused_until_one_leaves() {
        let waiters = Waiters::new(128);
        let mut places: Vec<_> = (0..32).map(|_| waiters.enter(None).unwrap()).collect();
        assert!(waiters.enter(None).is_none());
        places.pop();
        places.push(waiters.enter(None).unwrap());
        assert!(waiters.enter(None).is_none());
        drop(places);
        assert!(waiters.lock().is_empty());
    }

    #[test]
    fn waiters_of_one_client_leave_places_to_others() {
        let waiters = Waiters::new(4);
        let _first = waiters.enter(Some(client("192.0.2.1"))).unwrap();
        assert!(waiters.enter(Some(client("192.0.2.1"))).is_none());
        assert!(waiters.enter(Some(client("::ffff:192.0.2.1"))).is_none(), "the same address, mapped");
        let _second = waiters.enter(Some(client("192.0.2.2"))).unwrap();
        let _third = waiters.enter(Some(client("2001:db8::1"))).unwrap();
        assert!(waiters.enter(Some(client("2001:db8::2"))).is_none(), "the same network of a client");
        assert!(waiters.enter(Some(client("2001:db8:0:1::1"))).is_some());
    }

    #[test]
    fn waiters_of_few_connections_have_one_place() {
        let waiters = Waiters::new(1);
        let place = waiters.enter(None);
        assert!(place.is_some() && waiters.enter(None).is_none());
    }
}
