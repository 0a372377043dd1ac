//! TCP connections: every address of a name, as RFC 8305 has clients try them.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::{net::TcpStream, time::sleep};

use super::failure::is_local_shortage;
use crate::outcome::{AddressFailure, FailedAddress};

/// Delay of an attempt before the next address is tried beside it (RFC 8305, 8: Connection
/// Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// `EADDRNOTAVAIL` of errno(3) on Linux.
const ADDRESS_NOT_AVAILABLE: i32 = 99;

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// The addresses that failed. It is kept outside the future that a deadline drops.
#[derive(Debug, Default)]
pub(super) struct Dialer {
    /// In the order in which they failed.
    failed: Vec<FailedAddress>,
    /// Attempts that have not ended.
    pending: Vec<IpAddr>,
}

/// Cause of a missing connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// This machine has no IPv6 address, and the host has no IPv4 address.
    NoIpv6,
    /// The error of the last attempt; of attempts that failed for lack of resources on this machine
    /// another one's.
    Io(io::Error),
}

impl Dialer {
    /// Returns a connection to the first address that answers. They are tried in this order.
    pub(super) async fn dial(&mut self, addresses: Vec<SocketAddr>) -> Result<TcpStream, DialError> {
        let mut rest = addresses.into_iter();
        // Dropping it ends the attempts that are still pending.
        let mut attempts: Vec<(SocketAddr, Attempt)> = Vec::new();
        let mut error = None;
        loop {
            if let Some(address) = rest.next() {
                self.pending.push(address.ip());
                attempts.push((address, Box::pin(TcpStream::connect(address))));
            } else if attempts.is_empty() {
                return Err(error.unwrap_or(DialError::Io(io::ErrorKind::AddrNotAvailable.into())));
            }
            let ended = tokio::select! {
                ended = first_ended(&mut attempts) => ended,
                () = sleep(ATTEMPT_DELAY), if rest.len() > 0 => continue,
            };
            let (address, result) = ended;
            let turn = self.pending.iter().position(|other| *other == address.ip()).unwrap_or_default();
            match result {
                Ok(stream) => {
                    // Addresses tried earlier had their time; those tried later did not, and have
                    // not failed.
                    self.pending.truncate(turn);
                    return Ok(stream);
                }
                Err(cause) => {
                    self.pending.remove(turn);
                    let cause = dial_error(address, cause);
                    self.failed.push(FailedAddress { address: address.ip(), error: address_failure(&cause) });
                    error = Some(more_specific(error, cause));
                }
            }
        }
    }

    /// Returns the addresses that failed, and those that had not answered when a later one did, or
    /// at the deadline.
    pub(super) fn into_failed(mut self) -> Vec<FailedAddress> {
        let unanswered = self.pending.into_iter();
        self.failed
            .extend(unanswered.map(|address| FailedAddress { address, error: AddressFailure::NoAnswer }));
        self.failed
    }
}

/// Waits for the first attempt that ends, and removes it.
async fn first_ended(attempts: &mut Vec<(SocketAddr, Attempt)>) -> (SocketAddr, io::Result<TcpStream>) {
    poll_fn(|cx| {
        for index in 0..attempts.len() {
            if let Poll::Ready(result) = pin!(&mut attempts[index].1).poll(cx) {
                let (address, _) = attempts.remove(index);
                return Poll::Ready((address, result));
            }
        }
        Poll::Pending
    })
    .await
}

/// Classifies an error. If IPv6 is disabled, Linux has no source address for any IPv6 destination.
/// Otherwise the same error means that all local ports to this destination are in use.
fn dial_error(address: SocketAddr, cause: io::Error) -> DialError {
    match cause.raw_os_error() {
        Some(ADDRESS_NOT_AVAILABLE) if address.is_ipv6() && !has_source(address) => DialError::NoIpv6,
        _ => DialError::Io(cause),
    }
}

/// Returns whether this machine has an address from which it can send to an IPv6 destination. A
/// datagram socket shows that without a packet, and its ports are not those of TCP.
fn has_source(destination: SocketAddr) -> bool {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    socket.and_then(|socket| socket.connect(destination)).is_ok()
}

