//! A listener that no longer takes anybody: connecting to it hangs, as it does where a firewall drops packets.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A loopback listener whose queue of waiting connections is full, so that a further connection attempt gets no answer
/// until it is dropped. Linux drops such SYN packets, and the client repeats them until its own deadline.
pub struct FullListener {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl FullListener {
    /// Listens on a free port and fills the queue. To be called within a tokio runtime.
    pub async fn start() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut waiting = Vec::new();
        // A queue of one takes two. The attempt that hangs tells that it is full; anything near sixteen would be news.
        for _ in 0..16 {
            match tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
                Ok(stream) => waiting.push(stream?),
                Err(_) => return Ok(Self { address, _listener: listener, _waiting: waiting }),
            }
        }
        Err(io::Error::other("the system keeps accepting beyond the queue's length"))
    }

    /// Where to connect in vain.
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
