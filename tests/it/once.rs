//! Tests of `once`: output and exit status.

use std::collections::BTreeSet;

use langmart_prober::simulator::Simulator;
use serde_json::Value;

use crate::harness::{
    daemon::{KEY, Place, records},
    simulate::{play, simulator},
};

/// Every member of a record in the contract, and the required ones.
const MEMBERS: [&str; 33] = [
    "clock",
    "failed_addresses",
    "time",
    "probe",
    "provider",
    "check",
    "model",
    "success",
    "reason",
    "fault",
    "detail",
    "hint",
    "http_status",
    "http_version",
    "limited_by",
    "reported_processing_seconds",
    "model_shutdown",
    "answered_model",
    "model_match",
    "cached_input_tokens",
    "error_code",
    "upstream",
    "request_id",
    "retry_after_seconds",
    "duration_seconds",
    "phases",
    "remote_address",
    "ratelimit",
    "tls",
    "dns",
    "input_tokens",
    "output_tokens",
    "clock_offset_seconds",
];
const ALWAYS: [&str; 9] =
    ["time", "probe", "provider", "check", "success", "reason", "fault", "duration_seconds", "phases"];

/// Returns probes that succeed, have a rejected key, are rate limited, and cannot connect.
fn place(simulator: &Simulator) -> Place {
    let address = simulator.address();
    let place = Place::new("");
    place.write("key", "sk-invalid-0123456789");
    place.write("other", "sk-0123456789");
    let [key, other] =
        ["key", "other"].map(|name| format!("api_key = {{ file = \"{}\" }}", place.path(name).display()));
    let logs = place.path("logs");
    place.write("config.toml", &format!(
        "[log]\ndirectory = \"{}\"\n\
         [provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n\
         [provider.langmart]\nbase_url = \"http://{address}/langmart\"\n{key}\nchecks = [\"auth\"]\n\
         [provider.groq]\nbase_url = \"http://{address}/groq/openai/v1\"\n{KEY}\nchecks = []\n\
         [[probe]]\nname = \"groq-chat\"\nprovider = \"groq\"\ncheck = \"chat\"\nmodel = \"llama-3.1-8b-instant\"\n\
         [provider.nowhere]\napi = \"openai\"\nbase_url = \"https://127.77.0.1:9\"\n{other}\nchecks = [\"auth\"]\n",
        logs.display()
    ));
    place
}

const LIMITED: &str = "[[rule]]\nprovider = \"groq\"\nfault = \"rate_limited\"\nretry_after = \"30s\"";

