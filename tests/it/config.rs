//! Tests of configuration: bad files with their messages, the example, canaries, and noise.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use langmart_prober::{
    commands::{CheckConfig, check_config},
    config::{Config, Environment, KeySource, Keys, Loaded, Problems, Task, dns_server_name, load, parse},
    outcome::Api,
};
use proptest::prelude::*;

/// A bcrypt hash of an unused password.
const HASH: &str = "$2y$10$ilw2DDaAotOFnLjBDKD31uyjQ2JYK4CUEme.wS2r6PytKIWfdB27S";

/// Part of every secret in these tests, and of nothing else.
const CANARY: &str = "canary";

/// Returns a variable of the environment of these tests.
fn variable(name: &str) -> Option<OsString> {
    let value = match name {
        "LANGMART_API_KEY" => "sk-canary-0123",
        "TENANT" => "canary-tenant",
        "LANGMARTS" => "sk-langmart-canary",
        "ANTHROPICS" => "sk-ant-canary",
        "PROXY_AUTH" => "user:canary:with@colon",
        "PROXY_LINES" => "user:canary\n",
        "PROXY_BARE" => "canary",
        "QUOTED" => "\"sk-canary\"",
        "BEARER" => "Bearer sk-canary",
        "SPACED" => "sk-canary ",
        "EMPTY" => "",
        "PLACEHOLDER" => "YOUR_API_KEY",
        "UNPRINTABLE" => "sk-canary\u{200b}",
        "STATE_DIRECTORY" => "/var/lib/langmart-prober:/var/lib/other",
        "LOGS_DIRECTORY" => "/var/log/langmart-prober:/var/log/other",
        _ => return None,
    };
    Some(value.into())
}

/// Environment with one trusted root, which is not used.
const ENVIRONMENT: Environment<'static> =
    Environment { variable: &variable, system_roots: &|| vec![vec![0].into()] };

fn read(text: &str) -> Result<Loaded, Problems> {
    parse(text, "config.toml", Keys::Required, &ENVIRONMENT)
}

#[track_caller]
fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|problems| panic!("{problems}\n--- of:\n{text}")).config
}

#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    let loaded = read(text).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.warnings.iter().map(ToString::to_string).collect()
}

fn bad_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/bad");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "the folder of bad files is missing");
    files
}

fn messages(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    match parse(&text, name, Keys::Required, &ENVIRONMENT) {
        Ok(_) => format!("{name} was accepted\n"),
        Err(problems) => format!("{problems}\n"),
    }
}