/// Returns the error that explains more: not the lack of IPv6 if another address failed.
fn more_specific(earlier: Option<DialError>, later: DialError) -> DialError {
    match (earlier, later) {
        (Some(earlier), DialError::NoIpv6) => earlier,
        (Some(earlier @ DialError::Io(_)), DialError::Io(later)) if is_local_shortage(&later) => earlier,
        (_, later) => later,
    }
}

fn address_failure(error: &DialError) -> AddressFailure {
    let DialError::Io(error) = error else { return AddressFailure::Unreachable };
    match error.kind() {
        _ if is_local_shortage(error) => AddressFailure::OutOfResources,
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
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn addresses(written: &[&str], port: u16) -> Vec<SocketAddr> {
        written.iter().map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect()
    }

    /// Dials these addresses, and returns the one that answered and those that failed.
    async fn dial(given: &[&str], port: u16) -> (Result<SocketAddr, DialError>, Vec<FailedAddress>) {
        let mut dialer = Dialer::default();
        let reached = dialer.dial(addresses(given, port)).await;
        (reached.map(|stream| stream.peer_addr().unwrap()), dialer.into_failed())
    }

    fn failed(address: &str, error: AddressFailure) -> FailedAddress {
        FailedAddress { address: address.parse().unwrap(), error }
    }

    #[tokio::test]
    async fn refused_address_is_followed_by_the_next_at_once() {
        let listener = TcpListener::bind("127.0.0.3:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reached, refused) = dial(&["127.0.0.2", "127.0.0.3", "127.0.0.4"], address.port()).await;
        assert_eq!(reached.unwrap(), address);
        assert_eq!(refused, [failed("127.0.0.2", AddressFailure::Refused)]);
        drop(listener);
        let (reached, refused) = dial(&["127.0.0.2", "127.0.0.4"], address.port()).await;
        let DialError::Io(error) = reached.unwrap_err() else { panic!("{refused:?}") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(refused.len(), 2);
        assert!(dial(&[], 1).await.0.is_err());
    }

    /// Returns a listener on 127.0.0.1 whose queue is full, with the connections in it: Linux drops
    /// a further attempt.
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
    async fn silent_address_delays_the_next_briefly_and_is_reported() {
        let (silent, _waiting) = full().await;
        let port = silent.local_addr().unwrap().port();
        let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let (reached, failures) = dial(&["127.0.0.1", "127.0.0.2", "127.0.0.3"], port).await;
        assert_eq!(reached.unwrap(), listener.local_addr().unwrap());
        assert_eq!(failures, [failed("127.0.0.1", AddressFailure::NoAnswer)]);

        let mut dialer = Dialer::default();
        let in_vain = dialer.dial(addresses(&["127.0.0.1"], port));
        assert!(tokio::time::timeout(Duration::from_millis(50), in_vain).await.is_err());
        assert_eq!(dialer.into_failed(), [failed("127.0.0.1", AddressFailure::NoAnswer)]);
    }

    #[test]
    fn missing_ipv6_is_not_a_lack_of_ports() {
        let error = || io::Error::from_raw_os_error(ADDRESS_NOT_AVAILABLE);
        // No address of this machine can be the source for one of a link that there is not.
        let [four, six] = ["192.0.2.1:1", "[fe80::1%4000000000]:1"].map(|address| address.parse().unwrap());
        assert!(matches!(dial_error(six, error()), DialError::NoIpv6));
        let DialError::Io(ports) = dial_error(four, error()) else { panic!("of IPv4 it is") };
        assert!(is_local_shortage(&ports));
        let refused = DialError::Io(io::ErrorKind::ConnectionRefused.into());
        assert!(matches!(more_specific(Some(refused), DialError::NoIpv6), DialError::Io(_)));
        let refused = DialError::Io(io::ErrorKind::ConnectionRefused.into());
        assert!(matches!(more_specific(Some(DialError::NoIpv6), refused), DialError::Io(_)));
    }
}
