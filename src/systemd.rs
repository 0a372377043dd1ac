//! Notifications to systemd (`sd_notify(3)`), sent by a thread because the socket can block.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::mpsc::{self, SyncSender},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;

/// Maximum number of queued messages. The queue is full only if systemd does not read them.
const QUEUE_CAPACITY: usize = 16;

/// Sends notifications to systemd; does nothing if the process was not started by systemd.
#[derive(Debug)]
pub struct Notifier {
    messages: Option<SyncSender<Message>>,
}

#[derive(Debug)]
enum Message {
    Send(String),
    /// Dropping the sender reports that all earlier messages were sent.
    Flush(#[expect(dead_code, reason = "held to be dropped")] SyncSender<()>),
}

impl Notifier {
    /// Starts the thread. `notify_socket` is the value of `NOTIFY_SOCKET`; without one, all
    /// notifications do nothing.
    pub fn start(notify_socket: Option<OsString>) -> io::Result<Self> {
        let Some(address) = notify_socket.filter(|address| !address.is_empty()) else {
            return Ok(Self { messages: None });
        };
        let (sender, messages) = mpsc::sync_channel(QUEUE_CAPACITY);
        thread::Builder::new().name("systemd".to_owned()).spawn(move || {
            for message in messages {
                if let Message::Send(text) = message
                    && let Err(error) = send(&address, &text)
                {
                    tracing::warn!(%error, "Failed to notify systemd");
                }
            }
        })?;
        Ok(Self { messages: Some(sender) })
    }

    /// Reports that the service is up, or that a reload has ended.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// Sets the status line of `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&[NotifyState::Status(&one_line(text))]);
    }

    /// Reports the beginning of a reload. [`Notifier::ready`] ends it, successful or not.
    pub fn reloading(&self) {
        // One message: systemd 253 and later kills a service that sends RELOADING without the time.
        let now = NotifyState::monotonic_usec_now().expect("every Linux has a monotonic clock");
        self.send(&[NotifyState::Reloading, now]);
    }

    /// Reports that the service is stopping.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// Reports that the service is alive.
    pub fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Waits until all earlier notifications are sent, until the deadline at the latest.
    pub fn flush(&self, deadline: Duration) {
        let (sender, flushed) = mpsc::sync_channel(0);
        if let Some(messages) = &self.messages
            && messages.try_send(Message::Flush(sender)).is_ok()
        {
            // The receiver fails when the sender is dropped. A full queue is not worth waiting for.
            let _ = flushed.recv_timeout(deadline);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if let Some(messages) = &self.messages {
            let text = states.iter().fold(String::new(), |mut text, state| {
                let _ = writeln!(text, "{state}");
                text
            });
            // A full queue means that systemd has not read for a while and does not need this
            // message.
            let _ = messages.try_send(Message::Send(text));
        }
    }
}

/// Returns how often to call [`Notifier::watchdog`]: half of the watchdog timeout, as
/// `sd_watchdog_enabled(3)` recommends. The arguments are the values of `WATCHDOG_USEC` and
/// `WATCHDOG_PID`. Returns `None` if there is no watchdog, or if it is for another process.
pub fn watchdog_interval(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|&usec| usec > 0)?;
    match pid {
        Some(pid) if pid.parse() != Ok(process::id()) => None,
        _ => Some(Duration::from_micros(usec) / 2),
    }
}

/// Sends one datagram. `sd_notify::notify` reads the environment and does not support abstract
/// sockets.
fn send(address: &OsStr, text: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

/// Replaces control characters, because a newline would start another assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a socket like systemd's, and a notifier that sends to it.
    fn pair(address: &SocketAddr, name: &OsStr) -> (UnixDatagram, Notifier) {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (socket, Notifier::start(Some(name.to_owned())).unwrap())
    }

    #[track_caller]
    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).expect("a message is under way");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_notification_is_one_message() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let (socket, notifier) = pair(&SocketAddr::from_pathname(&path).unwrap(), path.as_os_str());
        notifier.ready("3 probes");
        assert_eq!(receive(&socket), "READY=1\nSTATUS=3 probes\n");
        notifier.status("two\nlines\nREADY=1");
        assert_eq!(receive(&socket), "STATUS=two lines READY=1\n");
        notifier.watchdog();
        assert_eq!(receive(&socket), "WATCHDOG=1\n");
        notifier.stopping("draining");
        assert_eq!(receive(&socket), "STOPPING=1\nSTATUS=draining\n");

        notifier.reloading();
        let message = receive(&socket);
        let usec =
            message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n'));
        let sent: i64 = usec.and_then(|usec| usec.parse().ok()).expect(&message);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let age = now.tv_sec * 1_000_000 + now.tv_nsec / 1000 - sent;
        assert!((0..60_000_000).contains(&age), "{message} is {age} microseconds old");
    }

    #[test]
    fn abstract_socket_is_supported() {
        let name = format!("langmart-prober-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let (socket, notifier) = pair(&address, OsStr::new(&format!("@{name}")));
        notifier.ready("up");
        assert_eq!(receive(&socket), "READY=1\nSTATUS=up\n");
    }

    #[test]
    fn flush_returns_after_messages_are_sent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let (socket, notifier) = pair(&SocketAddr::from_pathname(&path).unwrap(), path.as_os_str());
        notifier.stopping("bye");
        notifier.flush(Duration::from_secs(60));
        socket.set_nonblocking(true).unwrap();
        assert_eq!(receive(&socket), "STOPPING=1\nSTATUS=bye\n");
    }

    #[test]
    fn socket_that_is_not_read_does_not_block() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let (_socket, notifier) = pair(&SocketAddr::from_pathname(&path).unwrap(), path.as_os_str());
        // Far more than the socket and the queue hold; a blocking call would never return.
        for _ in 0..10_000 {
            notifier.watchdog();
        }
        notifier.flush(Duration::from_millis(1));
    }

    #[test]
    fn notifier_without_systemd_does_nothing() {
        for socket in [None, Some(OsString::new())] {
            let notifier = Notifier::start(socket).unwrap();
            assert!(notifier.messages.is_none());
            notifier.ready("up");
            notifier.flush(Duration::from_secs(60));
        }
    }

    #[test]
    fn watchdog_interval_is_half_of_the_timeout() {
        #[track_caller]
        fn check(usec: Option<&str>, pid: Option<&str>, expected: Option<Duration>) {
            assert_eq!(watchdog_interval(usec, pid), expected, "{usec:?} {pid:?}");
        }
        let own = process::id().to_string();
        let half = Some(Duration::from_secs(15));
        check(Some("30000000"), None, half);
        check(Some("30000000"), Some(&own), half);
        check(Some("30000000"), Some("1"), None);
        check(Some("30000000"), Some("x"), None);
        check(Some("0"), None, None);
        check(Some("x"), None, None);
        check(None, Some(&own), None);
    }
}