#[test]
fn bad_file_has_its_exact_messages() {
    let mut failures = Vec::new();
    for path in bad_files() {
        let actual = messages(&path);
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        if actual != expected {
            failures.push(format!("--- {}, expected:\n{expected}--- actual:\n{actual}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.concat());
}

#[test]
fn bad_file_leaks_no_secret() {
    for path in bad_files() {
        let text = fs::read_to_string(&path).unwrap();
        for keys in [Keys::Required, Keys::Reported, Keys::ReportedOf(&[]), Keys::Skipped] {
            let problems = parse(&text, "config.toml", keys, &ENVIRONMENT).map(|_| ()).unwrap_err();
            for shown in [problems.to_string(), format!("{problems:?}")] {
                assert!(!shown.contains(CANARY), "{}: {shown}", path.display());
            }
        }
    }
}

#[test]
fn loaded_configuration_shows_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let (key, path) = (directory.path().join("key"), directory.path().join("config.toml"));
    fs::write(&key, "sk-canary-file\n").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        r#"
        [provider.langmart]
        api_key = {{ env = "LANGMART_API_KEY" }}
        checks = ["auth"]
        headers = {{ "x-literal" = "canary", "x-tenant" = {{ env = "TENANT" }} }}
        [provider.openai]
        api_key = {{ file = "{}" }}
        [[probe]]
        name = "http"
        provider = "openai"
        check = "http"
        path = "/"
        method = "POST"
        body = "canary"
        headers = {{ "x-own" = "canary" }}
        "#,
        key.display()
    );
    fs::write(&path, &text).unwrap();

    let loaded = read(&text).unwrap();
    let shown = format!("{loaded:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    let langmart = &loaded.config.providers["langmart"];
    assert_eq!(langmart.key.as_ref().unwrap().value.expose(), "sk-canary-0123");
    assert_eq!(langmart.headers[1].1, "canary-tenant");
    assert_eq!(loaded.config.providers["openai"].key.as_ref().unwrap().value.expose(), "sk-canary-file");

    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(check_config(&CheckConfig::new(&path), &ENVIRONMENT, &mut out, &mut err), 0);
    let printed = String::from_utf8([out, err].concat()).unwrap();
    assert!(printed.contains("langmart-auth") && !printed.contains(CANARY), "{printed}");
}

#[test]
fn empty_file_has_all_defaults() {
    let config = good("");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:10429");
    assert_eq!(config.log.filter, "info");
    assert_eq!(config.log.directory.as_deref(), Some(Path::new("/var/log/langmart-prober")));
    assert_eq!((config.log.max_files, config.log.max_file_size), (14, 104_857_600));
    assert_eq!((config.schedule.max_concurrent, config.schedule.max_concurrent_per_provider), (64, 8));
    assert_eq!(config.schedule.max_backoff, Duration::from_secs(3_600));
    assert_eq!(
        warnings(""),
        ["config.toml: no probe is configured; add checks to a provider or a [[probe]]"]
    );
}

#[test]
fn key_at_unusual_host_is_a_warning() {
    let provider = |name: &str, api: &str, url: &str, key: &str| {
        let url = if url.is_empty() { String::new() } else { format!("base_url = \"{url}\"\n") };
        let section = format!("[provider.{name}]\napi = \"{api}\"\n{url}");
        format!("{section}api_key = {{ env = \"{key}\" }}\nchecks = [\"auth\"]\n")
    };
    let suspected = |place: &str, begins: &str, owner: &str, goes: &str| {
        format!(
            "config.toml:{place}.api_key: the key begins with {begins} like keys of {owner}, but is sent to {goes}; \
             check which key is stored"
        )
    };
    assert_eq!(
        warnings(&provider("openai", "openai", "", "LANGMARTS")),
        [suspected("3: provider.openai", "sk-langmart-", "langmart", "openai")]
    );
    // An own gateway needs its own keys, even if it forwards them; so does a known host.
    assert_eq!(
        warnings(&provider("a", "langmart", "https://llm.example", "ANTHROPICS")),
        [suspected("4: provider.a", "sk-ant-", "anthropic", "langmart")]
    );
    assert_eq!(
        warnings(&provider("a", "openai", "https://api.groq.com/openai/v1", "ANTHROPICS")),
        [suspected("4: provider.a", "sk-ant-", "anthropic", "groq")]
    );
    for (api, url, key) in [
        ("openai", "https://api.langmart.ai/v1", "LANGMARTS"),
        ("openai", "https://llm.example/v1", "ANTHROPICS"),
        ("anthropic", "https://llm.example", "LANGMARTS"),
        ("anthropic", "", "ANTHROPICS"),
    ] {
        assert_eq!(warnings(&provider("a", api, url, key)), [""; 0], "{api} {url} {key}");
    }

    let text = [
        provider("production", "langmart", "", "LANGMARTS"),
        provider("staging", "langmart", "https://staging.example", "LANGMARTS"),
        provider("dialect", "openai", "https://api.langmart.ai/v1", "LANGMARTS"),
        provider("simulator", "langmart", "http://127.0.0.1:1", "LANGMART_API_KEY"),
        provider("another", "openai", "http://[::1]:1", "LANGMART_API_KEY"),
    ];
    assert_eq!(
        warnings(&text.concat()),
        ["config.toml:8: provider.staging.api_key: environment variable LANGMARTS is also the key of \
          provider.production, which is another host; a key is usually valid for one service only"]
    );
}

#[test]
fn tolerable_problem_is_a_warning() {
    assert_eq!(
        warnings("[provider.langmart]\n[provider.groq]\nhealth_path = \"/h\"\nchecks = [\"health\"]\n"),
        [
            "config.toml:1: provider.langmart: no probe uses this provider; add checks or a [[probe]], or remove it"
        ]
    );
    let text = "[log]\nstderr = false\n[provider.langmart]\nchecks = [\"health\"]\n";
    let nowhere = Environment { variable: &|_| None, system_roots: &Vec::new };
    let loaded = parse(text, "config.toml", Keys::Required, &nowhere).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("config.toml: the system has no trusted root"), "{warnings:?}");
    assert_eq!(
        warnings[1],
        "config.toml:2: log.stderr: nothing will be logged; set log.directory, or leave log.stderr true"
    );
}

#[test]
fn public_listener_requires_consent() {
    let config = good(
        "[server]\nlisten = \"[::]:0\"\nallow_unauthenticated = true\nhostnames = [\"A.Example\", \"::1\"]",
    );
    assert_eq!(config.server.listen.to_string(), "[::]:0");
    assert_eq!(config.server.hostnames, ["a.example", "[::1]"]);
    good("[server]\nlisten = \"[::ffff:127.0.0.1]:1\"");
    let users = format!("basic_auth = {{ alice = \"{HASH}\" }}");
    let config = good(&format!("[server]\nlisten = \"0.0.0.0:1\"\n{users}"));
    assert_eq!(config.server.users.keys().collect::<Vec<_>>(), ["alice"]);
    let told = warnings(&format!(
        "[server]\nlisten = \"0.0.0.0:1\"\n{users}\n[provider.groq]\nchecks = [\"status\"]"
    ));
    assert!(
        matches!(&told[..], [one] if one.contains("server.basic_auth: passwords are sent unencrypted")),
        "{told:?}"
    );
    assert_eq!(warnings(&format!("[server]\n{users}\n[provider.groq]\nchecks = [\"status\"]")), [""; 0]);
}

#[test]
fn certificate_and_key_are_judged_at_load() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let made = || rcgen::generate_simple_self_signed(["prober.example".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let write = |name: &str, text: &str, mode| {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
    };
    write("one.crt", &one.cert.pem(), 0o644);
    write("one.key", &one.signing_key.serialize_pem(), 0o600);
    write("open.key", &one.signing_key.serialize_pem(), 0o644);
    write("other.key", &other.signing_key.serialize_pem(), 0o600);
    write("empty", "", 0o600);
    let load = |certificate: &str, key: &str, keys| {
        let tls = format!("tls = {{ cert_file = \"{}\", key_file = \"{}\" }}", path(certificate), path(key));
        parse(&format!("[server]\n{tls}"), "config.toml", keys, &ENVIRONMENT)
    };
    let good = load("one.crt", "one.key", Keys::Required).unwrap().config.server.tls.unwrap();
    assert!(good.certified.is_some());
    assert!(!format!("{good:?}").contains("certified"));
    for (certificate, key, problem) in [
        ("missing", "one.key", "server.tls.cert_file: ".to_owned() + &path("missing") + " cannot be read"),
        ("empty", "one.key", "has no certificate".to_owned()),
        ("one.key", "one.key", "has no certificate".to_owned()),
        ("one.crt", "missing", "server.tls.key_file: ".to_owned() + &path("missing") + " cannot be read"),
        ("one.crt", "empty", "has no readable private key".to_owned()),
        ("one.crt", "other.key", "is not the key of the certificate".to_owned()),
        ("one.crt", "open.key", format!("whose mode is 0644; run: chmod 600 {}", path("open.key"))),
    ] {
        let problems = load(certificate, key, Keys::Required).unwrap_err();
        assert_eq!(problems.as_slice().len(), 1, "{problems}");
        assert!(problems.to_string().contains(&problem), "{problems}");
    }
    assert!(
        load("one.crt", "missing", Keys::Skipped).unwrap().config.server.tls.unwrap().certified.is_none()
    );
    assert_eq!(
        load("one.crt", "missing", Keys::Reported).unwrap().warnings.len(),
        2,
        "and that no probe is there"
    );
    load("one.crt", "open.key", Keys::Reported).unwrap_err();
}

fn api_names() -> Vec<&'static str> {
    Api::ALL.iter().map(|api| api.name()).collect()
}

#[test]
fn every_api_has_its_base_url() {
    let base_urls = [
        ("langmart", "https://api.langmart.ai/"),
        ("openai", "https://api.openai.com/v1"),
        ("anthropic", "https://api.anthropic.com/"),
        ("groq", "https://api.groq.com/openai/v1"),
        ("google", "https://generativelanguage.googleapis.com/v1beta"),
        ("openrouter", "https://openrouter.ai/api/v1"),
    ];
    assert_eq!(base_urls.map(|(api, _)| api).as_slice(), api_names());
    for (api, expected) in base_urls {
        assert_eq!(good(&format!("[provider.{api}]")).providers[api].base_url.as_str(), expected);
        let other = good(&format!("[provider.x]\napi = \"{api}\""));
        assert_eq!(other.providers["x"].base_url.as_str(), expected);
    }
}

#[test]
fn default_status_page_needs_default_base_url() {
    let status_pages = [
        ("langmart", None),
        ("openai", Some("https://status.openai.com/api/v2/summary.json")),
        ("anthropic", Some("https://status.claude.com/api/v2/summary.json")),
        ("groq", Some("https://groqstatus.com/api/v2/summary.json")),
        ("google", Some("https://status.cloud.google.com/incidents.json")),
        ("openrouter", None),
    ];
    assert_eq!(status_pages.map(|(api, _)| api).as_slice(), api_names());
    for (api, expected) in status_pages {
        let url = |rest: &str| {
            let config = good(&format!("[provider.x]\napi = \"{api}\"\n{rest}"));
            config.providers["x"].status_source.as_ref().map(|source| source.url.to_string())
        };
        assert_eq!(url("").as_deref(), expected);
        assert_eq!(url("base_url = \"https://llm.corp.example/v1\""), None);
        let own = "https://status.corp.example/?page=1";
        let rest = format!("base_url = \"https://llm.corp.example/v1\"\nstatus_url = \"{own}\"");
        assert_eq!(url(&rest).as_deref(), Some(own));
    }
    // The default is the same when it is written out.
    let config = good(
        "[provider.groq]\nbase_url = \"https://api.groq.com/openai/v1/\"\nchecks = [\"status\"]\ncomponents = [\"API\"]",
    );
    let probe = &config.probes[0];
    let Task::Status(source) = &probe.task else { panic!("{probe:?}") };
    assert_eq!((probe.name.as_str(), probe.host()), ("groq-status", "groqstatus.com"));
    assert_eq!(source.components, ["API"]);
}

#[test]
fn base_urls_lose_what_is_appended_to_them() {
    for (api, written, expected) in [
        ("langmart", "https://api.langmart.ai/v1", "https://api.langmart.ai/"),
        ("langmart", "http://localhost:8081/v1/", "http://localhost:8081/"),
        ("langmart", "https://proxy.example/langmart//v1//", "https://proxy.example/langmart"),
        ("langmart", "https://proxy.example/av1", "https://proxy.example/av1"),
        ("openai", "https://llm.corp.example/v1///", "https://llm.corp.example/v1"),
        ("openai", "HTTPS://LLM.Corp.Example:443/v1", "https://llm.corp.example/v1"),
    ] {
        let config = good(&format!("[provider.x]\napi = \"{api}\"\nbase_url = \"{written}\""));
        assert_eq!(config.providers["x"].base_url.as_str(), expected, "{written}");
    }
}

#[test]
fn key_over_plain_http_needs_loopback_or_consent() {
    for rest in
        ["base_url = \"http://127.0.0.1:1\"", "base_url = \"http://a.example\"\nallow_plain_http = true"]
    {
        good(&format!("[provider.langmart]\napi_key = {{ env = \"LANGMART_API_KEY\" }}\n{rest}"));
    }
}

#[test]
fn own_server_may_need_no_key() {
    let config = good(
        "[provider.vllm]\napi = \"openai\"\nbase_url = \"http://10.0.0.9:8000/v1\"\nchecks = [\"models\"]",
    );
    assert_eq!(config.providers["vllm"].key, None);
}

#[test]
fn environment_proxy_applies_unless_overridden() {
    let variable = |name: &str| match name {
        "HTTPS_PROXY" => Some("proxy.example:3128".into()),
        "NO_PROXY" => Some("groq.com".into()),
        _ => None,
    };
    let environment = Environment { variable: &variable, ..ENVIRONMENT };
    let text = "[provider.langmart]\n[provider.groq]\n[provider.openai]\nproxy = \"none\"\n\
                [provider.google]\nproxy = \"http://[::1]:8080/\"";
    let config = parse(text, "config.toml", Keys::Required, &environment).unwrap().config;
    let proxy = |name: &str| config.providers[name].proxy.as_ref().map(|url| url.as_str().to_owned());
    assert_eq!(proxy("langmart").as_deref(), Some("http://proxy.example:3128/"));
    assert_eq!(proxy("groq"), None);
    assert_eq!(proxy("openai"), None);
    assert_eq!(proxy("google").as_deref(), Some("http://[::1]:8080/"));
}

/// Loads `[provider.langmart]` with these lines and that value of `https_proxy`.
fn with_proxy(variable: &str, lines: &str) -> Result<Loaded, Problems> {
    let set = |name: &str| match name {
        "https_proxy" => Some(variable.into()),
        "PROXY_AUTH" => Some("file:canary".into()),
        _ => None,
    };
    let environment = Environment { variable: &set, ..ENVIRONMENT };
    parse(&format!("[provider.langmart]\n{lines}"), "config.toml", Keys::Required, &environment)
}

#[test]
fn environment_proxy_may_carry_credentials() {
    for (value, url, auth) in [
        ("http://user:canary@p.example:3128", "http://p.example:3128/", "user:canary"),
        ("user:canary@p.example:3128", "http://p.example:3128/", "user:canary"),
        ("http://user:canary@[2001:db8::1]:3128/", "http://[2001:db8::1]:3128/", "user:canary"),
        ("https://us%25er:canary%3A%40%2f@p.example", "https://p.example/", "us%er:canary:@/"),
        ("http://user:canary%zz@p.example", "http://p.example/", "user:canary%zz"),
        ("http://user:c@nary@p.example", "http://p.example/", "user:c@nary"),
        ("http://user@p.example", "http://p.example/", "user:"),
        ("http://:canary@p.example", "http://p.example/", ":canary"),
        ("socks5h://user:canary@p.example", "socks5h://p.example:1080", "user:canary"),
    ] {
        let config = with_proxy(value, "").unwrap_or_else(|problems| panic!("{value}: {problems}")).config;
        let provider = &config.providers["langmart"];
        assert_eq!(provider.proxy.as_ref().unwrap().as_str(), url, "{value}");
        let (user, password) = provider.proxy_credentials().unwrap();
        assert_eq!(format!("{user}:{password}"), auth, "{value}");
        assert_eq!(
            provider.proxy_auth.as_ref().unwrap().source,
            KeySource::Env("https_proxy".to_owned()),
            "{value}"
        );
        assert!(!format!("{config:?}").contains(CANARY), "{config:?}");
    }
}

#[test]
fn file_overrides_environment_proxy_credentials() {
    let credentials = |lines: &str| {
        let config = with_proxy("http://user:canary@p.example:3128", lines).unwrap().config;
        let provider = &config.providers["langmart"];
        provider.proxy_credentials().map(|(user, _)| user.to_owned())
    };
    assert_eq!(credentials("").as_deref(), Some("user"));
    assert_eq!(credentials("proxy_auth = { env = \"PROXY_AUTH\" }").as_deref(), Some("file"));
    assert_eq!(credentials("proxy = \"http://other.example:1\""), None, "they belong to the other proxy");
    assert_eq!(credentials("proxy = \"none\""), None);
}

#[test]
fn unusable_environment_proxy_is_rejected() {
    for (value, reason) in [
        ("http://us%3Aer:canary@p.example", "a user with a colon in its name"),
        ("http://user:canary%0d%0aX@p.example", "control characters"),
        ("http://user:canary%ff@p.example", "not UTF-8"),
        ("socks5://:canary@p.example", "must have a user for a SOCKS proxy"),
        ("http://user:canary@p.example:0", "no port 0"),
        ("http://user:canary@p.example/path", "must consist of host and port"),
        ("http://user:canary@", "is not a URL"),
        ("http://user:can/ary@p.example", "is not a URL"),
        ("http://user:can ary@p.example", "white space"),
        ("socks4://user:canary@p.example:1080", "must begin with"),
        ("://user:canary@p.example", "is not a URL"),
    ] {
        let problems = with_proxy(value, "").unwrap_err().to_string();
        assert!(problems.contains("the environment's https_proxy: "), "{value}: {problems}");
        assert!(problems.contains(reason), "{value}: {problems}");
        assert!(!problems.contains("ary"), "{value}: {problems}");
    }
}

#[test]
fn proxy_without_port_uses_the_default_of_its_scheme() {
    for (written, port) in [
        ("http://p.example", 80),
        ("http://p.example/", 80),
        ("https://p.example", 443),
        ("socks5://p.example", 1080),
        ("socks5h://[2001:db8::1]", 1080),
    ] {
        let ports = [with_proxy("", &format!("proxy = {written:?}")), with_proxy(written, "")]
            .map(|loaded| loaded.unwrap().config.providers["langmart"].proxy.clone().unwrap())
            .map(|url| url.port_or_known_default());
        assert_eq!(ports, [Some(port); 2], "{written}");
    }
    let bare = with_proxy("p.example", "").unwrap().config;
    assert_eq!(bare.providers["langmart"].proxy.as_ref().unwrap().as_str(), "http://p.example/");
}

#[test]
fn proxy_kinds_and_credentials_are_parsed() {
    for (written, host, port) in [
        ("http://Proxy.Example:80", "proxy.example", 80),
        ("https://proxy.example:443/", "proxy.example", 443),
        ("socks5://Proxy.Example:1080", "proxy.example", 1080),
        ("socks5h://[2001:DB8::1]:1080/", "[2001:db8::1]", 1080),
        ("socks5://192.0.2.1:1080", "192.0.2.1", 1080),
    ] {
        let text =
            format!("[provider.langmart]\nproxy = \"{written}\"\nproxy_auth = {{ env = \"PROXY_AUTH\" }}");
        let config = good(&text);
        let provider = &config.providers["langmart"];
        let proxy = provider.proxy.as_ref().unwrap();
        assert_eq!((proxy.host_str(), proxy.port_or_known_default()), (Some(host), Some(port)), "{written}");
        assert_eq!(provider.proxy_credentials(), Some(("user", "canary:with@colon")));
        assert!(!format!("{config:?}").contains(CANARY), "{config:?}");
    }
    let useless = "[provider.langmart]\nchecks = [\"network\"]\nproxy_auth = { env = \"PROXY_AUTH\" }";
    assert_eq!(
        warnings(useless),
        [
            "config.toml:3: provider.langmart.proxy_auth: there is no proxy to give it to; set proxy, or remove it"
        ]
    );
    assert_eq!(good(useless).providers["langmart"].proxy_credentials(), None);
}

#[test]
fn name_servers_are_addresses() {
    let config = good(
        "[provider.langmart]\nchecks = [\"network\"]\n\
         dns_servers = [\"192.0.2.53\", \"2001:db8::53\", \"192.0.2.53:5353\", \"[2001:db8::53]:5353\"]",
    );
    let servers = &config.providers["langmart"].dns_servers;
    let names: Vec<String> = servers.iter().copied().map(dns_server_name).collect();
    assert_eq!(names, ["192.0.2.53", "2001:db8::53", "192.0.2.53:5353", "[2001:db8::53]:5353"]);
    assert!(servers[..2].iter().all(|server| server.port() == 53), "{servers:?}");
    assert_eq!(config.probes[0].name, "langmart-network");
}

#[test]
fn probes_keep_file_order_and_inherit() {
    let config = good(
        r#"
        [[probe]]
        name = "first"
        provider = "langmart"
        check = "models"
        interval = "10s"

        [provider.langmart]
        api_key = { env = "LANGMART_API_KEY" }
        checks = ["auth", "health"]

        [[probe]]
        name = "chat"
        provider = "langmart"
        check = "chat"
        model = "m"

        [defaults]
        interval = "2m"
        "#,
    );
    let summary: Vec<_> = config
        .probes
        .iter()
        .map(|probe| (probe.name.as_str(), probe.interval.as_secs(), probe.timeout.as_secs()))
        .collect();
    // The inherited timeout of the first is lowered to its interval.
    let expected =
        [("first", 10, 10), ("langmart-auth", 120, 30), ("langmart-health", 120, 30), ("chat", 300, 90)];
    assert_eq!(summary, expected);
}

#[test]
fn http_probe_is_loaded_as_written() {
    let config = good(
        r#"
        [provider.langmart]
        api_key = { env = "LANGMART_API_KEY" }
        [[probe]]
        name = "http"
        provider = "langmart"
        check = "http"
        method = "POST"
        path = "/v1/x?y=1"
        body = "{}"
        send_key = true
        headers = { Content-Type = "application/json" }
        expect = { status = [200, 0xC9], body_regex = "a+", json = { "/n" = 1.5, "" = { a = [true, "x", -1] } } }
        "#,
    );
    let Task::Http(request) = &config.probes[0].task else { panic!("{:?}", config.probes[0]) };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/x?y=1"));
    assert_eq!(request.body.as_deref(), Some("{}"));
    assert!(request.send_key && request.headers[0].1.is_sensitive());
    assert_eq!(request.expect.status, [200, 201]);
    assert!(request.expect.body_regex.as_ref().unwrap().is_match(b"\xffaa"));
    let json = [
        ("/n".to_owned(), serde_json::json!(1.5)),
        (String::new(), serde_json::json!({"a": [true, "x", -1]})),
    ];
    assert_eq!(request.expect.json, json);
}

#[test]
fn unreadable_key_is_error_or_warning_by_option() {
    let text = "[provider.langmart]\napi_key = { credential = \"langmart\" }\nchecks = [\"auth\"]\n\
                headers = { x-tenant = { env = \"UNSET\" } }";
    let load = |keys| parse(text, "config.toml", keys, &ENVIRONMENT);
    assert_eq!(load(Keys::Required).unwrap_err().as_slice().len(), 2);
    let reported = load(Keys::Reported).unwrap();
    assert_eq!(reported.warnings.len(), 2);
    let unread = [KeySource::Env("UNSET".to_owned()), KeySource::Credential("langmart".to_owned())];
    assert!(unread.iter().all(|source| reported.unread.contains(source)), "{:?}", reported.unread);
    let skipped = load(Keys::Skipped).unwrap();
    assert_eq!(skipped.warnings, []);
    for loaded in [reported, skipped] {
        let key = loaded.config.providers["langmart"].key.clone().unwrap();
        assert_eq!((key.value.expose(), key.source), ("", KeySource::Credential("langmart".to_owned())));
    }
}

#[test]
fn number_of_probes_is_limited() {
    let file = |count: usize| {
        let probe = |n| {
            format!(
                "[[probe]]\nname = \"p{n}\"\nprovider = \"langmart\"\ncheck = \"health\"\ninterval = \"1s\"\n"
            )
        };
        (0..count).map(probe).fold("[provider.langmart]\n".to_owned(), |text, probe| text + &probe)
    };
    assert_eq!(good(&file(1_000)).probes.len(), 1_000);
    let problems = read(&file(11_000)).unwrap_err();
    assert_eq!(problems.to_string(), "config.toml: 11000 probes are too many; allowed: 10000");
}

#[test]
fn unreadable_file_error_has_its_cause() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let why = || load(&path, Keys::Required, &ENVIRONMENT).unwrap_err().to_string();
    assert!(
        why().ends_with(
            "config.toml: cannot be read: No such file or directory (os error 2); set its path with --config, or \
             create it: `langmart-prober init` prints one"
        ),
        "{}",
        why()
    );
    fs::write(&path, b"[log]\n# \xff\n").unwrap();
    assert!(why().ends_with("config.toml: not UTF-8 text in line 2; save the file as UTF-8"), "{}", why());
    fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(
        why().ends_with(
            "config.toml: cannot be read: larger than 4194304 bytes; set the path of a TOML file with --config"
        ),
        "{}",
        why()
    );
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(why().ends_with("not a regular file; set the path of a TOML file with --config"), "{}", why());
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "\u{feff}[log]\nlevel = \"warn\"\n").unwrap();
    assert_eq!(load(&path, Keys::Required, &ENVIRONMENT).unwrap().config.log.filter, "warn");
}

