//! Tests of connections to a name with several addresses, some of them dead: every check reaches a
//! working one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{
    host::{Ask, Host, SILENT},
    script::{COMPLETION, EVENTS, MODELS, chunk, good_listener, listener, response},
    table::Table,
};

/// Maximum seconds for a connection to the second or third address; each has a head start of a
/// quarter of a second.
const CONNECT_LIMIT: f64 = 1.5;

const ALIVE: &str = "10.77.0.2";
const ALIVE_6: &str = "fd00:77::2";
const DEAD: &str = SILENT[0];
const DEAD_6: &str = SILENT[3];
/// An address of the machine without a listener.
const REFUSES: &str = "10.77.0.65";
const UNREACHABLE: &str = "192.0.2.1";
const PROHIBITED: &str = "192.0.2.2";
const UNREACHABLE_6: &str = "2001:db8::7";

/// Addresses of a name, and the result of a run.
struct Case {
    name: &'static str,
    addresses: &'static [&'static str],
    verdict: &'static str,
    detail: &'static str,
    /// Failed addresses that the record must have, with the error if it is certain.
    failed: &'static [(&'static str, &'static str)],
}

const REACHED: Case = Case { name: "", addresses: &[], verdict: "ok none", detail: "", failed: &[] };

const CASES: &[Case] = &[
    Case {
        name: "F10 first drops, second answers",
        addresses: &[DEAD, ALIVE],
        failed: &[(DEAD, "no_answer")],
        ..REACHED
    },
    Case {
        name: "three drop, the last answers",
        addresses: &[SILENT[0], SILENT[1], SILENT[2], ALIVE],
        failed: &[(DEAD, "no_answer")],
        ..REACHED
    },
    Case {
        name: "P1 IPv6 drops, IPv4 answers",
        addresses: &[DEAD_6, ALIVE],
        failed: &[(DEAD_6, "no_answer")],
        ..REACHED
    },
    Case { name: "P1 IPv6 unroutable, IPv4 answers", addresses: &[UNREACHABLE_6, ALIVE], ..REACHED },
    Case { name: "IPv4 drops, IPv6 answers", addresses: &[DEAD, ALIVE_6], ..REACHED },
    Case { name: "first refuses, second answers", addresses: &[REFUSES, ALIVE], ..REACHED },
    Case {
        name: "unreachable, prohibited, then alive",
        addresses: &[UNREACHABLE, PROHIBITED, ALIVE],
        ..REACHED
    },
    Case {
        name: "two of IPv6 drop, IPv4 drops, one answers",
        addresses: &[SILENT[3], SILENT[4], DEAD, ALIVE],
        failed: &[(SILENT[3], "no_answer")],
        ..REACHED
    },
    Case { name: "one drops, one refuses, one answers", addresses: &[DEAD, REFUSES, ALIVE], ..REACHED },
    Case {
        name: "all refuse",
        addresses: &[REFUSES, "127.0.0.3"],
        verdict: "connect network",
        detail: "connection refused",
        failed: &[(REFUSES, "refused"), ("127.0.0.3", "refused")],
    },
    Case {
        name: "all drop",
        addresses: &[SILENT[0], SILENT[1]],
        verdict: "timeout network",
        detail: "no connection was made within",
        failed: &[(SILENT[0], "no_answer"), (SILENT[1], "no_answer")],
    },
    Case {
        name: "one drops, one refuses",
        addresses: &[DEAD, REFUSES],
        verdict: "timeout network",
        detail: "no connection was made within",
        failed: &[(DEAD, "no_answer"), (REFUSES, "refused")],
    },
];

/// Seventeen addresses on the link that no machine has, and one that answers.
const MANY_DEAD: &[&str] = &[
    "fd00:77::101",
    "fd00:77::102",
    "fd00:77::103",
    "fd00:77::104",
    "fd00:77::105",
    "fd00:77::106",
    "fd00:77::107",
    "fd00:77::108",
    "fd00:77::109",
    "fd00:77::110",
    "fd00:77::111",
    "fd00:77::112",
    "fd00:77::113",
    "fd00:77::114",
    "fd00:77::115",
    "fd00:77::116",
    "fd00:77::117",
    ALIVE,
];

/// Twenty addresses that refuse, and one that answers. glibc sorts loopback's first, because their
/// scope is smaller.
const MANY_REFUSE: &[&str] = &[
    "127.0.1.1",
    "127.0.1.2",
    "127.0.1.3",
    "127.0.1.4",
    "127.0.1.5",
    "127.0.1.6",
    "127.0.1.7",
    "127.0.1.8",
    "127.0.1.9",
    "127.0.1.10",
    "127.0.1.11",
    "127.0.1.12",
    "127.0.1.13",
    "127.0.1.14",
    "127.0.1.15",
    "127.0.1.16",
    "127.0.1.17",
    "127.0.1.18",
    "127.0.1.19",
    "127.0.1.20",
    ALIVE,
];

