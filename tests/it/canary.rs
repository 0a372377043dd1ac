//! Tests that no secret leaves the daemon, with canaries in keys and headers that are searched for
//! in all output.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    process::{Command, Output},
};

use langmart_prober::{
    config::{self, Environment, Keys},
    simulator::{Scenario, SimulatedService, Simulator},
};

use crate::harness::{
    daemon::{Daemon, LISTEN, Place, records},
    simulate::simulator,
};

/// Part of the key and of the secret header, so that masking or truncation would still show a part
/// of it.
const CANARY: &str = "cAnArY";

/// Parts that OpenAI's masking of the key would leave, and account details that the simulated
/// services echo.
const ECHOES: [&str; 7] =
    ["sk-cAnA", "org-simulated", "org_simulated", "user@example.com", "user_123", "Please sign in", "*nArY"];

/// A valid key, and one that the services reject and echo.
const KEYS: [&str; 2] = ["sk-cAnArY-0123456789-cAnArY", "sk-cAnArY-invalid-0123456789-cAnArY"];

/// Returns the names that the simulator lists in its error for an unknown one.
fn listed(rule: &str, before: &str) -> Vec<String> {
    let refusal = Scenario::parse(&format!("[[rule]]\n{rule}")).unwrap_err().to_string();
    let names = refusal.split_once(before).map(|(_, names)| names.trim_end().split(", "));
    names.into_iter().flatten().map(str::to_owned).collect()
}

/// Returns every fault of the simulator, in each of its variants, as the header requests it.
fn faults() -> Vec<String> {
    let mut faults = Vec::new();
    for name in listed("fault = \"?\"", "known faults: ") {
        match name.as_str() {
            "slow_headers" | "slow_body" => faults.push(format!("{name}; ms=60000")),
            // These apply before a request is read.
            "slow_accept" | "slow_handshake" | "reset_handshake" => {}
            _ => {
                let variants = listed(&format!("fault = \"{name}\"\nvariant = \"?\""), "it has ");
                faults.extend(variants.iter().map(|variant| format!("{name}; variant={variant}")));
                faults.push(name);
            }
        }
    }
    assert!(faults.len() >= 30, "{faults:?}");
    faults
}

/// Returns a provider for each API, fault and key, with each check that sends a request.
fn config(simulator: &Simulator, place: &Place) -> String {
    let mut text = format!(
        "{LISTEN}[state]\ndirectory = \"{}\"\n[budget]\n[log]\nlevel = \"trace\"\ndirectory = \"{}\"\n[schedule]\nmax_concurrent_per_provider = 1\n\
         [defaults]\ninterval = \"5s\"\ntimeout = \"300ms\"\n[defaults.generation]\ninterval = \"5s\"\ntimeout = \"300ms\"\n",
        place.path("state").display(),
        place.path("logs").display()
    );
    for api in SimulatedService::ALL {
        let model = match api {
            SimulatedService::Langmart | SimulatedService::Openrouter => "openai/gpt-4o-mini",
            SimulatedService::Openai => "gpt-4o-mini",
            SimulatedService::Anthropic => "claude-3-5-haiku-latest",
            SimulatedService::Groq => "llama-3.1-8b-instant",
            SimulatedService::Google => "gemini-2.0-flash",
        };
        let faults = faults();
        let refused = ("REFUSED", String::new());
        let known = faults.iter().map(|fault| ("KNOWN", format!(", \"x-simulate\" = \"{fault}\"")));
        for (number, (key, header)) in std::iter::once(refused).chain(known).enumerate() {
            let name = format!("{}-{number}", api.name());
            // Faults of streams ignore other requests.
            let check = if header.contains("\"stream_") { "stream" } else { "chat" };
            write!(
                text,
                "[provider.{name}]\napi = \"{}\"\nbase_url = \"http://{}{}\"\napi_key = {{ env = \"{key}\" }}\n\
                 headers = {{ \"x-tenant\" = {{ env = \"TENANT\" }}{header} }}\nchecks = [\"auth\", \"models\"]\n\
                 [[probe]]\nname = \"{name}-{check}\"\nprovider = \"{name}\"\ncheck = \"{check}\"\nmodel = \"{model}\"\n",
                api.name(),
                simulator.address(),
                api.prefix(),
            )
            .unwrap();
        }
    }
    // Failures before a request.
    let tls = simulator.tls_address().unwrap().port();
    for (number, base_url) in [
        "https://127.77.0.1:9".to_owned(),
        "http://nothing.invalid".to_owned(),
        format!("https://reset.localhost:{tls}/openai/v1"),
        format!("https://expired.localhost:{tls}/openai/v1"),
    ]
    .iter()
    .enumerate()
    {
        write!(
            text,
            "[provider.way-{number}]\napi = \"openai\"\nbase_url = \"{base_url}\"\napi_key = {{ env = \"KNOWN\" }}\n\
             allow_plain_http = true\nchecks = [\"auth\"]\n"
        )
        .unwrap();
    }
    text
}

#[track_caller]
fn check_silence(what: &str, text: &str) {
    assert!(!text.is_empty(), "{what} is empty");
    for secret in [CANARY].iter().chain(&ECHOES) {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{what} has {secret}: {}", line.unwrap_or_default());
    }
}

