//! Tests of the system's name servers: the prober finds the same addresses as glibc in the same
//! namespace, and explains each failure.

use std::{collections::BTreeSet, time::Instant};

use serde_json::{Value, json};

use crate::harness::{
    host::{Ask, Host},
    script::good_listener,
    table::{Table, verdict_of},
    wait::wait_for,
};

/// Name servers by their behaviour.
const GOOD: &str = "127.0.0.53";
const SILENT: &str = "127.0.0.52";
const SERVFAIL: &str = "127.0.0.54";
const REFUSED: &str = "127.0.0.55";
const NXDOMAIN: &str = "127.0.0.56";
const TCP_ONLY: &str = "127.0.0.57";
const AAAA_SILENT: &str = "127.0.0.58";
const TRUNCATING: &str = "127.0.0.59";
const A_SERVFAIL: &str = "127.0.0.60";
const A_SILENT: &str = "127.0.0.61";
const EMPTY: &str = "127.0.0.63";

/// Maximum seconds that a lookup may take longer than glibc's.
const SLACK: f64 = 3.0;

/// A name with a configuration of the resolver.
struct Case {
    name: &'static str,
    /// Name servers in resolv.conf, in this order.
    servers: &'static [&'static str],
    /// Further lines of resolv.conf.
    lines: &'static str,
    host: &'static str,
    variables: &'static [(&'static str, &'static str)],
    verdict: &'static str,
    detail: &'static str,
}

/// A case in which the name is found.
const FOUND: Case = Case {
    name: "",
    servers: &[GOOD],
    lines: "",
    host: "api.corp.test",
    variables: &[],
    verdict: "ok none",
    detail: "",
};

/// A case in which it is not found, with servers that time out after a second.
const NOT_FOUND: Case = Case { lines: "options timeout:1 attempts:1", verdict: "dns network", ..FOUND };

const FIRST_SERVER_FAILS: &[Case] = &[
    Case { name: "F1 first server is silent", servers: &[SILENT, GOOD], ..FOUND },
    Case {
        name: "F1 first server is silent, timeout:1",
        servers: &[SILENT, GOOD],
        lines: "options timeout:1",
        ..FOUND
    },
    Case { name: "F2 first server answers SERVFAIL", servers: &[SERVFAIL, GOOD], ..FOUND },
    Case { name: "first server answers REFUSED", servers: &[REFUSED, GOOD], ..FOUND },
    Case { name: "two servers fail", servers: &[SERVFAIL, REFUSED, GOOD], ..FOUND },
    Case { name: "first server without a listener", servers: &["127.0.0.99", GOOD], ..FOUND },
    Case {
        name: "rotate among two, one silent",
        servers: &[SILENT, GOOD],
        lines: "options rotate timeout:1",
        ..FOUND
    },
    Case {
        name: "attempts:1 still asks the second server",
        servers: &[SILENT, GOOD],
        lines: "options attempts:1 timeout:1",
        ..FOUND
    },
    Case {
        name: "a fourth server is never asked",
        servers: &[SERVFAIL, SERVFAIL, REFUSED, GOOD],
        verdict: "dns network",
        ..FOUND
    },
];

const SEARCH: &[Case] = &[
    Case { name: "F3 search .corp.test", lines: "search .corp.test", ..FOUND },
    Case { name: "search ..corp", lines: "search ..corp", ..FOUND },
    Case { name: "search of 64 letters", lines: LONG_SEARCH, ..FOUND },
    Case { name: "a short name", lines: "search lan corp.test", host: "api", ..FOUND },
    Case { name: "domain in place of search", lines: "domain corp.test", host: "api", ..FOUND },
    Case { name: "ndots:5", lines: "search corp.lan\noptions ndots:5", ..FOUND },
    Case {
        name: "an absolute name",
        lines: "search corp.lan\noptions ndots:5",
        host: "api.corp.test.",
        ..FOUND
    },
    Case { name: "LOCALDOMAIN", host: "api", variables: &[("LOCALDOMAIN", "corp.test")], ..FOUND },
    Case {
        name: "an absolute short name is not searched",
        lines: "search corp.test",
        host: "api.",
        verdict: "dns network",
        detail: "NXDOMAIN",
        ..FOUND
    },
];

const LONG_SEARCH: &str = "search aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test";