const MANY: &[Case] = &[
    Case { name: "seventeen of IPv6 drop, IPv4 answers", addresses: MANY_DEAD, ..REACHED },
    Case { name: "twenty refuse, the last answers", addresses: MANY_REFUSE, ..REACHED },
];

/// Probes of further kinds, and the port of their server.
const PROBES: [(u16, &[&str], &str); 4] = [
    (8081, &[], "[[probe]]\nname = \"chat\"\nprovider = \"p\"\ncheck = \"chat\"\nmodel = \"m\"\n"),
    (8082, &[], "[[probe]]\nname = \"stream\"\nprovider = \"p\"\ncheck = \"stream\"\nmodel = \"m\"\n"),
    (8080, &[], "[[probe]]\nname = \"warm\"\nprovider = \"p\"\ncheck = \"auth\"\nconnection = \"warm\"\n"),
    (
        8080,
        &["models"],
        "[[probe]]\nname = \"http\"\nprovider = \"p\"\ncheck = \"http\"\npath = \"/models\"\n",
    ),
];

fn host() -> Option<Host> {
    let host = Host::new()?;
    for route in ["unreachable 192.0.2.1", "prohibit 192.0.2.2", "unreachable 2001:db8::7"] {
        host.ip(&format!("route add {route}"));
    }
    Some(host)
}

/// Starts servers for every check on the working addresses.
fn serve(host: &mut Host) {
    let body: String = EVENTS.iter().map(|event| chunk(event)).collect();
    let stream = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n"
    );
    let completion = response("200 OK", "", COMPLETION);
    let models = response("200 OK", "", MODELS);
    let ports = [(8080, models), (8081, completion), (8082, stream)];
    let of_port = |(port, answer): &(u16, String)| {
        [format!("{ALIVE}:{port}"), format!("[{ALIVE_6}]:{port}")]
            .map(|at| listener(&at, &at, json!([answer])))
    };
    let listeners: Vec<Value> = ports.iter().flat_map(of_port).collect();
    host.servers(&Value::Array(listeners));
}

/// Adds each case's addresses to DNS, under a name of its own.
fn name_all(host: &mut Host, cases: &[Case]) {
    let zone: serde_json::Map<String, Value> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| {
            let (six, four): (Vec<&str>, Vec<&str>) =
                case.addresses.iter().partition(|address| address.contains(':'));
            (format!("n{number}.corp.test"), json!({ "A": four, "AAAA": six }))
        })
        .collect();
    host.name_servers(&json!({ "127.0.0.53": { "names": zone } }));
}