#[test]
fn records_follow_the_contract() {
    let simulator = simulator(LIMITED);
    let place = place(&simulator);
    let output = place.run("once", &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = records(&output.stdout);
    let names: Vec<_> = found.iter().map(|record| record["probe"].as_str().unwrap()).collect();
    assert_eq!(names, ["openai-auth", "langmart-auth", "groq-chat", "nowhere-auth"], "in the file's order");
    for record in &found {
        let members: BTreeSet<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
        let known = BTreeSet::from(MEMBERS);
        assert!(members.is_subset(&known), "{:?}", members.difference(&known));
        assert!(ALWAYS.iter().all(|member| members.contains(member)), "{record:#}");
        assert!(!record.as_object().unwrap().values().any(Value::is_null), "{record:#}");
        let phases = record["phases"].as_object().unwrap();
        assert!(
            ["resolve", "connect", "tls", "processing", "transfer"]
                .iter()
                .all(|phase| phases[*phase].is_f64())
        );
    }
    let [openai, langmart, groq, nowhere] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(
        (&openai["success"], &openai["reason"], &openai["fault"]),
        (&true.into(), &"ok".into(), &"none".into())
    );
    assert_eq!((&openai["http_status"], &openai["http_version"]), (&200.into(), &"1.1".into()));
    assert_eq!(openai["remote_address"], simulator.address().to_string());
    assert_eq!((&langmart["reason"], &langmart["fault"]), (&"auth_failed".into(), &"caller".into()));
    assert_eq!((&groq["reason"], &groq["retry_after_seconds"]), (&"rate_limited".into(), &30.0.into()));
    assert_eq!(groq["limited_by"], "tokens");
    assert_eq!((&groq["model"], &groq["http_status"]), (&"llama-3.1-8b-instant".into(), &429.into()));
    assert!(groq["ratelimit"][0]["resource"].is_string() && groq["request_id"].is_string(), "{groq:#}");
    assert_eq!((&nowhere["reason"], &nowhere["http_status"]), (&"connect".into(), &Value::Null));
    // It does not write the daemon's files, and sends each request once.
    assert!(!place.path("logs").exists());
    assert_eq!(simulator.requests().len(), 3);
}

#[test]
fn results_go_to_stdout_and_remedies_to_stderr() {
    let simulator = simulator(LIMITED);
    let place = place(&simulator);
    let output = place.run("once", &[]);
    assert_eq!(output.status.code(), Some(1));
    let [table, remedies] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words[0],
        [
            "PROBE",
            "RESULT",
            "FAULT",
            "STATUS",
            "TOTAL",
            "RESOLVE",
            "CONNECT",
            "TLS",
            "PROCESSING",
            "TRANSFER"
        ]
    );
    assert_eq!(words.len(), 5, "{table}");
    assert_eq!(words[1][..3], ["openai-auth", "ok", "200"]);
    assert_eq!(words[2][..4], ["langmart-auth", "auth_failed", "caller", "401"]);
    assert_eq!(words[3][..4], ["groq-chat", "rate_limited", "caller", "429"]);
    assert_eq!(words[4][..3], ["nowhere-auth", "connect", "network"]);
    assert!(!table.contains('\u{1b}') && !remedies.contains('\u{1b}'), "no colour without a terminal");
    for remedy in [
        "langmart-auth: auth_failed",
        "check the key under Settings > API Keys",
        "groq-chat: rate_limited",
        "retry after 30 s",
        "too many tokens in a window",
        "nowhere-auth: connect, on the network path: connection refused",
        "check that firewalls let this machine out",
    ] {
        assert!(remedies.contains(remedy), "{remedy:?} is not in:\n{remedies}");
    }
    assert!(!remedies.contains("openai-auth"), "{remedies}");
}

#[test]
fn exit_status_is_the_worst_result() {
    let simulator = simulator(LIMITED);
    let place = place(&simulator);
    let good = place.run("once", &["openai-auth", "--json"]);
    assert_eq!((good.status.code(), good.stderr.as_slice()), (Some(0), &b""[..]), "{good:?}");
    assert_eq!((records(&good.stdout).len(), simulator.requests().len()), (1, 1));
    let both = place.run("once", &["openai-auth", "nowhere-auth"]);
    assert_eq!(both.status.code(), Some(1), "{both:?}");

    let unknown = place.run("once", &["openai-auth", "openai-aut"]);
    assert_eq!((unknown.status.code(), unknown.stdout.as_slice()), (Some(2), &b""[..]));
    let message = String::from_utf8(unknown.stderr).unwrap();
    assert!(message.contains("openai-aut;"), "{message}");
    assert!(message.contains("openai-auth, langmart-auth, groq-chat, nowhere-auth"), "{message}");
    assert_eq!(place.run("once", &["--nonsense"]).status.code(), Some(2));
    assert_eq!(simulator.requests().len(), 2, "no probe is run if a name is unknown");

    place.write("config.toml", "[provider.openai]\nsurprise = 1\n[server]\nlisten = \"x\"\n");
    let bad = place.run("once", &["--json"]);
    assert_eq!((bad.status.code(), bad.stdout.as_slice()), (Some(78), &b""[..]));
    let message = String::from_utf8(bad.stderr).unwrap();
    assert!(message.contains("provider.openai.surprise") && message.contains("server.listen"), "{message}");
}

