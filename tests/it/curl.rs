//! Tests of the `curl` lines on the pages: in a shell they send the probes' requests, and they
//! contain no secret.

use std::process::Command;

use langmart_prober::{
    config::{HttpRequest, Key, KeySource, Probe, Provider, Secret, Task},
    outcome::{Api, Check},
    probe::curl,
    simulator::Recorded,
};
use reqwest::header::HeaderValue;

use crate::harness::{parts, probes, simulate::simulator};

/// Returns the output of the command.
#[track_caller]
fn ask(probe: &Probe) -> String {
    let line = curl(probe);
    assert!(!line.contains("canary"), "{line}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env("KEY", "sk-test-canary").env("X_TENANT", "canary").env("QUERY", "a=canary");
    let output = shell.output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{line}\n{said}");
    said
}

#[test]
fn curl_commands_run_in_a_shell() {
    if !parts::has(&["curl", "sh"], false) {
        return;
    }
    // Characters that a shell interprets must arrive unchanged.
    let model = "it's-a-\"model\"-$KEY";
    let apis = [
        (Api::Langmart, "langmart"),
        (Api::Openai, "openai/v1"),
        (Api::Anthropic, "anthropic"),
        (Api::Groq, "groq/openai/v1"),
        (Api::Google, "google/v1beta"),
        (Api::Openrouter, "openrouter/api/v1"),
    ];
    // The simulated Google compares models as written in the path.
    let in_path = model.replace('"', "%22");
    let known = apis.map(|(api, _)| format!("{api} = [{model:?}, {in_path:?}]\n")).concat();
    let simulator = simulator(&format!("[models]\n{known}"));
    let mut sensitive = HeaderValue::from_static("canary");
    sensitive.set_sensitive(true);
    for (api, path) in apis {
        for check in [Check::Health, Check::Auth, Check::Models, Check::Chat, Check::Stream] {
            if check == Check::Health && api != Api::Langmart {
                continue;
            }
            let base = format!("http://{}/{path}", simulator.address());
            let headers = vec![("x-tenant".parse().unwrap(), sensitive.clone())];
            let provider = Provider { headers, ..probes::provider(api, &base) };
            let model = check.generates().then(|| model.to_owned());
            let probe = Probe { model, ..probes::probe(provider, check) };
            let said = ask(&probe);
            let begins: &[_] =
                if check == Check::Stream { &["data:", "event:", ":"] } else { &["HTTP/1.1 200 "] };
            assert!(begins.iter().any(|begin| said.starts_with(begin)), "{api} {check}: {said}");
            assert!(check != Check::Stream || !said.contains("error"), "{api} {check}: {said}");
            // The probe itself sends the same request.
            let outcome = probes::run(probe);
            assert!(outcome.success(), "{api} {check}: {outcome:?}");
            let requests = simulator.requests();
            let [.., by_hand, by_probe] = requests.as_slice() else { panic!("{requests:?}") };
            let asked = |request: &Recorded| {
                let Recorded { method, path, query, model, key_header, status, .. } = request.clone();
                (method, path, query, model, key_header, status)
            };
            assert_eq!(asked(by_hand), asked(by_probe), "{api} {check}");
        }
    }
}

/// Returns a probe that sends a HEAD request.
fn head(provider: Provider) -> Probe {
    let mut probe = probes::probe(provider, Check::Http);
    if let Task::Http(request) = &mut probe.task {
        request.method = "HEAD".parse().unwrap();
    }
    probe
}

#[test]
fn curl_options_are_those_of_the_provider() {
    let provider = Provider {
        name: "01ai".to_owned(),
        key: Some(Key {
            value: Secret::new(String::new()),
            source: KeySource::Credential("01ai".to_owned()),
        }),
        ignores_environment_proxy: true,
        ca_file: Some("/etc/own ca.pem".into()),
        ..probes::provider(Api::Openai, "https://127.0.0.1:9/v1")
    };
    let head = head(provider.clone());
    assert_eq!(
        curl(&head),
        "curl -sS --max-time 10 --noproxy '*' --cacert '/etc/own ca.pem' -I \
         -H \"authorization: Bearer $_01AI_API_KEY\" 'https://127.0.0.1:9/v1/x'"
    );
    let proxy = Some("http://127.0.0.1:8/".parse().unwrap());
    let line = curl(&probes::probe(Provider { proxy, ..provider }, Check::Auth));
    assert!(line.contains(" --proxy 'http://127.0.0.1:8/'") && !line.contains("--noproxy"), "{line}");
}

#[test]
fn curl_of_a_head_request_runs_in_a_shell() {
    if !parts::has(&["curl", "sh"], false) {
        return;
    }
    let simulator = simulator("");
    let provider = probes::provider(Api::Openai, &format!("http://{}/openai/v1", simulator.address()));
    let said = ask(&head(provider));
    assert!(said.starts_with("HTTP/1.1 "), "{said}");
    assert_eq!(simulator.requests().last().unwrap().method, "HEAD");
}

#[test]
fn curl_secrets_are_variables() {
    let provider = probes::provider(Api::Openai, "http://127.0.0.1:9/v1");
    let request = HttpRequest {
        method: "POST".parse().unwrap(),
        path: "/x?token=canary".to_owned(),
        body: Some("canary".to_owned()),
        headers: Vec::new(),
        send_key: true,
        expect: langmart_prober::config::Expect::default(),
    };
    let probe = Probe { task: Task::Http(Box::new(request)), ..probes::probe(provider, Check::Auth) };
    assert_eq!(
        curl(&probe),
        "curl -sS --max-time 10 -i -X POST -H \"authorization: Bearer $KEY\" --data \"$BODY\" \
         'http://127.0.0.1:9/v1/x'\"?$QUERY\""
    );
    let network = probes::probe(probes::provider(Api::Openai, "http://127.0.0.1:9/v1"), Check::Network);
    assert!(curl(&network).ends_with("'http://127.0.0.1:9/v1'"), "{}", curl(&network));
}
