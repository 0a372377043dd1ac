//! Tests of the hosts file and nsswitch.conf: a pinned name resolves to its pinned addresses only,
//! as with glibc and curl.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{
    host::{Ask, Host},
    script::good_listener,
    table::{Table, verdict_of},
    wait::wait_for,
};

/// Answers of the name server for every name: a machine that must not be contacted.
const ELSEWHERE: [&str; 2] = ["127.0.0.2", "::1"];

/// A name server that never answers.
const SILENT: &str = "127.0.0.52";

/// A hosts file, and the address that a name resolves to.
struct Case {
    name: &'static str,
    hosts: &'static str,
    nsswitch: &'static str,
    server: &'static str,
    host: &'static str,
    /// Addresses that may be connected to. Empty if the name has no address.
    to: &'static [&'static str],
}

const PINNED: Case = Case {
    name: "",
    hosts: "127.0.0.1 api.corp.test\n",
    nsswitch: "files dns",
    server: "127.0.0.53",
    host: "api.corp.test",
    to: &["127.0.0.1"],
};

const CASES: &[Case] = &[
    Case { name: "F5 pinned by IPv4, IPv6 in DNS", ..PINNED },
    Case { name: "A1 pinned, DNS is silent", server: SILENT, ..PINNED },
    Case { name: "F11 underscore", hosts: "127.0.0.1 llm_gateway\n", host: "llm_gateway", ..PINNED },
    Case {
        name: "F11 underscore in a domain",
        hosts: "127.0.0.1 a_b.corp.test\n",
        host: "a_b.corp.test",
        ..PINNED
    },
    Case { name: "pinned by IPv6, IPv4 in DNS", hosts: "::1 api.corp.test\n", to: &["::1"], ..PINNED },
    Case {
        name: "pinned by IPv6, DNS is silent",
        hosts: "::1 api.corp.test\n",
        server: SILENT,
        to: &["::1"],
        ..PINNED
    },
    Case { name: "pinned by an alias", hosts: "127.0.0.1 gateway api.corp.test # api\n", ..PINNED },
    Case { name: "pinned in capitals, tabs, spaces", hosts: "  127.0.0.1\t API.Corp.TEST\t\n", ..PINNED },
    Case { name: "last line without an end", hosts: "127.0.0.3 x\n127.0.0.1 api.corp.test", ..PINNED },
    Case { name: "lines that end with CR LF", hosts: "127.0.0.1 api.corp.test\r\n", ..PINNED },
    Case {
        name: "both families",
        hosts: "127.0.0.1 api.corp.test\n::1 api.corp.test\n",
        server: SILENT,
        to: &["127.0.0.1", "::1"],
        ..PINNED
    },
    Case {
        name: "two of a family, the first refuses",
        hosts: "127.0.0.3 api.corp.test\n127.0.0.1 api.corp.test\n",
        server: SILENT,
        ..PINNED
    },
    Case {
        name: "an IPv4 address in IPv6's form",
        hosts: "::ffff:127.0.0.1 api.corp.test\n",
        to: &["127.0.0.1", "::ffff:127.0.0.1"],
        ..PINNED
    },
    Case {
        name: "pinned in a comment is not pinned",
        hosts: "#127.0.0.1 api.corp.test\n",
        to: &ELSEWHERE,
        ..PINNED
    },
    Case {
        name: "pinned to no address is not pinned",
        hosts: "127.0.0.999 api.corp.test\n",
        to: &ELSEWHERE,
        ..PINNED
    },
    Case { name: "a name with a dot is another name", host: "api.corp.test.", to: &ELSEWHERE, ..PINNED },
    Case { name: "nsswitch: dns first", nsswitch: "dns files", to: &ELSEWHERE, ..PINNED },
    Case {
        name: "nsswitch: dns first, not there",
        nsswitch: "dns files",
        hosts: "127.0.0.1 gone.corp.test\n",
        host: "gone.corp.test",
        ..PINNED
    },
    Case { name: "nsswitch: files alone, pinned", nsswitch: "files", server: SILENT, ..PINNED },
    Case { name: "nsswitch: files alone, not pinned", nsswitch: "files", hosts: "", to: &[], ..PINNED },
    Case {
        name: "nsswitch: files end the lookup",
        nsswitch: "files [NOTFOUND=return] dns",
        hosts: "",
        to: &[],
        ..PINNED
    },
];

fn host() -> Option<Host> {
    let mut host = Host::new()?;
    let elsewhere = json!({ "A": [ELSEWHERE[0]], "AAAA": [ELSEWHERE[1]] });
    let names = json!({ "api.corp.test": elsewhere, "llm_gateway": elsewhere, "a_b.corp.test": elsewhere });
    host.name_servers(&json!({ "127.0.0.53": { "names": names }, SILENT: { "default": "silent" } }));
    host.servers(&json!([
        good_listener("pinned", "127.0.0.1:8080"),
        good_listener("elsewhere", "127.0.0.2:8080"),
        good_listener("six", "[::1]:8080"),
    ]));
    Some(host)
}