const OPTIONS: &[Case] = &[
    Case { name: "F7 no-aaaa", servers: &[AAAA_SILENT], lines: "options no-aaaa", ..FOUND },
    Case { name: "F8 use-vc", servers: &[TCP_ONLY], lines: "options use-vc", ..FOUND },
    Case {
        name: "F8 RES_OPTIONS=use-vc",
        servers: &[TCP_ONLY],
        variables: &[("RES_OPTIONS", "use-vc")],
        ..FOUND
    },
    Case {
        name: "F7 RES_OPTIONS=no-aaaa",
        servers: &[AAAA_SILENT],
        variables: &[("RES_OPTIONS", "no-aaaa")],
        ..FOUND
    },
    Case { name: "truncated, then TCP", servers: &[TRUNCATING], ..FOUND },
    Case {
        name: "single-request-reopen edns0 trust-ad",
        lines: "options single-request-reopen edns0 trust-ad",
        ..FOUND
    },
    Case {
        name: "unknown options and lines",
        lines: "options colour:blue\nnonsense here\n; comment\n# comment",
        ..FOUND
    },
    Case { name: "a name server that is no address", servers: &["ns.corp.test", GOOD], ..FOUND },
    Case { name: "AAAA is silent", servers: &[AAAA_SILENT], lines: "options timeout:1 attempts:1", ..FOUND },
    Case { name: "a server by a scoped address", servers: &["fe80::53%eth0"], ..FOUND },
];

const NAMES: &[Case] = &[
    Case { name: "F11 llm_gateway", host: "llm_gateway", ..FOUND },
    Case { name: "F11 a_b.corp.test", host: "a_b.corp.test", ..FOUND },
    Case { name: "_a.corp.test", host: "_a.corp.test", ..FOUND },
    Case { name: "a_.corp_x.test", host: "a_.corp_x.test", ..FOUND },
    Case { name: "a--b.corp.test", host: "a--b.corp.test", ..FOUND },
    Case { name: "a-.corp.test", host: "a-.corp.test", ..FOUND },
    Case { name: "1.corp.test", host: "1.corp.test", ..FOUND },
    Case { name: "upper case", host: "API.Corp.Test", ..FOUND },
    Case { name: "an alias", host: "alias.corp.test", ..FOUND },
    Case { name: "an alias of an alias with an underscore", host: "alias2.corp.test", ..FOUND },
];

const EXPLAINED: &[Case] = &[
    Case { name: "NXDOMAIN", servers: &[NXDOMAIN], detail: "NXDOMAIN", ..NOT_FOUND },
    Case { name: "SERVFAIL", servers: &[SERVFAIL], detail: "SERVFAIL", ..NOT_FOUND },
    Case { name: "REFUSED", servers: &[REFUSED], detail: "REFUSED", ..NOT_FOUND },
    Case { name: "silent", servers: &[SILENT], detail: "no name server answered", ..NOT_FOUND },
    Case {
        name: "two are silent",
        servers: &[SILENT, "127.0.0.99"],
        detail: "no name server answered",
        ..NOT_FOUND
    },
    Case { name: "no address", servers: &[EMPTY], detail: "has no address", ..NOT_FOUND },
    Case { name: "A7 A is SERVFAIL, AAAA is empty", servers: &[A_SERVFAIL], detail: "SERVFAIL", ..NOT_FOUND },
    Case {
        name: "A7 A is silent, AAAA is empty",
        servers: &[A_SILENT],
        detail: "no name server answered",
        ..NOT_FOUND
    },
    Case {
        name: "A7 search, SERVFAIL as written",
        servers: &[SERVFAIL],
        lines: "search corp.lan\noptions timeout:1 attempts:1",
        detail: "SERVFAIL",
        ..NOT_FOUND
    },
    Case {
        name: "one is silent, another answers NXDOMAIN",
        servers: &[SILENT, NXDOMAIN],
        detail: "NXDOMAIN",
        ..NOT_FOUND
    },
    Case {
        name: "NXDOMAIN ends the search for a server",
        servers: &[NXDOMAIN, GOOD],
        detail: "NXDOMAIN",
        ..NOT_FOUND
    },
    Case { name: "an alias to nowhere", host: "dangling.corp.test", detail: "NXDOMAIN", ..NOT_FOUND },
    Case { name: "an alias without address", host: "bare.corp.test", detail: "has no address", ..NOT_FOUND },
    Case { name: "an underscore, NXDOMAIN", host: "not_there.corp.test", detail: "NXDOMAIN", ..NOT_FOUND },
    Case {
        name: "search, NXDOMAIN as written, SERVFAIL elsewhere",
        host: "gone.corp.test",
        lines: "search failing.lan\noptions timeout:1 attempts:1",
        detail: "NXDOMAIN",
        ..NOT_FOUND
    },
];