fn streams(probes: &str) -> Vec<(u32, Duration, bool)> {
    let keyed = "api_key = { env = \"LANGMART_API_KEY\" }\n";
    let config =
        good(&format!("[provider.langmart]\n{keyed}[provider.google]\n{keyed}{MISTRAL}{keyed}{probes}"));
    let stream = |probe: &std::sync::Arc<langmart_prober::config::Probe>| match &probe.task {
        Task::Stream(stream) => Some((stream.chat.max_tokens, stream.stall_timeout, stream.include_usage)),
        _ => None,
    };
    config.probes.iter().filter_map(stream).collect()
}

const MISTRAL: &str = "[provider.mistral]\napi = \"openai\"\nbase_url = \"https://api.mistral.ai/v1\"\n";

fn stream_probe(name: &str, provider: &str, model: &str) -> String {
    format!(
        "[[probe]]\nname = \"{name}\"\nprovider = \"{provider}\"\ncheck = \"stream\"\nmodel = \"{model}\"\n"
    )
}

#[test]
fn stream_has_its_own_defaults() {
    let text = [
        stream_probe("a", "langmart", "openai/gpt-4o-mini"),
        stream_probe("b", "langmart", "openai/gpt-5-mini"),
        stream_probe("c", "mistral", "mistral-small-latest"),
        stream_probe("d", "mistral", "mistral-small-latest")
            + "stall_timeout = \"5s\"\ninclude_usage = true\n",
        stream_probe("e", "google", "gemini-2.5-flash"),
        stream_probe("f", "google", "gemini-2.5-pro") + "max_tokens = 4000\n",
    ];
    let seconds = Duration::from_secs;
    let expected = [
        (32, seconds(20), true),
        (2048, seconds(20), true),
        (32, seconds(20), false),
        (32, seconds(5), true),
        (32, seconds(20), true),
        (4000, seconds(20), true),
    ];
    assert_eq!(streams(&text.concat()), expected);
}