/// Returns the failed addresses of a record with their errors.
fn failed(record: &Value) -> BTreeMap<String, String> {
    let failed = record["failed_addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    failed.iter().map(|failed| (text(&failed["address"]), text(&failed["error"]))).collect()
}

fn check(table: &mut Table, host: &Host, number: usize, case: &Case, kinds: &[(u16, &[&str], &str)]) {
    let timeout = if case.verdict == "timeout network" { "2s" } else { "10s" };
    let curl = host.curl(&["-m", "4"], &[], &format!("http://n{number}.corp.test:8080/v1"));
    for (port, checks, sections) in kinds {
        let url = format!("http://n{number}.corp.test:{port}/v1");
        for record in host.once(&Ask { url: &url, checks, sections, timeout, ..Ask::default() }) {
            table.row(case.name, &record, case.verdict, case.detail, &curl);
            let connect = record["phases"]["connect"].as_f64().unwrap();
            let is_quick = case.verdict != "ok none" || connect < CONNECT_LIMIT;
            table.expect(case.name, is_quick, format!("connected after {connect} s"));
            let found = failed(&record);
            for (address, error) in case.failed {
                let right = found.get(*address).is_some_and(|found| found == error);
                let probe = &record["probe"];
                table.expect(case.name, right, format!("{address} {error} is not in {found:?} of {probe}"));
            }
        }
    }
}

#[test]
fn checks_reach_the_address_that_answers() {
    let Some(mut host) = host() else { return };
    serve(&mut host);
    name_all(&mut host, CASES);
    let mut table = Table::default();
    for (number, case) in CASES.iter().enumerate() {
        check(&mut table, &host, number, case, &[(8080, &["network", "auth"], "")]);
    }
    table.finish();
}

#[test]
fn many_dead_addresses_hide_no_working_one() {
    let Some(mut host) = host() else { return };
    serve(&mut host);
    name_all(&mut host, MANY);
    let mut table = Table::default();
    for (number, case) in MANY.iter().enumerate() {
        check(&mut table, &host, number, case, &[(8080, &["network", "auth"], "")]);
    }
    table.finish();
}

#[test]
fn dead_address_delays_no_kind_of_probe() {
    let Some(mut host) = host() else { return };
    serve(&mut host);
    let cases = &CASES[..1];
    name_all(&mut host, cases);
    let mut table = Table::default();
    check(&mut table, &host, 0, &cases[0], &PROBES);
    table.finish();
}

/// Names of the following tests.
const FAMILIES: &[Case] = &[
    Case { name: "IPv6 alone", addresses: &[ALIVE_6], ..REACHED },
    Case { name: "both families", addresses: &[UNREACHABLE_6, ALIVE], ..REACHED },
];

#[test]
fn lack_of_ipv6_is_reported() {
    let Some(mut host) = host() else { return };
    serve(&mut host);
    name_all(&mut host, FAMILIES);
    host.sysctl("net.ipv6.conf.all.disable_ipv6=1");
    let mut table = Table::default();
    for (case, url) in [
        ("F17 a name with AAAA alone", "http://n0.corp.test:8080/v1"),
        ("F17 loopback's address", "http://[::1]:8080/v1"),
        ("a global address", "http://[2001:db8::7]:8080/v1"),
        ("a name with AAAA alone, https", "https://n0.corp.test:8443/v1"),
    ] {
        let curl = host.curl(&["-g"], &[], url);
        for record in host.once(&Ask { url, checks: &["network", "auth"], ..Ask::default() }) {
            table.row(case, &record, "connect network", "no IPv6 on this machine", &curl);
            let hint = record["hint"].as_str().unwrap_or_default();
            table.expect(case, !hint.contains("LimitNOFILE"), hint);
        }
    }
    let curl = host.curl(&[], &[], "http://n1.corp.test:8080/v1");
    let ask = Ask { url: "http://n1.corp.test:8080/v1", checks: &["network", "auth"], ..Ask::default() };
    for record in host.once(&ask) {
        table.row("F17 both families", &record, "ok none", "", &curl);
        let of_resources = failed(&record).into_values().any(|error| error == "out_of_resources");
        table.expect("F17 both families", !of_resources, &record["failed_addresses"]);
    }
    let doctor = host.prober("doctor", &ask).output().unwrap();
    let text = String::from_utf8(doctor.stdout).unwrap();
    table.expect("F17 doctor", !text.contains("out_of_resources") && !text.contains("out of"), &text);
    table.finish();
}

#[test]
fn lack_of_a_route_is_not_lack_of_ports() {
    let Some(mut host) = Host::new() else { return };
    name_all(&mut host, FAMILIES);
    let mut table = Table::default();
    for (case, setup, url) in [
        ("no route of IPv6", "-6 route flush all", "http://[2001:db8::7]:8080/v1"),
        ("no route of IPv4", "-4 route flush all", "http://192.0.2.9:8080/v1"),
    ] {
        host.ip(setup);
        let curl = host.curl(&["-g"], &[], url);
        for record in host.once(&Ask { url, checks: &["network", "auth"], ..Ask::default() }) {
            table.row(case, &record, "connect network", "network unreachable", &curl);
        }
    }
    table.finish();
}

#[test]
fn lack_of_local_ports_is_prober_fault() {
    let Some(mut host) = Host::new() else { return };
    host.servers(&json!([good_listener("here", &format!("{ALIVE}:8080"))]));
    // One port for all connections to an address, and it is in use.
    host.sysctl("net.ipv4.ip_local_port_range=40000 40000");
    let script = format!(
        "import socket, time\ntaken = socket.create_connection(('{ALIVE}', 8080))\nprint('ready', flush=True)\n\
         time.sleep(600)"
    );
    let mut holder = host.on("python3");
    let mut holder = holder.args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let url = format!("http://{ALIVE}:8080/v1");
    let curl = host.curl(&[], &[], &url);
    let mut table = Table::default();
    for record in host.once(&Ask { url: &url, checks: &["network", "auth"], ..Ask::default() }) {
        table.row("no port left", &record, "internal prober", "out of local ports", &curl);
        let hint = record["hint"].as_str().unwrap_or_default();
        let is_about_ports = hint.contains("net.ipv4.ip_local_port_range") && hint.contains("TIME_WAIT");
        table.expect("no port left", is_about_ports && !hint.contains("LimitNOFILE"), hint);
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    table.finish();
}