#[test]
fn all_credentials_are_had_by_one_line() {
    let provider =
        |name| format!("[provider.{name}]\napi_key = {{ credential = \"{name}\" }}\nchecks = [\"auth\"]\n");
    let place = Place::new(&(provider("groq") + &provider("openai")));
    let output = place.command("once").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    let line = format!(
        "\n  systemd-run --pipe --wait --collect --quiet --property=LoadCredential=groq:/etc/credstore/groq \
         --property=LoadCredential=openai:/etc/credstore/openai langmart-prober once --config {}\n",
        place.path("config.toml").display()
    );
    assert!(said.ends_with(&line), "{said}");
    // The hint repeats the arguments; without them every probe would run, and spend.
    let output = place.run("once", &["--json", "--verbose", "openai-auth"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with("/config.toml --json --verbose openai-auth\n"), "{said}");
    // In the unit, systemd provides the directory.
    let output = place.command("once").env("CREDENTIALS_DIRECTORY", place.path("none")).output().unwrap();
    assert!(!String::from_utf8(output.stderr).unwrap().contains("systemd-run"));
}

#[test]
fn body_of_stream_request_is_shown() {
    let simulator = simulator("");
    let place = Place::new(&format!(
        "[provider.groq]\nbase_url = \"http://{}/groq/openai/v1\"\n{KEY}\n\
         [[probe]]\nname = \"s\"\nprovider = \"groq\"\ncheck = \"stream\"\nmodel = \"llama-3.1-8b-instant\"\n",
        simulator.address()
    ));
    let output = place.run("once", &["--verbose"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("\"stream\":true"), "{said}");
}

/// Tests that measure time.
mod phases {
    use super::*;

    #[test]
    fn models_are_ranked_by_what_was_measured() {
        // So different that the load of the machine cannot change the order.
        let simulator = simulator(
            "[[rule]]\nprovider = \"groq\"\npace = { first_token = \"5ms\", token = \"2ms\", tokens = 100 }\n\
             [[rule]]\nprovider = \"openai\"\npace = { first_token = \"3s\" }\n\
             [[rule]]\nmodel = \"llama-3.1-8b-instant\"\nfault = \"unavailable\"",
        );
        let address = simulator.address();
        let probe = |name: &str, provider: &str, check: &str, model: &str| {
            format!(
                "[[probe]]\nname = \"{name}\"\nprovider = \"{provider}\"\ncheck = \"{check}\"\nmodel = \"{model}\"\n"
            )
        };
        let place = Place::new(&format!(
            "[provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n{KEY}\n\
             [provider.groq]\nbase_url = \"http://{address}/groq/openai/v1\"\n{KEY}\n{}{}{}",
            probe("slow", "openai", "chat", "gpt-4o"),
            probe("fast", "groq", "stream", "openai/gpt-oss-20b"),
            probe("gone", "groq", "stream", "llama-3.1-8b-instant"),
        ));
        let output = place.run("once", &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let (table, ranking) = printed.split_once("\n\n").expect("a blank line before the ranking");
        let words: Vec<Vec<&str>> = ranking.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words[0],
            ["MODEL", "PROVIDER", "RUNS", "FIRST", "TOKEN", "TOKENS/S", "TOTAL"],
            "{ranking}"
        );
        assert_eq!((words.len(), &words[1][..3]), (3, &["openai/gpt-oss-20b", "groq", "1"][..]), "{ranking}");
        // Time to first token, tokens per second and total, two of them with a unit; a chat has
        // only the total.
        assert_eq!((words[1].len(), words[1][4], words[1][7]), (8, "ms", "ms"), "{ranking}");
        assert_eq!((&words[2][..3], words[2].len()), (&["gpt-4o", "openai", "1"][..], 5), "{ranking}");

        // The table has a column for the first token, which only a stream fills.
        let column = table.lines().next().unwrap().find("FIRST TOKEN").unwrap();
        let cells: Vec<&str> =
            table.lines().skip(1).map(|line| line[column..column + "FIRST TOKEN".len()].trim()).collect();
        assert_eq!((cells[0], cells[2]), ("", ""), "{table}");
        assert!(cells[1].ends_with(" ms"), "{table}");

        play(
            &simulator,
            "[[rule]]\nprovider = \"groq\"\npace = { token = \"2ms\", tokens = 9 }\n\
             [[rule]]\nmodel = \"llama-3.1-8b-instant\"\nfault = \"unavailable\"",
        );
        let short = String::from_utf8(place.run("once", &[]).stdout).unwrap();
        assert!(short.ends_with("use workload = \"speed\" in the probe.\n"), "{short}");

        let alone = place.run("once", &["fast"]);
        assert_eq!(
            String::from_utf8(alone.stdout).unwrap().lines().count(),
            2,
            "a single model is not ranked"
        );
        let records = place.run("once", &["--json"]);
        assert_eq!(self::records(&records.stdout).len(), 3, "records alone");
    }
}
