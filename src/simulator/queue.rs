//! A listener whose queue is full, so that connecting to it times out, as with a firewall that
//! drops packets.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A loopback listener with a full queue of connections: further attempts get no answer until it is
/// dropped. Linux drops such SYN packets, and the client repeats them until its deadline.
pub struct FullListener {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl FullListener {
    /// Listens on a free port and fills the queue. Must be called within a tokio runtime.
    pub async fn start() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut waiting = Vec::new();
        // A queue of one holds two connections. An attempt without an answer shows that it is full;
        // sixteen are never reached.
        for _ in 0..16 {
            match tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
                Ok(stream) => waiting.push(stream?),
                Err(_) => return Ok(Self { address, _listener: listener, _waiting: waiting }),
            }
        }
        Err(io::Error::other("the system keeps accepting beyond the queue's length"))
    }

    /// Returns the address, which does not answer.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_gets_no_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let full = runtime.block_on(FullListener::start()).unwrap();
        let outcome = std::net::TcpStream::connect_timeout(&full.address(), Duration::from_millis(100));
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
