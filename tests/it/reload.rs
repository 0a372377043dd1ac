//! Tests of reloads: a new configuration applies completely, a bad one not at all, and no resources
//! leak.

use std::{fs, process::Command, thread, time::Duration};

use langmart_prober::simulator::Simulator;

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    parts,
    scrape::Scrape,
    simulate::simulator,
    wait::wait_for,
};

/// Returns a provider of that API with an auth check, and further lines.
fn provider(simulator: &Simulator, name: &str, prefix: &str, rest: &str) -> String {
    let base_url = format!("http://{}/{prefix}", simulator.address());
    format!("[provider.{name}]\nbase_url = \"{base_url}\"\nchecks = [\"auth\"]\n{rest}\n")
}

/// A bcrypt hash of an unused password.
const HASH: &str = "$2y$10$ilw2DDaAotOFnLjBDKD31uyjQ2JYK4CUEme.wS2r6PytKIWfdB27S";

const FAST: &str = "[defaults]\ninterval = \"100ms\"\n";

#[track_caller]
fn wait_for_success(daemon: &Daemon, probe: &str, success: f64) {
    daemon.scrape_until("the probe's success to change", |scrape| {
        scrape.find("langmart_probe_success", &[("probe", probe)]) == Some(success)
    });
}

#[test]
fn reload_reads_the_key_file() {
    let simulator = simulator("");
    let place = Place::new("");
    place.write("key", "sk-invalid-0123456789\n");
    let key = format!("api_key = {{ file = \"{}\" }}", place.path("key").display());
    place.write(
        "config.toml",
        &format!("{LISTEN}{FAST}{}", provider(&simulator, "openai", "openai/v1", &key)),
    );
    let mut daemon = place.daemon();
    wait_for_success(&daemon, "openai-auth", 0.0);
    place.write("key", "sk-good-0123456789\n");
    daemon.reload();
    wait_for_success(&daemon, "openai-auth", 1.0);
    place.write("key", "");
    daemon.reload();
    assert_eq!(daemon.scrape().value("langmart_prober_config_last_reload_successful", &[]), 0.0);
    let log = daemon.stop();
    assert!(log.contains("config.toml:8: provider.openai.api_key: the key is empty"), "{log}");
}

#[test]
fn probes_come_go_and_stay() {
    let simulator = simulator("");
    let [openai, groq, anthropic] =
        [("openai", "openai/v1"), ("groq", "groq/openai/v1"), ("anthropic", "anthropic")]
            .map(|(name, prefix)| provider(&simulator, name, prefix, KEY));
    let place = Place::new(&format!("{LISTEN}{FAST}{openai}{groq}"));
    let daemon = place.daemon();
    let before = daemon.scrape_until("runs of both", |scrape| {
        scrape.values("langmart_probe_runs_total", &[]).iter().all(|runs| *runs >= 3.0)
    });
    // Kept with another interval; with a week, later values are not from a run.
    place.write("config.toml", &format!("{LISTEN}[defaults]\ninterval = \"168h\"\n{openai}{anthropic}"));
    daemon.reload();
    let after = daemon.scrape();
    let kept = [("probe", "openai-auth")];
    assert!(
        after.value("langmart_probe_runs_total", &kept) >= before.value("langmart_probe_runs_total", &kept)
    );
    assert_eq!(after.value("langmart_probe_success", &kept), 1.0);
    assert_eq!(after.value("langmart_probe_interval_seconds", &kept), 604_800.0);
    assert!(!after.mentions(("provider", "groq")) && !after.mentions(("probe", "groq-auth")));
    assert_eq!(after.value("langmart_probe_runs_total", &[("probe", "anthropic-auth")]), 0.0);
    let asked = simulator.requests().len();
    assert!(!daemon.get("/").body.contains("groq"));
    // It is added again as a new probe, with counters at zero.
    place.write("config.toml", &format!("{LISTEN}{FAST}{openai}{groq}"));
    daemon.reload();
    daemon.scrape_until("runs of the one that came back", |scrape| {
        let runs = scrape.value("langmart_probe_runs_total", &[("probe", "groq-auth")]);
        (1.0..before.value("langmart_probe_runs_total", &[("probe", "groq-auth")])).contains(&runs)
    });
    assert!(simulator.requests().len() > asked);
}