/// Returns the address of a record's connection.
fn remote(record: &Value) -> String {
    let address = record["remote_address"].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
    address.map_or_else(String::new, |address| address.ip().to_string())
}

#[test]
fn pinned_name_connects_to_pinned_addresses() {
    let Some(host) = host() else { return };
    let mut table = Table::default();
    for case in CASES {
        host.etc("hosts", case.hosts);
        host.etc("nsswitch.conf", &format!("hosts: {}\n", case.nsswitch));
        host.etc("resolv.conf", &format!("nameserver {}\n", case.server));
        let glibc = host.getaddrinfo(case.host, &[]);
        let url = format!("http://{}:8080/v1", case.host);
        let curl = host.curl(&[], &[], &url);
        let verdict = if case.to.is_empty() { "dns network" } else { "ok none" };
        let ask = Ask { url: &url, checks: &["network", "auth"], timeout: "25s", ..Ask::default() };
        for record in host.once(&ask) {
            table.row(case.name, &record, verdict, "", format!("glibc: {glibc:?}, {curl}"));
            let to = remote(&record);
            let right = case.to.contains(&to.as_str()) || case.to.is_empty() && to.is_empty();
            table.expect(case.name, right, format!("connected to {to:?}, not one of {:?}", case.to));
            let resolve = record["phases"]["resolve"].as_f64().unwrap();
            let is_quick = case.server != SILENT || resolve < 2.0;
            table.expect(case.name, is_quick, format!("a pinned name took {resolve} s"));
        }
        let agrees = case.to.contains(&curl.address.as_str()) || case.to.is_empty() && curl.exit != 0;
        table.expect(case.name, agrees, format!("curl disagrees with the case: {curl}"));
    }
    table.finish();
}

#[test]
fn link_local_pin_with_scope_is_read_as_by_glibc() {
    let Some(host) = host() else { return };
    host.ip("addr add fe80::53/64 dev eth0 nodad");
    let mut table = Table::default();
    for pin in ["fe80::53%eth0", "fe80::53%nowhere", "fe80::53"] {
        host.etc("hosts", &format!("{pin} scoped.corp.test\n"));
        // Releases of glibc differ in whether they read a scope there.
        let glibc = host.getaddrinfo("scoped.corp.test", &[]);
        let curl = host.curl(&[], &[], "http://scoped.corp.test:1/v1");
        let verdict = if glibc.is_ok() { "connect network" } else { "dns network" };
        for record in host.once(&Ask {
            url: "http://scoped.corp.test:1/v1",
            checks: &["network", "auth"],
            ..Ask::default()
        }) {
            table.row(pin, &record, verdict, "", format!("glibc: {glibc:?}, {curl}"));
        }
    }
    table.finish();
}

#[test]
fn key_is_never_sent_to_a_host_avoided_by_a_pin() {
    let Some(host) = host() else { return };
    host.etc("hosts", "127.0.0.1 api.corp.test\n");
    let chat = "[[probe]]\nname = \"chat\"\nprovider = \"p\"\ncheck = \"chat\"\nmodel = \"m\"\n\
                [[probe]]\nname = \"stream\"\nprovider = \"p\"\ncheck = \"stream\"\nmodel = \"m\"\n";
    let ask = Ask { checks: &["network", "auth", "models"], sections: chat, timeout: "5s", ..Ask::default() };
    host.once(&ask);
    let requests = host.requests();
    println!("F5 requests: {requests:?}");
    assert!(requests.iter().any(|request| request["listener"] == "pinned"), "{requests:?}");
    assert!(requests.iter().all(|request| request["listener"] == "pinned"), "{requests:?}");
}

#[test]
fn daemon_follows_a_change_of_the_hosts_file() {
    let Some(host) = host() else { return };
    host.etc("hosts", "127.0.0.1 api.corp.test\n");
    let probe = "[[probe]]\nname = \"pinned\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"1s\"\n\
                 timeout = \"1s\"\n";
    let mut daemon = host.daemon(&Ask { checks: &[], sections: probe, ..Ask::default() }.config());
    let led_to = |address: &str| {
        wait_for(&format!("a run that leads to {address}"), || {
            host.results("pinned").into_iter().find(|record| remote(record) == address)
        })
    };
    led_to("127.0.0.1");
    host.etc("hosts", "127.0.0.2 api.corp.test\n");
    let moved = led_to("127.0.0.2");
    assert_eq!(verdict_of(&moved), "ok none", "{moved:#}");
    daemon.stop();
    let others = host.results("pinned").into_iter().filter(|record| record["success"] != true).count();
    assert_eq!(others, 0, "{:#?}", host.results("pinned"));
}