/// Starts a machine with all name servers, and a server at the address that the good ones return.
fn host() -> Option<Host> {
    let mut host = Host::new()?;
    let here = json!({ "A": ["127.0.0.1"] });
    let mut good = json!({
        "alias.corp.test": { "CNAME": "api.corp.test" },
        "alias2.corp.test": { "CNAME": "a_b.corp.test" },
        "dangling.corp.test": { "CNAME": "gone.corp.test" },
        "bare.corp.test": { "CNAME": "empty.corp.test" },
        "empty.corp.test": {},
        "gone.corp.test.failing.lan": { "A": "servfail", "AAAA": "servfail" },
    });
    for name in [
        "api.corp.test",
        "llm_gateway",
        "a_b.corp.test",
        "_a.corp.test",
        "a_.corp_x.test",
        "a--b.corp.test",
        "a-.corp.test",
        "1.corp.test",
    ] {
        good[name] = here.clone();
    }
    let one = |answer: Value| json!({ "names": { "api.corp.test": answer } });
    let all = |answer: &str| json!({ "default": answer });
    let mut zones = json!({
        SILENT: all("silent"), SERVFAIL: all("servfail"), REFUSED: all("refused"), NXDOMAIN: all("nxdomain"),
        EMPTY: all("empty"),
        AAAA_SILENT: one(json!({ "A": ["127.0.0.1"], "AAAA": "silent" })),
        A_SERVFAIL: one(json!({ "A": "servfail" })),
        A_SILENT: one(json!({ "A": "silent" })),
        "fe80::53%eth0": one(here.clone()),
    });
    zones[GOOD] = json!({ "names": good });
    for (server, udp) in [(TCP_ONLY, "silent"), (TRUNCATING, "truncate")] {
        zones[server] = one(here.clone());
        zones[server]["udp"] = json!(udp);
    }
    host.ip("addr add fe80::53/64 dev eth0 nodad");
    host.name_servers(&zones);
    host.servers(&json!([good_listener("here", "127.0.0.1:8080")]));
    Some(host)
}

fn resolv_conf(servers: &[&str], lines: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("nameserver {server}")).collect();
    format!("{}\n{lines}\n", servers.join("\n"))
}

/// Runs the cases and compares them with glibc.
fn check(cases: &[Case]) {
    let Some(host) = host() else { return };
    let mut table = Table::default();
    for case in cases {
        host.etc("resolv.conf", &resolv_conf(case.servers, case.lines));
        let start = Instant::now();
        let glibc = host.getaddrinfo(case.host, case.variables);
        let limit = start.elapsed().as_secs_f64();
        let url = format!("http://{}:8080/v1", case.host);
        let ask = Ask {
            url: &url,
            checks: &["network", "auth"],
            timeout: "25s",
            variables: case.variables,
            ..Ask::default()
        };
        for record in host.once(&ask) {
            let reference = format!("glibc: {glibc:?} in {limit:.2} s");
            table.row(case.name, &record, case.verdict, case.detail, reference);
            let resolve = record["phases"]["resolve"].as_f64().unwrap_or_default();
            // A failure causes additional queries for its explanation.
            let is_slow = verdict_of(&record) == "ok none" && resolve > limit + SLACK;
            table.expect(case.name, !is_slow, format!("the lookup took {resolve} s, glibc's {limit} s"));
            if let Ok(addresses) = &glibc
                && record["dns"].is_array()
            {
                let found = record["dns"].as_array().unwrap().iter().filter_map(Value::as_str);
                let found: BTreeSet<String> = found.map(str::to_owned).collect();
                table.expect(case.name, found == *addresses, format!("{found:?} is not {addresses:?}"));
            }
        }
        table.expect(
            case.name,
            glibc.is_ok() == (case.verdict == "ok none"),
            "glibc disagrees with the case",
        );
    }
    table.finish();
}

#[test]
fn second_name_server_is_used_if_the_first_fails() {
    check(FIRST_SERVER_FAILS);
}

#[test]
fn search_list_is_followed_and_cannot_break_lookups() {
    check(SEARCH);
}

#[test]
fn resolver_options_are_obeyed() {
    check(OPTIONS);
}

#[test]
fn names_that_glibc_accepts_are_looked_up() {
    check(NAMES);
}

#[test]
fn lookup_failure_is_explained_by_its_cause() {
    check(EXPLAINED);
}