#[test]
fn bad_file_changes_nothing_and_is_reported() {
    let simulator = simulator("");
    let good = format!("{LISTEN}{FAST}{}", provider(&simulator, "openai", "openai/v1", KEY));
    let place = Place::new(&good);
    let mut daemon = place.daemon();
    wait_for_success(&daemon, "openai-auth", 1.0);
    let before = daemon.scrape();
    let loaded_at = before.value("langmart_prober_config_last_reload_success_timestamp_seconds", &[]);

    place.write("config.toml", &format!("{good}surprise = 1\n[log]\nrotation = \"never\"\n"));
    daemon.reload();
    let not_a_directory = place.path("config.toml").join("logs");
    let answer = daemon.request("POST", "/-/reload");
    for problem in ["provider.openai.surprise", "log.rotation"] {
        assert!(answer.body.contains(problem), "{answer:?}");
        wait_for("the log to have it twice", || (daemon.logged(problem) == 2).then_some(()));
    }
    assert_eq!(answer.status, 500);
    // The configuration is valid, but its files cannot be opened.
    let unwritable =
        format!("{good}[log]\nlevel = \"error\"\ndirectory = \"{}\"\n", not_a_directory.display());
    place.write("config.toml", &unwritable);
    let answer = daemon.request("POST", "/-/reload");
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.body.contains(not_a_directory.to_str().unwrap()), "{answer:?}");

    let runs = daemon.runs("openai-auth");
    let after = daemon.scrape_until("the probe to continue", |scrape| {
        scrape.value("langmart_probe_runs_total", &[("probe", "openai-auth")]) > runs + 2.0
    });
    assert_eq!(after.value("langmart_prober_config_last_reload_successful", &[]), 0.0);
    assert_eq!(after.value("langmart_prober_config_last_reload_success_timestamp_seconds", &[]), loaded_at);
    assert_eq!(after.setbacks(&before), [""; 0]);
    assert_eq!(daemon.get("/-/ready").status, 200);

    place.write("config.toml", &good.replace("127.0.0.1:0", "127.0.0.1:1"));
    assert_eq!(daemon.request("POST", "/-/reload").status, 200);
    let healed = daemon.scrape();
    assert_eq!(healed.value("langmart_prober_config_last_reload_successful", &[]), 1.0);
    assert!(healed.value("langmart_prober_config_last_reload_success_timestamp_seconds", &[]) > loaded_at);
    let log = daemon.stop();
    assert!(log.contains("server.listen requires a restart"), "{log}");
}

/// Starts a daemon with a public listener, users and TLS. Returns also its configuration without
/// `[server]`.
fn exposed(place: &Place, simulator: &Simulator) -> (Daemon, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("cert.pem", &made.cert.pem());
    place.write("key.pem", &made.signing_key.serialize_pem());
    let probes = provider(simulator, "openai", "openai/v1", KEY);
    place.write("config.toml", &format!("{}{FAST}{probes}", server(place, "0.0.0.0:0", true, true)));
    (place.daemon(), format!("{FAST}{probes}"))
}

/// Returns `[server]` with that address, users and TLS.
fn server(place: &Place, listen: &str, users: bool, tls: bool) -> String {
    let users = if users { format!("basic_auth = {{ alice = \"{HASH}\" }}\n") } else { String::new() };
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| place.path(name).display().to_string());
    let tls = if tls {
        format!("tls = {{ cert_file = \"{certificate}\", key_file = \"{key}\" }}\n")
    } else {
        String::new()
    };
    format!("[server]\nlisten = \"{listen}\"\n{users}{tls}")
}

