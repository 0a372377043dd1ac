//! What the network check finds beside its verdict: which name servers answer, which addresses do not.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::time::seconds;

named! {
    /// Why a name server gave no address.
    LookupFailure {
        /// NXDOMAIN.
        NoSuchName = "nxdomain",
        /// The name exists, without an address.
        NoAddress = "no_address",
        /// SERVFAIL.
        ServerFailure = "servfail",
        /// REFUSED.
        Refused = "refused",
        /// No server answered in time.
        NoAnswer = "no_answer",
        /// There is no server that could be asked.
        NoServer = "no_server",
        /// An answer that is none.
        Garbled = "garbled",
        /// Our own side: descriptors, memory.
        OutOfResources = "out_of_resources",
    }
}

named! {
    /// Why there was no connection to an address.
    AddressFailure {
        /// Nobody listens there, or a firewall says so.
        Refused = "refused",
        /// No way there.
        Unreachable = "unreachable",
        /// This machine does not let us.
        Forbidden = "forbidden",
        /// Not before another address answered that was tried after it, or not before the deadline.
        NoAnswer = "no_answer",
        /// The connection was reset at once.
        Reset = "reset",
        /// Our own side: descriptors, memory, local ports.
        OutOfResources = "out_of_resources",
        /// Anything else.
        Other = "other",
    }
}

/// What one name server said of the name that the run looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsServer {
    /// `system`, or an address as configured.
    pub server: String,
    /// What it answered.
    pub answer: Result<Vec<IpAddr>, LookupFailure>,
    /// How long it took.
    pub duration: Duration,
}

impl DnsServer {
    /// The name of the system's resolver among the servers.
    pub const SYSTEM: &str = "system";

    /// Whether it gave an address.
    pub const fn ok(&self) -> bool {
        self.answer.is_ok()
    }
}

impl Serialize for DnsServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { server, answer, duration } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("server", server)?;
        map.serialize_entry("ok", &answer.is_ok())?;
        match answer {
            Ok(addresses) => map.serialize_entry("addresses", addresses)?,
            Err(failure) => map.serialize_entry("error", failure)?,
        }
        map.serialize_entry("duration_seconds", &seconds(*duration))?;
        map.end()
    }
}

/// An address of the target, or of the proxy, that no connection was made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FailedAddress {
    /// The address.
    pub address: IpAddr,
    /// Why not.
    pub error: AddressFailure,
}

/// What only the network check finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The C library's answer first, then those of the system's name servers if it failed or was slow, then those of the
    /// configuration; empty where nothing was looked up.
    pub dns_servers: Vec<DnsServer>,
}

impl Network {
    /// A server that knows the name while the system's resolver does not.
    pub fn answers_instead(&self) -> Option<&str> {
        let (system, others) = self.dns_servers.split_first()?;
        let other = others.iter().find(|other| other.ok())?;
        (!system.ok()).then_some(&*other.server)
    }
}