#[track_caller]
fn check_output(what: &str, output: &Output) {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    check_silence(what, &text.concat());
}

fn commanded(place: &Place, subcommand: &str) -> Command {
    let mut command = place.command(subcommand);
    command.env("KNOWN", KEYS[0]).env("REFUSED", KEYS[1]).env("TENANT", format!("tenant-{CANARY}"));
    command
}

#[test]
fn daemon_output_has_no_secret() {
    let simulator = simulator("");
    let place = Place::new("");
    let good = config(&simulator, &place);
    place.write("config.toml", &good);
    let mut daemon = Daemon::start(commanded(&place, "run"));
    daemon.scrape_until("a run of every probe", |scrape| {
        scrape.values("langmart_probe_runs_total", &[]).iter().all(|runs| *runs > 0.0)
    });
    check_silence("/metrics", &daemon.get("/metrics").body);
    let api = daemon.get("/api/v1/results?limit=10000").body;
    check_silence("/api/v1/results", &api);
    for path in ["/", "/api/v1/probes"] {
        check_silence(path, &daemon.get(path).body);
    }
    let api: serde_json::Value = serde_json::from_str(&api).unwrap();
    let told = api["results"].as_array().unwrap();
    let probes: BTreeSet<String> =
        told.iter().map(|record| record["probe"].as_str().unwrap().to_owned()).collect();
    assert!(probes.len() > 20, "{probes:?}");
    for probe in probes {
        let page = daemon.get(&format!("/probes/{probe}"));
        assert_eq!(page.status, 200);
        check_silence(&probe, &page.body);
    }
    for probe in ["openai-0-auth", "way-0-auth"] {
        check_silence("/probe", &daemon.get(&format!("/probe?target={probe}&debug=true")).body);
    }
    check_silence("the answer to a reload", &daemon.request("POST", "/-/reload").body);

    let played: BTreeSet<_> = simulator.requests().iter().filter_map(|request| request.fault).collect();
    let missed: Vec<_> =
        faults().into_iter().filter(|f| !played.contains(f.split(';').next().unwrap())).collect();
    assert_eq!(missed, [""; 0], "faults that no request triggered");

    let literal = format!(
        "{good}[provider.a]\napi = \"openai\"\napi_key = \"{0}\"\nbase_url = \"https://u:{0}@h/\"\n\
         [provider.b]\napi = \"openai\"\napi_key = {{ env = \"{0}\" }}\nheaders = {{ authorization = \"{0}\", \"a b\" = \"{0}\" }}\n",
        KEYS[0]
    );
    place.write("config.toml", &literal);
    let answer = daemon.request("POST", "/-/reload");
    assert_eq!(answer.status, 500);
    check_silence("the answer to a bad reload", &answer.body);
    check_output("check-config of a bad file", &commanded(&place, "check-config").output().unwrap());
    let log = daemon.stop();
    assert!(log.contains("Failed to reload configuration"), "{log}");
    check_silence("standard error", &log);
    check_silence("prober.log", &place.files("logs", "prober.log"));
    let results = place.files("logs", "results.jsonl");
    check_silence("results.jsonl", &results);
    let lines = records(&results);
    let elsewhere: Vec<_> = told.iter().filter(|record| !lines.contains(record)).collect();
    assert!(elsewhere.is_empty(), "the API returns records that results.jsonl does not have: {elsewhere:?}");
    let state = place.files("state", "state.json");
    assert!(state.contains("\"last_run\""), "{state}");
    check_silence("state.json", &state);
    let reasons: BTreeSet<_> = lines.iter().map(|record| record["reason"].to_string()).collect();
    assert!(reasons.len() >= 17, "too few reasons: {reasons:?}");
}

#[test]
fn command_output_has_no_secret() {
    let simulator = simulator("");
    let place = Place::new("");
    place.write("config.toml", &config(&simulator, &place));
    check_output("once", &commanded(&place, "once").output().unwrap());
    let verbose = commanded(&place, "once").arg("--verbose").output().unwrap();
    let said = [&verbose.stdout, &verbose.stderr].map(|text| String::from_utf8_lossy(text)).concat();
    assert!(said.contains("> authorization: ***\n") && said.contains("< "), "{said}");
    // Account details echoed by services may be shown, but no keys or parts of them.
    for secret in [CANARY, ECHOES[0], ECHOES[6]] {
        let line = said.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "once --verbose has {secret}: {}", line.unwrap_or_default());
    }
    check_output("once --json", &commanded(&place, "once").arg("--json").output().unwrap());
    check_output("check-config", &commanded(&place, "check-config").output().unwrap());
    let environment = Environment {
        variable: &|name| match name {
            "KNOWN" | "REFUSED" => Some(KEYS[0].into()),
            "TENANT" => Some(CANARY.into()),
            _ => None,
        },
        system_roots: &Vec::new,
    };
    let text = fs::read_to_string(place.path("config.toml")).unwrap();
    let loaded = config::parse(&text, "config.toml", Keys::Required, &environment).unwrap();
    check_silence("Debug of the configuration", &format!("{:#?}", loaded.config));
}
