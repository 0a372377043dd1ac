//! Tests of endless responses: they affect no other provider, and are not kept.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{
    certificates::http_2,
    host::{Ask, Host},
    script::{good_listener, h2_early_hints, h2_priority, listener},
    table::Table,
    wait::wait_for,
};

/// Number of probes of a good server during the floods.
const VICTIMS: usize = 4;

/// Endless content.
const FLOODS: [(&str, &str); 5] = [
    ("continues", "HTTP/1.1 100 Continue\r\n\r\n"),
    ("hints", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"),
    ("events", "data:{}\n\n"),
    ("comments", ":\n"),
    ("priorities", ""),
];

/// Returns the servers of the floods, the last of which uses HTTP/2.
fn flood_servers(tls: Value) -> Vec<Value> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let server = |(number, (name, text)): (usize, &(&str, &str))| {
        let first = if text.starts_with("HTTP/") { "" } else { head };
        let at = format!("127.0.0.1:{}", 9000 + number);
        listener(name, &at, json!([first, { "repeat": text, "times": null }]))
    };
    let mut servers: Vec<Value> = FLOODS.iter().enumerate().map(server).collect();
    let last = servers.last_mut().unwrap();
    let mut priority = h2_priority();
    priority["times"] = Value::Null;
    last["connections"] = json!([[[priority]]]);
    last["tls"] = tls;
    last["h2"] = json!(true);
    servers
}

/// Returns the sections of a flood's provider and probe.
fn flood_section(number: usize, name: &str, ca: &str) -> String {
    let scheme = if name == "priorities" { "https" } else { "http" };
    format!(
        "[provider.{name}]\napi = \"openai\"\nbase_url = \"{scheme}://127.0.0.1:{}/v1\"\nca_file = \"{ca}\"\n\
         allow_plain_http = true\n[[probe]]\nname = \"{name}\"\nprovider = \"{name}\"\ncheck = \"stream\"\n\
         model = \"m\"\ninterval = \"2s\"\ntimeout = \"2s\"\nstall_timeout = \"2s\"\n",
        9000 + number
    )
}

#[test]
fn endless_responses_fail_no_other_providers_runs() {
    let Some(mut host) = Host::new() else { return };
    let (tls, ca) = http_2(&host);
    host.servers(&Value::Array(
        [flood_servers(tls), vec![good_listener("victim", "127.0.0.1:8080")]].concat(),
    ));
    let section = |(number, (name, _)): (usize, &(&str, &str))| flood_section(number, name, &ca);
    let floods: String = FLOODS.iter().enumerate().map(section).collect();
    let victim = |number: usize| {
        format!(
            "[[probe]]\nname = \"victim{number}\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"2s\"\n\
             timeout = \"2s\"\n"
        )
    };
    let victims: String = (0..VICTIMS).map(victim).collect();
    let sections = format!("{victims}{floods}");
    let ask = Ask { url: "http://127.0.0.1:8080/v1", checks: &[], sections: &sections, ..Ask::default() };
    let mut daemon = host.daemon(&ask.config());
    let results = || -> Vec<Value> {
        (0..VICTIMS).flat_map(|number| host.results(&format!("victim{number}"))).collect()
    };
    let victims = wait_for("six runs of each during the floods", || {
        Some(results()).filter(|records| records.len() >= 6 * VICTIMS)
    });
    daemon.stop();
    let mut table = Table::default();
    for (name, _) in FLOODS {
        let runs = host.results(name);
        table.expect(name, !runs.is_empty(), "it never ran");
        for record in runs.iter().take(1) {
            table.row(name, record, "", "", "");
        }
    }
    let mut seconds: Vec<f64> =
        victims.iter().map(|record| record["duration_seconds"].as_f64().unwrap()).collect();
    seconds.sort_by(f64::total_cmp);
    println!("victims: median {:?}, worst {:?}", seconds[seconds.len() / 2], seconds.last());
    for record in victims.iter().filter(|record| record["success"] != true) {
        table.row("beside the floods", record, "ok none", "", "");
    }
    table.finish();
}

#[test]
fn endless_informational_heads_of_http_2_are_not_kept() {
    let Some(mut host) = Host::new() else { return };
    let (tls, ca) = http_2(&host);
    let mut hints = h2_early_hints();
    hints["times"] = Value::Null;
    let mut server = listener("flood", "127.0.0.1:8443", json!([hints]));
    server["tls"] = tls;
    server["h2"] = json!(true);
    host.servers(&json!([server]));
    let probe = |number: usize| {
        format!(
            "[[probe]]\nname = \"n{number}\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"8s\"\ntimeout = \"8s\"\n"
        )
    };
    let sections: String = (0..8).map(probe).collect();
    let provider = format!("ca_file = \"{ca}\"");
    let ask = Ask {
        url: "https://127.0.0.1:8443/v1",
        checks: &[],
        provider: &provider,
        sections: &sections,
        ..Ask::default()
    };
    let mut daemon = host.daemon(&ask.config());
    let status = || fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    let resident = |status: &str, line: &str| -> u64 {
        let text = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
        text.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let before = resident(&status(), "VmHWM:");
    let ran = |number: u32| !host.results(&format!("n{number}")).is_empty();
    wait_for("a run of each", || (0..8).all(ran).then_some(()));
    let grown = (resident(&status(), "VmHWM:") - before) / 1024;
    println!("resident memory has grown by {grown} MiB from {} MiB", before / 1024);
    daemon.stop();
    let mut table = Table::default();
    table.row("endless 103 over HTTP/2", &host.results("n0")[0], "malformed provider", "", "");
    table.expect("endless 103 over HTTP/2", grown < 32, format!("resident memory has grown by {grown} MiB"));
    table.finish();
}
