//! Why the daemon could not start or had to end, and how that is said.

use std::{env, fmt, io, net::SocketAddr};

use crate::{config::Problems, logging};

/// Why the daemon could not start, or had to end.
#[derive(Debug)]
pub enum Fatal {
    /// The configuration has problems.
    Configuration(Problems),
    /// Anything else, said in full.
    Other(String),
    /// It is said in the log, which standard error shows.
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
    /// Says it on standard error, given as `err`, unless the log has said it there: no line is twice in the journal, where
    /// each is an error. Whoever closed standard error is not told, and gets the exit status all the same.
    pub fn tell(&self, err: &mut impl io::Write) {
        if matches!(self, Self::Logged) {
            return;
        }
        let priority = if surroundings().journal { "<3>" } else { "" };
        for line in self.to_string().lines() {
            let _ = writeln!(err, "{priority}{line}");
        }
    }

    /// A step of the start that failed, whose name comes first in what is said.
    pub(super) fn other(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Other(format!("{what}: {error}"))
    }

    /// The address cannot be listened on, and what to do about it.
    pub(super) fn cannot_listen(listen: SocketAddr, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process has it (ss -ltnp shows which); end that one or set another server.listen"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address; set another server.listen",
            io::ErrorKind::PermissionDenied => {
                "this user may not; set a server.listen with a port of 1024 or more"
            }
            _ => "set another server.listen",
        };
        Self::Other(format!("cannot listen on {listen}: {error}; {remedy}"))
    }
}

/// What standard error is.
pub(super) fn surroundings() -> logging::Surroundings {
    logging::Surroundings::of_standard_error(
        env::var_os("JOURNAL_STREAM").as_deref(),
        env::var_os("NO_COLOR").as_deref(),
    )
}
