//! Local ports that run out, over both families of addresses.

use std::{
    io::Read,
    process::{Child, Stdio},
};

use serde_json::json;

use crate::harness::{
    host::{Ask, Host},
    script::good_listener,
    table::Table,
};

/// Takes every local port to these places, and holds them until it is killed.
const TAKE_ALL: &str = "import socket, sys, time\ntaken = []\nfor place in sys.argv[1:]:\n \
                        host, port = place.rsplit('/', 1)\n try:\n  while True:\n   \
                        taken.append(socket.create_connection((host, int(port))))\n except OSError:\n  pass\n\
                        print('ready', flush=True)\ntime.sleep(600)";

fn take_all(host: &Host, places: &[&str]) -> Child {
    let mut holder = host.on("python3");
    let mut holder = holder.args(["-c", TAKE_ALL]).args(places).stdout(Stdio::piped()).spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    holder
}

#[test]
fn lack_of_ipv6_ports_is_the_probers_fault() {
    let Some(mut host) = Host::new() else { return };
    host.etc("hosts", "::1 six.test\n127.0.0.1 both.test\n::1 both.test\nfd00:77::2 link.test\n");
    host.servers(&json!([
        good_listener("six", "[::1]:8080"),
        good_listener("four", "127.0.0.1:8080"),
        good_listener("link", "[fd00:77::2]:8080"),
    ]));
    host.sysctl("net.ipv4.ip_local_port_range=40000 40001");
    let mut holder = take_all(&host, &["::1/8080", "fd00:77::2/8080"]);
    let mut table = Table::default();
    let checks: &[&str] = &["network", "auth"];
    for url in ["http://[::1]:8080/v1", "http://six.test:8080/v1", "http://link.test:8080/v1"] {
        let curl = host.curl(&["-g"], &[], url);
        for record in host.once(&Ask { url, checks, ..Ask::default() }) {
            table.row(url, &record, "internal prober", "out of local ports", &curl);
        }
    }
    // The other family still has some.
    for record in host.once(&Ask { url: "http://both.test:8080/v1", checks, ..Ask::default() }) {
        table.row("both families", &record, "ok none", "", "");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    table.finish();
}