#[test]
fn no_aaaa_sends_no_aaaa_query() {
    let Some(host) = host() else { return };
    host.etc("resolv.conf", &resolv_conf(&[AAAA_SILENT], "options no-aaaa"));
    let record = host.once(&Ask::default()).remove(0);
    assert_eq!(verdict_of(&record), "ok none", "{record:#}");
    let queries = host.queries();
    println!("F7 queries with no-aaaa: {queries:?}");
    assert!(queries.iter().all(|query| query.ends_with(" A")), "{queries:?}");
}

#[test]
fn name_server_without_edns_answers() {
    let Some(mut host) = Host::new() else { return };
    let names = json!({ "api.corp.test": { "A": ["127.0.0.1"] } });
    host.name_servers(&json!({ GOOD: { "names": names, "edns": false } }));
    host.servers(&json!([good_listener("here", "127.0.0.1:8080")]));
    let provider = format!("dns_servers = [\"{GOOD}\"]");
    let record = host.once(&Ask { checks: &["network"], provider: &provider, ..Ask::default() }).remove(0);
    assert_eq!(verdict_of(&record), "ok none", "{record:#}");
    let servers = record["dns_servers"].as_array().unwrap();
    assert_eq!(servers.len(), 2, "{record:#}");
    assert!(servers.iter().all(|server| server["ok"] == true), "{record:#}");
}

#[test]
fn use_vc_sends_no_datagram() {
    let Some(host) = host() else { return };
    host.etc("resolv.conf", &resolv_conf(&[TCP_ONLY], "options use-vc"));
    let record = host.once(&Ask::default()).remove(0);
    assert_eq!(verdict_of(&record), "ok none", "{record:#}");
    let queries = host.queries();
    println!("F8 queries with use-vc: {queries:?}");
    assert!(queries.iter().all(|query| query.contains(" tcp ")), "{queries:?}");
}

#[test]
fn resolver_defaults_to_loopback_as_glibc_does() {
    let Some(mut host) = Host::new() else { return };
    host.name_servers(&json!({ "127.0.0.1": { "names": { "api.corp.test": { "A": ["127.0.0.1"] } } } }));
    host.servers(&json!([good_listener("here", "127.0.0.1:8080")]));
    let mut table = Table::default();
    for (case, text) in [("empty resolv.conf", ""), ("only a search list", "search corp.lan\n")] {
        host.etc("resolv.conf", text);
        let glibc = host.getaddrinfo("api.corp.test", &[]);
        table.row(case, &host.once(&Ask::default())[0], "ok none", "", format!("glibc: {glibc:?}"));
    }
    table.finish();
}

#[test]
fn doctor_names_the_server_that_fails_and_the_one_that_answers() {
    let Some(host) = host() else { return };
    let mut table = Table::default();
    for (case, failing, words) in [
        ("F1b first server is silent", SILENT, &["no answer", "not answer", "silent", "timed out"][..]),
        ("F1b first server answers SERVFAIL", SERVFAIL, &["SERVFAIL", "failed"][..]),
        ("first server answers REFUSED", REFUSED, &["REFUSED", "refused"][..]),
    ] {
        host.etc("resolv.conf", &resolv_conf(&[failing, GOOD], "options timeout:1"));
        let output = host.prober("doctor", &Ask { timeout: "25s", ..Ask::default() }).output().unwrap();
        // Lines are wrapped at the width of the terminal.
        let text = String::from_utf8(output.stdout).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        println!("{case}: {text}");
        let clauses: Vec<&str> = text.split([';', ',', '(', ')']).collect();
        let clause = |server: &str, words: &[&str]| {
            clauses
                .iter()
                .any(|clause| clause.contains(server) && words.iter().any(|word| clause.contains(word)))
        };
        table.expect(case, clause(failing, words), format!("{failing} is not reported as failed: {text}"));
        table.expect(
            case,
            clause(GOOD, &["answer", "says", "finds"]),
            format!("{GOOD} is not reported to answer: {text}"),
        );
        let asked = host.queries().iter().any(|query| query.starts_with(GOOD));
        table.expect(case, asked, format!("{GOOD} was not asked"));
        for wrong in ["find it by nsswitch.conf", "finds no address"] {
            table.expect(case, !text.contains(wrong), format!("{wrong} in {text}"));
        }
        std::fs::write(host.path("queries"), "").unwrap();
    }
    table.finish();
}