/// Returns the status that curl gets without a password, or 000 if there is no answer.
fn status(daemon: &Daemon, scheme: &str) -> String {
    let url = format!("{scheme}://127.0.0.1:{}/metrics", daemon.address.port());
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

#[test]
fn reload_that_would_open_the_listener_is_refused() {
    if !parts::has(&["curl"], false) {
        return;
    }
    let simulator = simulator("");
    let place = Place::new("");
    let (mut daemon, rest) = exposed(&place, &simulator);
    let closed = |daemon: &Daemon| [status(daemon, "https"), status(daemon, "http")];
    assert_eq!(closed(&daemon), ["401", "000"]);
    let with = |listen, users, tls| format!("{}{rest}", server(&place, listen, users, tls));
    let refused = [
        ("an edit of three lines", with("127.0.0.1:0", false, false), ["server.basic_auth", "server.tls"]),
        ("the users alone", with("127.0.0.1:0", false, true), ["server.basic_auth", "until a restart"]),
        ("TLS alone", with("[::1]:0", true, false), ["server.tls", "until a restart"]),
        ("an empty file", String::new(), ["server.basic_auth", "no probe is configured"]),
        ("a file cut off", with("0.0.0.0:0", true, true)[..200].to_owned(), ["TOML", ""]),
        ("no [server]", rest.clone(), ["server.basic_auth", "server.tls"]),
    ];
    for (number, (what, text, reasons)) in refused.into_iter().enumerate() {
        place.write("config.toml", &text);
        daemon.reload();
        assert_eq!(daemon.logged("Configuration reloaded"), 0, "{what}");
        assert!(daemon.logged("ERROR") > number, "{what}: {}", daemon.log());
        for reason in reasons {
            assert!(daemon.log().contains(reason), "{what}: {reason}: {}", daemon.log());
        }
        assert_eq!(closed(&daemon), ["401", "000"], "{what}");
    }
    // Valid by itself, but weaker than the bound listener rather than the written one.
    place.write("config.toml", &with("127.0.0.1:0", true, true));
    daemon.reload();
    assert_eq!(daemon.logged("Configuration reloaded"), 1, "{}", daemon.log());
    place.write("config.toml", &with("127.0.0.1:0", false, true));
    daemon.reload();
    assert_eq!(
        (daemon.logged("Configuration reloaded"), closed(&daemon)),
        (1, ["401", "000"].map(Into::into))
    );
    // Allowed: no users. Without TLS it continues with its certificate.
    let allowed =
        format!("{}allow_unauthenticated = true\n{rest}", server(&place, "0.0.0.0:0", false, false));
    place.write("config.toml", &allowed);
    daemon.reload();
    assert_eq!(daemon.logged("Configuration reloaded"), 2, "{}", daemon.log());
    assert_eq!([status(&daemon, "https"), status(&daemon, "http")], ["200", "000"]);
    assert_eq!(daemon.logged("Removal of server.tls requires a restart"), 1);
    assert!(daemon.stop().contains("until a restart"));
}

#[test]
fn tls_on_loopback_ends_only_with_a_restart() {
    if !parts::has(&["curl"], false) {
        return;
    }
    let simulator = simulator("");
    let place = Place::new("");
    let (daemon, rest) = exposed(&place, &simulator);
    drop(daemon);
    place.write("config.toml", &format!("{}{rest}", server(&place, "127.0.0.1:0", false, true)));
    let daemon = place.daemon();
    place.write("config.toml", &format!("{}{rest}", server(&place, "127.0.0.1:0", false, false)));
    for reload in 1..=2 {
        daemon.reload();
        assert_eq!([status(&daemon, "https"), status(&daemon, "http")], ["200", "000"]);
        assert_eq!(daemon.logged("Removal of server.tls requires a restart"), reload);
        assert_eq!(daemon.logged("Configuration reloaded"), reload);
    }
    drop(daemon);
    let daemon = place.daemon();
    assert_eq!([status(&daemon, "https"), status(&daemon, "http")], ["000", "200"]);
}

#[test]
fn reload_that_removes_every_probe_changes_nothing() {
    let simulator = simulator("");
    let good = format!("{LISTEN}{FAST}{}", provider(&simulator, "openai", "openai/v1", KEY));
    let place = Place::new(&good);
    let mut daemon = place.daemon();
    wait_for_success(&daemon, "openai-auth", 1.0);
    let before = daemon.scrape();
    let unused = good.replace("checks = [\"auth\"]\n", "");
    for text in ["", "\n# rendered from nothing\n", LISTEN, &good[..LISTEN.len() + FAST.len()], &unused] {
        place.write("config.toml", text);
        let answer = daemon.request("POST", "/-/reload");
        assert_eq!(answer.status, 500, "{text:?}: {answer:?}");
        assert!(answer.body.contains("no probe is configured"), "{text:?}: {answer:?}");
        let after = daemon.scrape();
        assert_eq!(after.value("langmart_prober_config_last_reload_successful", &[]), 0.0, "{text:?}");
        assert_eq!(after.setbacks(&before), [""; 0], "{text:?}");
    }
    place.write("config.toml", &good);
    assert_eq!(daemon.request("POST", "/-/reload").status, 200);
    assert_eq!(daemon.scrape().value("langmart_prober_config_last_reload_successful", &[]), 1.0);
    let log = daemon.stop();
    assert_eq!(log.matches("ERROR").count(), 5, "{log}");
    assert!(log.contains("keys=environment variable SIM_KEY"), "{log}");
    // A start without a key is allowed, because the package has none.
    place.write("config.toml", LISTEN);
    place.daemon();
}

/// Resources of the process while no run is in flight.
struct Held {
    resident: f64,
    runs: f64,
    threads: usize,
    descriptors: u64,
}

impl Held {
    fn by(daemon: &Daemon) -> Self {
        let idle = |scrape: &Scrape| scrape.value("langmart_prober_runs_in_flight", &[]) == 0.0;
        let scrape = daemon.scrape_until("the runs to end", idle);
        let resident = scrape.value("process_resident_memory_bytes", &[]);
        let runs = scrape.sum("langmart_probe_runs_total");
        // The minimum of several reads, because the connection of a scrape ends when the daemon
        // gets to it.
        let look = |_| {
            thread::sleep(Duration::from_millis(10));
            let tasks = format!("/proc/{}/task", daemon.pid().as_raw_nonzero());
            (fs::read_dir(tasks).unwrap().count(), daemon.descriptors())
        };
        let looks: Vec<_> = (0..50).map(look).collect();
        let threads = looks.iter().map(|(threads, _)| *threads).min().unwrap();
        Self { resident, runs, threads, descriptors: looks.iter().map(|(_, open)| *open).min().unwrap() }
    }
}

/// Returns a configuration of 175 probes that run once a second, with a log file.
fn many_probes(simulator: &Simulator, place: &Place) -> String {
    let provider =
        |number| provider(simulator, &format!("p{number}"), "openai/v1", &format!("api = \"openai\"\n{KEY}"));
    let probe = |number| {
        let provider = number % 25;
        format!("[[probe]]\nname = \"q{number}\"\nprovider = \"p{provider}\"\ncheck = \"models\"\n")
    };
    let providers = (0..25).map(provider).collect::<Vec<_>>().concat();
    let probes = (0..175).map(probe).collect::<Vec<_>>().concat();
    let fast = "[defaults]\ninterval = \"1s\"\n";
    let log = format!("[log]\ndirectory = \"{}\"\n", place.path("logs").display());
    format!("{LISTEN}{fast}{log}{providers}{probes}")
}

/// Returns what the daemon holds with the same probes and an interval of a week.
fn held_at_rest(daemon: &Daemon, place: &Place, config: &str) -> Held {
    place.write("config.toml", &config.replace("\"1s\"", "\"168h\""));
    daemon.reload();
    Held::by(daemon)
}

#[test]
fn hundred_reloads_under_load_leak_nothing() {
    const MIB: f64 = 1024.0 * 1024.0;
    const BYTES_A_RUN: f64 = 300.0;

    let simulator = simulator("[[rule]]\nfault = \"server_error\"\nprobability = 0.2");
    let extra = "[[probe]]\nname = \"extra\"\nprovider = \"p1\"\ncheck = \"models\"\n";
    let place = Place::new("");
    let config = many_probes(&simulator, &place);
    place.write("config.toml", &config);
    let daemon = place.daemon();
    daemon.scrape_until("a run of each probe", |scrape| {
        scrape.values("langmart_probe_runs_total", &[]).iter().all(|runs| *runs > 0.0)
    });
    let mut last = daemon.scrape();
    let mut reload = |number: usize| {
        place.write(
            "config.toml",
            &if number.is_multiple_of(2) { config.clone() } else { config.clone() + extra },
        );
        daemon.reload();
        let now = daemon.scrape();
        let setbacks = now.setbacks(&last);
        let of_extra = |series: &&String| series.contains("probe=\"extra\"");
        assert!(setbacks.iter().all(|series| of_extra(&series)), "reload {number}: {setbacks:#?}");
        assert_eq!(now.mentions(("probe", "extra")), number % 2 == 1);
        last = now;
    };
    let held = || held_at_rest(&daemon, &place, &config);
    (0..20).for_each(&mut reload);
    let early = held();
    (20..100).for_each(&mut reload);
    let late = held();
    let (early_mib, late_mib) = (early.resident / MIB, late.resident / MIB);
    // The pages keep the last hundred runs of each probe, with the details of failures.
    let remembered = (late.runs - early.runs) * BYTES_A_RUN / MIB;
    assert!(
        late_mib < early_mib + remembered + 4.0,
        "{early_mib} then {late_mib} MiB, {remembered} of which may be remembered runs"
    );
    // A configuration load during a check of the resolver's files has a thread of its own, which
    // may be kept.
    assert!(late.threads <= early.threads + 1, "{} then {} threads", early.threads, late.threads);
    assert_eq!(late.descriptors, early.descriptors, "descriptors");

    place.write("config.toml", &config);
    daemon.reload();
    place.write("config.toml", "nonsense");
    daemon.reload();
    let before = daemon.scrape();
    let after = wait_for("every probe to continue", || {
        let after = daemon.scrape();
        let runs = |scrape: &Scrape| scrape.sum("langmart_probe_runs_total");
        (runs(&after) > runs(&before) + 200.0).then_some(after)
    });
    assert_eq!(after.setbacks(&before), [""; 0]);
    assert_eq!(after.value("langmart_prober_config_last_reload_successful", &[]), 0.0);
    assert_eq!(daemon.logged("Configuration reloaded"), 103);
}
