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