#[test]
fn daemon_is_not_offline_if_the_second_server_answers() {
    let Some(mut host) = Host::new() else { return };
    let names = ["a.corp.test", "b.corp.test", "c.corp.test"];
    let zone: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!({ "A": ["127.0.0.1"] }))).collect();
    host.name_servers(&json!({ SERVFAIL: { "default": "servfail" }, GOOD: { "names": zone } }));
    host.servers(&json!([good_listener("here", "127.0.0.1:8080")]));
    host.etc("resolv.conf", &resolv_conf(&[SERVFAIL, GOOD], ""));
    let section = |name: &str| {
        format!(
            "[provider.{}]\napi = \"openai\"\nbase_url = \"http://{name}:8080/v1\"\nallow_plain_http = true\n\
             checks = [\"network\", \"models\"]\n",
            &name[..1]
        )
    };
    let sections: String = names.iter().map(|name| section(name)).collect();
    let mut daemon = host.daemon(&format!("[defaults]\ninterval = \"1s\"\n{sections}"));
    let probes = ["a-network", "b-network", "c-network", "a-models", "b-models", "c-models"];
    let scrape = wait_for("two runs of every probe", || {
        let scrape = host.scrape();
        let runs = |probe: &&str| scrape.value("langmart_probe_runs_total", &[("probe", probe)]) >= 2.0;
        probes.iter().all(runs).then_some(scrape)
    });
    let curl = host.curl(&[], &[], "http://a.corp.test:8080/v1/models");
    println!("F1c offline: {} | {curl}", scrape.sum("langmart_prober_offline"));
    for probe in probes {
        assert_eq!(scrape.value("langmart_probe_success", &[("probe", probe)]), 1.0, "{probe}");
    }
    assert_eq!(scrape.sum("langmart_prober_offline"), 0.0);
    daemon.stop();
}

/// Starts name servers, one of which has a good name and ignores all others.
fn mostly_silent(host: &mut Host) {
    let names = json!({ "good.corp.test": { "A": ["127.0.0.1"] } });
    host.name_servers(&json!({ GOOD: { "names": names, "default": "silent" } }));
    host.servers(&json!([good_listener("here", "127.0.0.1:8080")]));
}

#[test]
fn lookup_that_outlasts_the_timeout_ends_with_it() {
    let Some(mut host) = Host::new() else { return };
    mostly_silent(&mut host);
    let url = "http://silent.corp.test:8080/v1";
    let start = Instant::now();
    let mut table = Table::default();
    for record in host.once(&Ask { url, checks: &["network", "auth"], timeout: "2s", ..Ask::default() }) {
        let detail = "the name lookup was not answered within 2s";
        table.row("glibc takes ten seconds", &record, "timeout network", detail, "");
    }
    // glibc's call takes longer, but the process does not wait for it.
    let seconds = start.elapsed().as_secs_f64();
    table.expect("glibc takes ten seconds", seconds < 7.0, format!("the command took {seconds:.1} s"));
    table.finish();
}

#[test]
fn silent_names_delay_neither_other_names_nor_the_stop() {
    let Some(mut host) = Host::new() else { return };
    mostly_silent(&mut host);
    let section = |name: String| {
        format!(
            "[provider.{name}]\napi = \"openai\"\nbase_url = \"http://{name}.corp.test:8080/v1\"\n\
             allow_plain_http = true\nchecks = [\"network\", \"models\"]\n"
        )
    };
    let sections: String = (0..24).map(|number| format!("silent{number}")).map(section).collect();
    let good = "[[probe]]\nname = \"good\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"1s\"\ntimeout = \"1s\"\n";
    let sections = format!("{good}{sections}");
    let url = "http://good.corp.test:8080/v1";
    let ask = Ask { url, checks: &[], timeout: "3s", sections: &sections, ..Ask::default() };
    let text = ask.config().replace("[defaults]\n", "[defaults]\ninterval = \"3s\"\n");
    assert!(text.contains("interval = \"3s\""), "{text}");
    let mut daemon = host.daemon(&text);
    let runs = wait_for("eight runs", || Some(host.results("good")).filter(|runs| runs.len() >= 8));
    let start = Instant::now();
    daemon.stop();
    let seconds = start.elapsed().as_secs_f64();
    let mut table = Table::default();
    for record in runs {
        table.row("a good name beside silent ones", &record, "ok none", "", "");
    }
    table.expect("stop", seconds < 15.0, format!("it took {seconds:.1} s"));
    table.expect(
        "silent",
        !host.results("silent0-network").is_empty(),
        "the silent names were not looked up",
    );
    table.finish();
}
