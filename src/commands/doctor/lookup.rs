//! Who answers for names on this machine: what the C library says, and whom the prober asks.

use std::{fs, io, net::IpAddr, time::Duration};

/// What the C library has to say before it is left alone; its own patience may be longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Addresses of an answer that are looked at.
const MOST_ADDRESSES: usize = 16;

/// What getaddrinfo says of a name, which is what `nsswitch.conf` makes of it and most programs of this machine see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SystemAnswer {
    Addresses(Vec<IpAddr>),
    Nothing,
    NoAnswer,
}

/// Asks getaddrinfo, on a thread of its own.
pub(super) async fn system_answer(host: &str) -> SystemAnswer {
    let lookup = tokio::net::lookup_host((host, 0));
    match tokio::time::timeout(PATIENCE, lookup).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.map(|address| address.ip()).take(MOST_ADDRESSES) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            SystemAnswer::Addresses(addresses)
        }
        Ok(Err(_)) => SystemAnswer::Nothing,
        Err(_) => SystemAnswer::NoAnswer,
    }
}

/// The servers of `/etc/resolv.conf`, which the prober asks after the hosts file.
pub(super) fn name_servers() -> Vec<IpAddr> {
    name_servers_of(&read().unwrap_or_default())
}

fn read() -> io::Result<String> {
    fs::read_to_string("/etc/resolv.conf")
}

fn name_servers_of(resolv_conf: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        // A link-local address may name its interface.
        (words.next()? == "nameserver").then(|| words.next()?.split('%').next()?.parse().ok())?
    };
    // resolv.conf(5): three are read.
    resolv_conf.lines().filter_map(address).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_are_those_of_the_file() {
        let text =
            "# nameserver 192.0.2.9\nsearch x\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver\n";
        let servers: Vec<String> = name_servers_of(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1", "fe80::1"]);
    }
}