#[test]
fn too_strict_stream_settings_are_warned_of() {
    let text = format!(
        "[provider.langmart]\napi_key = {{ env = \"LANGMART_API_KEY\" }}\n{}max_tokens = 1023\n{}timeout = \"20s\"\nstall_timeout = \"20s\"\n{}max_tokens = 16\n",
        stream_probe("a", "langmart", "openai/gpt-5-mini"),
        stream_probe("b", "langmart", "openai/gpt-4o-mini"),
        stream_probe("c", "langmart", "openai/gpt-4o-mini"),
    );
    assert_eq!(
        warnings(&text),
        [
            "config.toml:8: probe[1] \"a\": max_tokens: this model may consume all of it for reasoning before any \
             visible content; remove it, or allow 1024 or more",
            "config.toml:15: probe[2] \"b\": stall_timeout: has no effect: it is not below the timeout of \"20s\"",
        ]
    );
}

/// Returns a comparison of these two models, and a pool of its probes.
fn comparison(by_gateway: &str, direct: &str) -> String {
    let probe = |name: &str, provider: &str, model: &str| {
        format!(
            "[[probe]]\nname = \"{name}\"\nprovider = \"{provider}\"\ncheck = \"chat\"\nmodel = \"{model}\"\n\
             prompt_words = 100\n"
        )
    };
    format!(
        "[provider.openrouter]\napi_key = {{ env = \"LANGMART_API_KEY\" }}\n\
         [provider.anthropic]\napi_key = {{ env = \"ANTHROPICS\" }}\n{}{}\
         [[comparison]]\nname = \"c\"\ngateway = \"one\"\ndirect = \"other\"\n\
         [[pool]]\nname = \"p\"\nmembers = [{{ probe = \"other\", weight = 3 }}, {{ probe = \"one\" }}]\n\
         [[pool]]\nname = \"q\"\nmembers = [{{ probe = \"other\" }}]\n",
        probe("one", "openrouter", by_gateway),
        probe("other", "anthropic", direct)
    )
}

