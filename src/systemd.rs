//! Tells systemd how the service is (`sd_notify(3)`), from a thread of its own, since its socket can block.

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

/// How many messages wait at most. More means that systemd does not read, and the next one would say no more.
const CAPACITY: usize = 16;

/// The way to systemd, or nothing at all where there is none.
#[derive(Debug)]
pub struct Notifier {
    messages: Option<SyncSender<Message>>,
}

#[derive(Debug)]
enum Message {
    Send(String),
    /// Dropping the sender tells that everything before it was sent.
    Flush(#[expect(dead_code, reason = "held to be dropped")] SyncSender<()>),
}

impl Notifier {
    /// Starts the thread, given the value of `NOTIFY_SOCKET`; `None`: not started by systemd, and every notification
    /// does nothing.
    pub fn start(notify_socket: Option<OsString>) -> io::Result<Self> {
        let Some(address) = notify_socket.filter(|address| !address.is_empty()) else {
            return Ok(Self { messages: None });
        };
        let (sender, messages) = mpsc::sync_channel(CAPACITY);
        thread::Builder::new().name("systemd".to_owned()).spawn(move || {
            for message in messages {
                if let Message::Send(text) = message
                    && let Err(error) = send(&address, &text)
                {
                    tracing::warn!(%error, "Systemd cannot be notified");
                }
            }
        })?;
        Ok(Self { messages: Some(sender) })
    }

    /// The service is up, or a reload is over.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// What `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.send(&[NotifyState::Status(&one_line(text))]);
    }

    /// A reload begins; [`Notifier::ready`] ends it, whether it succeeded or not.
    pub fn reloading(&self) {
        // One message: systemd 253 and later kills a service whose RELOADING comes without the time.
        let now = NotifyState::monotonic_usec_now().expect("every Linux has a monotonic clock");
        self.send(&[NotifyState::Reloading, now]);
    }

    /// The service begins to stop.
    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// The service is alive.
    pub fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Waits until what was notified is sent, at most until the deadline.
    pub fn flush(&self, deadline: Duration) {
        let (sender, flushed) = mpsc::sync_channel(0);
        if let Some(messages) = &self.messages
            && messages.try_send(Message::Flush(sender)).is_ok()
        {
            // Ends with the sender's drop; on a full queue there is nothing worth waiting for.
            let _ = flushed.recv_timeout(deadline);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if let Some(messages) = &self.messages {
            let text = states.iter().fold(String::new(), |mut text, state| {
                let _ = writeln!(text, "{state}");
                text
            });
            // On a full queue systemd has not read for long, and will not miss this one.
            let _ = messages.try_send(Message::Send(text));
        }
    }
}

/// How often to call [`Notifier::watchdog`]: half of what systemd allows, as `sd_watchdog_enabled(3)` recommends, given
/// the values of `WATCHDOG_USEC` and `WATCHDOG_PID`. `None`: there is no watchdog, or not for this process.
pub fn watchdog_interval(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|&usec| usec > 0)?;
    match pid {
        Some(pid) if pid.parse() != Ok(process::id()) => None,
        _ => Some(Duration::from_micros(usec) / 2),
    }
}

/// Not by `sd_notify::notify`, which reads the environment and knows no abstract sockets.
fn send(address: &OsStr, text: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

/// A newline would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket as systemd has it, and a notifier to it.
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
        let told: i64 = usec.and_then(|usec| usec.parse().ok()).expect(&message);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let age = now.tv_sec * 1_000_000 + now.tv_nsec / 1000 - told;
        assert!((0..60_000_000).contains(&age), "{message} is {age} microseconds old");
    }

    #[test]
    fn abstract_sockets_are_known() {
        let name = format!("langmart-prober-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let (socket, notifier) = pair(&address, OsStr::new(&format!("@{name}")));
        notifier.ready("up");
        assert_eq!(receive(&socket), "READY=1\nSTATUS=up\n");
    }

    #[test]
    fn what_was_notified_is_sent_when_flush_returns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let (socket, notifier) = pair(&SocketAddr::from_pathname(&path).unwrap(), path.as_os_str());
        notifier.stopping("bye");
        notifier.flush(Duration::from_secs(60));
        socket.set_nonblocking(true).unwrap();
        assert_eq!(receive(&socket), "STOPPING=1\nSTATUS=bye\n");
    }

    #[test]
    fn a_systemd_that_does_not_read_blocks_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let (_socket, notifier) = pair(&SocketAddr::from_pathname(&path).unwrap(), path.as_os_str());
        // Far more than its socket and our queue hold; a call that blocked would never return.
        for _ in 0..10_000 {
            notifier.watchdog();
        }
        notifier.flush(Duration::from_millis(1));
    }

    #[test]
    fn without_systemd_nothing_happens() {
        for socket in [None, Some(OsString::new())] {
            let notifier = Notifier::start(socket).unwrap();
            assert!(notifier.messages.is_none());
            notifier.ready("up");
            notifier.flush(Duration::from_secs(60));
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time() {
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
