//! The error that ends the daemon, and how it is printed.

use std::{env, fmt, io, net::SocketAddr};

use crate::{config::Problems, logging};

/// The reason why the daemon could not start or had to end.
#[derive(Debug)]
pub enum Fatal {
    /// The configuration has problems.
    Configuration(Problems),
    /// Any other error, with its complete text.
    Other(String),
    /// An error that the log has already printed to standard error.
    Logged,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => problems.fmt(f),
            Self::Other(what) => f.write_str(what),
            Self::Logged => f.write_str("see the log"),
        }
    }
}

impl Fatal {
    /// Prints the error to `err`, which is standard error, unless the log has printed it there: the
    /// journal would show it twice. Write errors are ignored.
    pub fn print(&self, err: &mut impl io::Write) {
        if matches!(self, Self::Logged) {
            return;
        }
        let priority = if surroundings().journal { "<3>" } else { "" };
        for line in self.to_string().lines() {
            let _ = writeln!(err, "{priority}{line}");
        }
    }

    /// Returns a function that makes an I/O error fatal. The text begins with `what`.
    pub(super) fn other(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Other(format!("{what}: {error}"))
    }

    /// Returns the error of a listener that cannot bind its address, with a remedy.
    pub(super) fn cannot_listen(listen: SocketAddr, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => "find the process with ss -ltnp, and stop it or change server.listen",
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address; change server.listen"
            }
            io::ErrorKind::PermissionDenied => {
                "this user may not use the port; use a port of 1024 or more in server.listen"
            }
            _ => "change server.listen",
        };
        Self::Other(format!("cannot listen on {listen}: {error}; {remedy}"))
    }
}

/// Returns how standard error is connected.
pub(super) fn surroundings() -> logging::StderrKind {
    logging::StderrKind::detect(env::var_os("JOURNAL_STREAM").as_deref(), env::var_os("NO_COLOR").as_deref())
}
