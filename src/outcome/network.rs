//! Findings of the network check: answers of name servers, and addresses that failed.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::time::seconds;

named! {
    /// Failure of a DNS lookup.
    LookupFailure {
        /// NXDOMAIN.
        NoSuchName = "nxdomain",
        /// The name exists, but has no address.
        NoAddress = "no_address",
        /// SERVFAIL.
        ServerFailure = "servfail",
        /// REFUSED.
        Refused = "refused",
        /// No server answered in time.
        NoAnswer = "no_answer",
        /// No server is configured.
        NoServer = "no_server",
        /// The response is malformed.
        Garbled = "garbled",
        /// The prober lacks descriptors or memory.
        OutOfResources = "out_of_resources",
    }
}

named! {
    /// Failure to connect to an address.
    AddressFailure {
        /// Nothing listens there, or a firewall rejects connections.
        Refused = "refused",
        /// No route to the address.
        Unreachable = "unreachable",
        /// Forbidden by this machine, for example by a firewall.
        Forbidden = "forbidden",
        /// No answer before another address connected, or before the deadline.
        NoAnswer = "no_answer",
        /// The connection was reset immediately.
        Reset = "reset",
        /// The prober lacks descriptors, memory or local ports.
        OutOfResources = "out_of_resources",
        /// Anything else.
        Other = "other",
    }
}

/// Answer of one name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsServer {
    /// `system`, or a configured address.
    pub server: String,
    /// Addresses, or the failure.
    pub answer: Result<Vec<IpAddr>, LookupFailure>,
    /// Duration of the lookup.
    pub duration: Duration,
}

impl DnsServer {
    /// Name of the system's resolver.
    pub const SYSTEM: &str = "system";

    /// Returns whether the server returned an address.
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

/// An address of the target or of the proxy that could not be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FailedAddress {
    /// The address.
    pub address: IpAddr,
    /// The failure.
    pub error: AddressFailure,
}

/// Findings of the network check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Answers of the C library, then of the system's name servers if it failed or was slow, then
    /// of the configured servers. Empty if nothing was looked up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<DnsServer>,
}

impl Network {
    /// Returns the first server that resolves the name if the system's resolver does not.
    pub fn answers_instead(&self) -> Option<&str> {
        let (system, others) = self.dns_servers.split_first()?;
        let other = others.iter().find(|other| other.ok())?;
        (!system.ok()).then_some(&*other.server)
    }
}