#[test]
fn comparisons_and_pools_put_probes_together() {
    let config = good(&comparison("anthropic/claude-haiku-4.5", "claude-haiku-4-5-20251001"));
    let [one, other] = &config.probes[..] else { panic!("{:?}", config.probes) };
    assert_eq!(one.comparison, other.comparison);
    assert_eq!(one.comparison, Some(config.comparisons[0].clone()));
    assert_eq!((one.slot_name(), other.slot_name()), ("one", "one"));
    assert_eq!(one.chat().unwrap().prompt.split_whitespace().count(), 100);
    let pools = config.pools.iter().map(|pool| {
        let members = pool.members.iter().map(|member| (member.probe.as_str(), member.weight));
        (pool.name.as_str(), members.collect::<Vec<_>>())
    });
    assert_eq!(pools.collect::<Vec<_>>(), [("p", vec![("other", 3), ("one", 1)]), ("q", vec![("other", 1)])]);
}

#[test]
fn comparison_of_two_models_is_a_warning() {
    assert_eq!(warnings(&comparison("anthropic/claude-haiku-4.5", "claude-haiku-4-5-20251001")), [""; 0]);
    assert_eq!(
        warnings(&comparison("openai/gpt-4o-mini", "claude-haiku-4-5")),
        [
            "config.toml:17: comparison[1] \"c\": compares the model \"openai/gpt-4o-mini\" with \"claude-haiku-4-5\"; \
          is this intended?"
        ]
    );
}

