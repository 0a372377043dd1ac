//! TCP connections of the network check: every address of a name, as a client would try them.

use std::{io, net::IpAddr, time::Duration};

use tokio::{net::TcpStream, task::JoinSet, time::sleep};

use super::failure::is_our_own;
use crate::outcome::{AddressFailure, FailedAddress};

/// How long an address has before the next one is tried beside it (RFC 8305, 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// How the addresses fared. It is kept outside the future that a deadline drops.
#[derive(Debug, Default)]
pub(super) struct Dialled {
    /// In the order in which they failed.
    failed: Vec<FailedAddress>,
    /// Tried and not answered yet.
    unanswered: Vec<IpAddr>,
}

impl Dialled {
    /// A connection to the first address that answers, or why the last one did not.
    pub(super) async fn dial(&mut self, addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
        let mut rest = alternating(addresses).into_iter();
        // Dropped, it ends the attempts that are still under way.
        let mut attempts = JoinSet::new();
        let mut begin = |attempts: &mut JoinSet<_>, unanswered: &mut Vec<IpAddr>| {
            if let Some(address) = rest.next() {
                unanswered.push(address);
                attempts.spawn(async move { (address, TcpStream::connect((address, port)).await) });
            }
            rest.len() > 0
        };
        let mut more = begin(&mut attempts, &mut self.unanswered);
        let mut worst = None;
        loop {
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = sleep(HEAD_START), if more => {
                    more = begin(&mut attempts, &mut self.unanswered);
                    continue;
                }
            };
            let Some(ended) = ended else { break };
            let (address, result) = ended.map_err(io::Error::other)?;
            let turn = self.unanswered.iter().position(|other| *other == address).unwrap_or_default();
            match result {
                Ok(stream) => {
                    // Whoever was asked before has had the head start, and whoever was asked after has not.
                    self.unanswered.truncate(turn);
                    return Ok(stream);
                }
                Err(error) => {
                    self.unanswered.remove(turn);
                    self.failed.push(FailedAddress { address, error: address_failure(&error) });
                    // An IPv6 address without a way there looks like a lack of local addresses, which is ours.
                    if worst.is_none() || !is_our_own(&error) {
                        worst = Some(error);
                    }
                    more = begin(&mut attempts, &mut self.unanswered);
                }
            }
        }
        Err(worst.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
    }

    /// The addresses that failed, those among them that had not answered when one that was asked later did, or at the
    /// deadline.
    pub(super) fn into_failed(mut self) -> Vec<FailedAddress> {
        let late = self.unanswered.into_iter();
        self.failed.extend(late.map(|address| FailedAddress { address, error: AddressFailure::NoAnswer }));
        self.failed
    }
}

/// The addresses with their families taking turns, the first one's family first (RFC 8305, 4): a family that leads
/// nowhere costs one head start.
fn alternating(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (one, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        turns.extend(one.next());
        turns.extend(other.next());
        if turns.len() == before {
            return turns;
        }
    }
}

fn address_failure(error: &io::Error) -> AddressFailure {
    match error.kind() {
        _ if is_our_own(error) => AddressFailure::OutOfResources,
        io::ErrorKind::ConnectionRefused => AddressFailure::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => AddressFailure::Unreachable,
        io::ErrorKind::PermissionDenied => AddressFailure::Forbidden,
        io::ErrorKind::TimedOut => AddressFailure::NoAnswer,
        io::ErrorKind::ConnectionReset => AddressFailure::Reset,
        _ => AddressFailure::Other,
    }
}
