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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;

    fn addresses(written: &[&str]) -> Vec<IpAddr> {
        written.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[track_caller]
    fn check(given: &[&str], expected: &[&str]) {
        assert_eq!(alternating(addresses(given)), addresses(expected));
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        check(&[], &[]);
        check(&["192.0.2.1", "192.0.2.2"], &["192.0.2.1", "192.0.2.2"]);
        check(&["::1", "::2", "::3", "192.0.2.1"], &["::1", "192.0.2.1", "::2", "::3"]);
        check(&["192.0.2.1", "::1", "192.0.2.2", "::2"], &["192.0.2.1", "::1", "192.0.2.2", "::2"]);
    }

    /// Dials these addresses, and tells whom it reached and who failed.
    async fn dial(given: &[&str], port: u16) -> (io::Result<SocketAddr>, Vec<FailedAddress>) {
        let mut dialled = Dialled::default();
        let reached = dialled.dial(addresses(given), port).await.and_then(|stream| stream.peer_addr());
        (reached, dialled.into_failed())
    }

    fn failed(address: &str, error: AddressFailure) -> FailedAddress {
        FailedAddress { address: address.parse().unwrap(), error }
    }

    #[tokio::test]
    async fn a_refusal_lets_the_next_one_try_at_once() {
        let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reached, refused) = dial(&["127.0.0.2", "127.0.0.3", "127.0.0.4"], address.port()).await;
        assert_eq!(reached.unwrap(), address);
        assert_eq!(refused, [failed("127.0.0.2", AddressFailure::Refused)]);
        drop(listener);
        let (reached, refused) = dial(&["127.0.0.2", "127.0.0.4"], address.port()).await;
        assert_eq!(reached.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(refused.len(), 2);
        assert!(dial(&[], 1).await.0.is_err());
    }

    /// A listener on 127.0.0.1 whose queue is full, with those who wait in it: Linux drops a further attempt.
    async fn full() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await
        {
            waiting.push(stream.unwrap());
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn who_does_not_answer_holds_nobody_up_and_is_told() {
        let (silent, _waiting) = full().await;
        let port = silent.local_addr().unwrap().port();
        let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let (reached, failures) = dial(&["127.0.0.1", "127.0.0.2", "127.0.0.3"], port).await;
        assert_eq!(reached.unwrap(), listener.local_addr().unwrap());
        assert_eq!(failures, [failed("127.0.0.1", AddressFailure::NoAnswer)]);

        let mut dialled = Dialled::default();
        let in_vain = dialled.dial(addresses(&["127.0.0.1"]), port);
        assert!(tokio::time::timeout(Duration::from_millis(50), in_vain).await.is_err());
        assert_eq!(dialled.into_failed(), [failed("127.0.0.1", AddressFailure::NoAnswer)]);
    }
}