/// Returns a configuration with related probes, limits, and a shard from the environment.
fn sharded(index: u32, total: u32) -> Config {
    let mut text = format!(
        "[shard]\nindex = {{ env = \"SHARD\" }}\ntotal = {total}\n[budget]\ndaily_tokens = 1000000\ndaily_cost_usd = 3\n\
         [provider.langmart]\nrequests_per_minute = 100\n[provider.openai]\n"
    );
    let probe = |name: &str, provider: &str| {
        format!("[[probe]]\nname = \"{name}\"\nprovider = \"{provider}\"\ncheck = \"http\"\npath = \"/\"\n")
    };
    let numbered: Vec<_> = (0..200).map(|number| probe(&format!("p{number}"), "langmart")).collect();
    text += &[numbered.concat(), probe("by", "langmart"), probe("direct", "openai")].concat();
    text += "[[comparison]]\nname = \"c\"\ngateway = \"by\"\ndirect = \"direct\"\n\
             [[pool]]\nname = \"a\"\nmembers = [{ probe = \"direct\" }, { probe = \"p7\" }]\n\
             [[pool]]\nname = \"b\"\nmembers = [{ probe = \"p8\" }, { probe = \"p7\" }]\n";
    let variable = move |name: &str| (name == "SHARD").then(|| index.to_string().into());
    let environment = Environment { variable: &variable, ..ENVIRONMENT };
    parse(&text, "config.toml", Keys::Required, &environment)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
}

#[test]
fn shards_split_a_file_without_overlap() {
    let shards: Vec<Config> = (0..3).map(|index| sharded(index, 3)).collect();
    let mut names: Vec<&str> =
        shards.iter().flat_map(|shard| &shard.probes).map(|probe| probe.name.as_str()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((count, names.len()), (202, 202), "each probe is in one shard");
    for shard in &shards {
        assert!((50..90).contains(&shard.probes.len()), "{} probes", shard.probes.len());
        assert_eq!(shard.providers["langmart"].requests_per_minute, Some(33));
        let budget = shard.budget.unwrap();
        assert_eq!((budget.daily_tokens, budget.daily_cost_usd), (Some(333_333), Some(1.0)));
    }
    // Related probes are all in one shard.
    let whole: Vec<&Config> = shards.iter().filter(|shard| !shard.comparisons.is_empty()).collect();
    assert_eq!(whole.len(), 1);
    assert_eq!(shards.iter().map(|shard| shard.pools.len()).sum::<usize>(), 2);
    assert_eq!((whole[0].comparisons.len(), whole[0].pools.len()), (1, 2));
    for name in ["by", "direct", "p7", "p8"] {
        assert!(whole[0].probes.iter().any(|probe| probe.name == name), "{name}");
    }
    // The documented example: md5, the last eight bytes, modulo the total.
    assert!(shards[0].probes.iter().any(|probe| probe.name == "p0"));
    assert_eq!(sharded(0, 1).probes.len(), 202);
}

const EXAMPLE: &str = include_str!("../../config.toml.example");

/// Returns the example with its commented lines of that kind uncommented.
fn uncommented(mark: &str) -> String {
    let is_key = |rest: &str| {
        let key = rest.split(" = ").next().unwrap_or_default();
        rest.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let line = |line: &str| match line.strip_prefix(mark) {
        Some(rest) if is_key(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(line).collect()
}

#[test]
fn example_defaults_match_the_code() {
    let defaults = uncommented("# ");
    assert_ne!(defaults, EXAMPLE);
    assert_eq!(format!("{:#?}", good(EXAMPLE)), format!("{:#?}", good(&defaults)));
    assert_eq!(warnings(EXAMPLE), [""; 0]);
}

#[test]
fn example_values_are_accepted() {
    // One at a time, because examples may be alternatives, and one of them needs a method with a
    // body.
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let examples = lines.iter().enumerate().filter_map(|(n, line)| Some((n, line.strip_prefix("#e.g. ")?)));
    for (number, example) in
        examples.filter(|(_, example)| !example.starts_with("ca_file") && !example.starts_with("tls"))
    {
        let example =
            if example.starts_with("body") { &format!("{example}\nmethod = \"POST\"") } else { example };
        let text = lines.iter().enumerate().map(|(n, line)| if n == number { example } else { line });
        let text = text.fold(String::new(), |text, line| text + line + "\n");
        assert_ne!(format!("{:?}", good(EXAMPLE)), format!("{:?}", good(&text)), "{example}");
    }
}

#[test]
fn example_has_every_key() {
    let probe = "name = \"p\"\nprovider = \"langmart\"\ncheck = \"http\"\npath = \"/\"";
    let sections = [
        "",
        "[server]",
        "[server.tls]",
        "[log]",
        "[state]",
        "[schedule]",
        "[shard]",
        "[budget]",
        "[defaults]",
        "[defaults.generation]",
        "[provider.langmart]",
    ];
    let shown: BTreeSet<&str> = EXAMPLE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let with_probe = [format!("[[probe]]\n{probe}"), format!("[[probe]]\n{probe}\n[probe.expect]")];
    let source = "[provider.langmart]\n[provider.langmart.api_key]\nenv = \"LANGMART_API_KEY\"".to_owned();
    for section in sections.map(str::to_owned).into_iter().chain(with_probe).chain([source]) {
        let provider = if section.contains("[provider") { "" } else { "\n[provider.langmart]" };
        let problems = read(&format!("{section}\nunheard_of = 1{provider}")).unwrap_err().to_string();
        let (_, keys) =
            problems.split_once("known keys: ").unwrap_or_else(|| panic!("{section}: {problems}"));
        for key in keys.split(", ") {
            assert!(shown.contains(key), "{section}: the example lacks {key:?}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC*|[a-z\\[\\]{}=\"'.,#0-9\n -]{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let _ = load(file.path(), Keys::Required, &ENVIRONMENT);
    }

    #[test]
    fn damaged_file_does_not_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, "[\\PC\n]{0,3}"), 1..6)
    ) {
        let mut text: Vec<char> = uncommented("#e.g. ").chars().collect();
        for (place, length, replacement) in cuts {
            let start = place.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, replacement.chars());
        }
        let _ = read(&text.into_iter().collect::<String>());
    }

    #[test]
    fn arbitrary_value_types_do_not_panic(
        key in prop::sample::select(vec![
            "server.listen", "server.hostnames", "server.tls", "server.basic_auth", "server.basic_auth.alice", "log.level", "log.max_file_size", "log.directory",
            "schedule.max_backoff", "defaults.interval", "defaults.generation.timeout", "provider.langmart.api",
            "provider.langmart.base_url", "provider.langmart.proxy", "provider.langmart.api_key.env",
            "provider.langmart.checks", "provider.langmart.labels", "provider.langmart.headers.x-a",
            "provider.langmart.key_header", "provider.langmart.health_path", "provider.langmart.status_url",
            "provider.langmart.components", "probe", "provider", "log", "x",
        ]),
        text in "\\PC{0,40}|https?://[\\PC]{0,30}|[0-9]{1,22}[hms]{0,2}",
        shape in 0..5_usize,
    ) {
        let text = serde_json::to_string(&text.replace('\u{7f}', "")).unwrap();
        let value = match shape {
            0 => text,
            1 => format!("[{text}, {text}]"),
            2 => format!("{{ {text} = {text} }}"),
            3 => format!("[{{ {text} = -9223372036854775808 }}]"),
            _ => "nan".to_owned(),
        };
        let _ = read(&format!("{key} = {value}\n"));
    }
}

#[test]
fn schedule_above_rate_limit_is_warned_of() {
    let file = |pace: u32| {
        format!(
            "[provider.langmart]\napi_key = {{ env = \"LANGMART_API_KEY\" }}\nrequests_per_minute = {pace}\n\
             checks = [\"network\", \"health\", \"auth\"]\n[[probe]]\nname = \"models\"\nprovider = \"langmart\"\n\
             check = \"models\"\ninterval = \"40s\"\n"
        )
    };
    // Two checks a minute and three in two; the network check sends nothing.
    let message = "config.toml:3: provider.langmart.requests_per_minute: the probes would send 3.5 requests per \
                   minute; runs beyond the limit are skipped; raise the limit to 4 or more, or raise the intervals";
    assert_eq!(warnings(&file(3)), [message]);
    assert_eq!(warnings(&file(4)), [""; 0]);
}

#[test]
fn unreachable_slow_after_is_warned_of() {
    let file = |slow_after: &str| {
        format!(
            "[[probe]]\nname = \"a\"\nprovider = \"langmart\"\ncheck = \"health\"\nslow_after = \"{slow_after}\"\n\
             [provider.langmart]\n"
        )
    };
    let message =
        "config.toml:5: probe[1] \"a\": slow_after: has no effect: it is not below the timeout of \"30s\"";
    assert_eq!(warnings(&file("30s")), [message]);
    assert_eq!(warnings(&file("29s")), [""; 0]);
}

#[test]
fn recheck_waits_match_the_guide() {
    let probe = |keys: &str| {
        let text = format!(
            "[provider.langmart]\n[[probe]]\nname = \"a\"\nprovider = \"langmart\"\ncheck = \"health\"\n{keys}\n"
        );
        good(&text).probes[0].clone()
    };
    let seconds = Duration::from_secs;
    let guide = probe("recheck = {}").recheck.unwrap();
    assert_eq!((1..=guide.times).map(|n| guide.wait(n)).collect::<Vec<_>>(), [5, 10, 15].map(seconds));
    assert_eq!(guide.waits(), seconds(30));
    let own = probe("recheck = { after = \"2s\", step = \"0s\", times = 2 }").recheck.unwrap();
    assert_eq!(own.waits(), seconds(4));
    assert_eq!((probe("").recheck, probe("").slow_after), (None, None));
}

#[test]
fn compared_probes_keep_or_close_their_connections_alike() {
    let file = |gateway: &str, direct: &str| {
        let probe = |name: &str, connection: &str| {
            format!(
                "[[probe]]\nname = \"{name}-a\"\nprovider = \"{name}\"\ncheck = \"auth\"\nconnection = \"{connection}\"\n"
            )
        };
        format!(
            "[defaults]\ntimeout = \"10s\"\n[provider.langmart]\napi_key = {{ env = \"LANGMART_API_KEY\" }}\n\
             [provider.openai]\napi_key = {{ env = \"TENANT\" }}\n{}{}[[comparison]]\nname = \"c\"\n\
             gateway = \"langmart-a\"\ndirect = \"openai-a\"\n",
            probe("langmart", gateway),
            probe("openai", direct)
        )
    };
    good(&file("warm", "warm"));
    let problems = read(&file("warm", "cold")).unwrap_err().to_string();
    assert_eq!(
        problems,
        "config.toml:20: comparison[1] \"c\": direct: must have the same connection as \"langmart-a\": warm, not cold"
    );
}
