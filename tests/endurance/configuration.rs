//! The daemon's configuration: some two hundred probes of every kind, keys in files, and changes
//! between reloads.

use std::{fmt::Write, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use langmart_prober::simulator::SimulatedService;

use super::{client::USER, faults::model};

/// Number of providers.
pub const PROVIDERS: usize = 40;

/// Part of every secret, so that masking or truncation would still show a part of it.
pub const CANARY: &str = "cAnArY";

/// Text that no output may contain: parts of secrets as services mask them, and account details
/// that services echo.
pub const FORBIDDEN: [&str; 8] = [
    "cAnA",
    "nArY",
    "org-simulated",
    "org_simulated",
    "user@example.com",
    "user_123",
    "Please sign in",
    "$2b$",
];

/// Value of `max_backoff` in seconds.
pub const MAX_BACKOFF: f64 = 5.0;

/// Intervals of the probes in milliseconds.
const INTERVALS: [u32; 4] = [500, 700, 900, 1000];

/// Probes that are added and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extras {
    Fast,
    /// With an interval of a week, so that their counters do not change before their removal.
    Parked,
    Absent,
}

/// Addresses of the servers.
pub struct Addresses {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// A proxy over TLS that requires a password.
    pub proxy: SocketAddr,
}

/// Parts of the configuration that change between reloads.
#[derive(Clone, Debug)]
pub struct Manner {
    pub extras: Extras,
    /// Whether all probes have an interval of a week.
    pub parked: bool,
    pub level: &'static str,
    pub max_file_size: &'static str,
    pub daily_tokens: u64,
    pub max_concurrent: u32,
}

/// Parts of the configuration that never change.
pub struct Constants<'a> {
    pub directory: &'a Path,
    pub addresses: Addresses,
    /// Hash of the listener's password.
    pub hash: String,
    pub listen: SocketAddr,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            extras: Extras::Absent,
            parked: false,
            level: "info",
            max_file_size: "1GiB",
            daily_tokens: 1_000_000_000,
            max_concurrent: 200,
        }
    }
}

/// Returns the complete file.
pub fn text(constants: &Constants<'_>, manner: &Manner) -> String {
    let Constants { directory, hash, listen, addresses: _ } = constants;
    let Manner { extras, parked: _, level, max_file_size, daily_tokens, max_concurrent } = manner;
    let directory = directory.display();
    let mut text = format!(
        "[server]\nlisten = \"{listen}\"\nbasic_auth = {{ {USER} = \"{hash}\" }}\n\
         [log]\nlevel = \"{level}\"\ndirectory = \"{directory}/disk/logs\"\nmax_files = 1000\nmax_file_size = \"{max_file_size}\"\n\
         [state]\ndirectory = \"{directory}/disk/state\"\n\
         [schedule]\nmax_backoff = \"5s\"\nmax_concurrent = {max_concurrent}\nmax_concurrent_per_provider = 3\n\
         [budget]\ndaily_cost_usd = 100000\ndaily_tokens = {daily_tokens}\n"
    );
    for number in 0..PROVIDERS {
        provider(&mut text, constants, manner, number);
    }
    if *extras != Extras::Absent {
        for number in 0..5 {
            let interval = if *extras == Extras::Fast && !manner.parked { "300ms" } else { "168h" };
            writeln!(
                text,
                "[[probe]]\nname = \"extra-{number}\"\nprovider = \"p{number}\"\ncheck = \"models\"\n\
                 interval = \"{interval}\"\ntimeout = \"300ms\""
            )
            .unwrap();
        }
    }
    // One of each API; the first is LangMart's, the second OpenAI's.
    text.push_str("[[comparison]]\nname = \"chats\"\ngateway = \"p0-chat\"\ndirect = \"p1-chat\"\n");
    text.push_str("[[comparison]]\nname = \"streams\"\ngateway = \"p5-stream\"\ndirect = \"p2-stream\"\n");
    text.push_str(
        "[[pool]]\nname = \"all\"\nmembers = [{ probe = \"p0-chat\", weight = 2 }, { probe = \"p3-chat\" }, { probe = \"p1-stream\" }]\n",
    );
    text
}

fn provider(text: &mut String, constants: &Constants<'_>, manner: &Manner, number: usize) {
    let api = SimulatedService::ALL[number % SimulatedService::ALL.len()];
    let directory = constants.directory.display();
    writeln!(
        text,
        "[provider.p{number}]\napi = \"{}\"\nbase_url = \"{}{}\"\nallow_plain_http = true\nchecks = []\n\
         ca_file = \"{directory}/ca.pem\"\napi_key = {{ file = \"{directory}/keys/p{number}\" }}\n\
         headers = {{ \"x-tenant\" = {{ env = \"TENANT\" }} }}\ndns_servers = [\"{}\"]",
        api.name(),
        base_url(&constants.addresses, number),
        api.prefix(),
        super::names::ADDRESS,
    )
    .unwrap();
    if number % 7 == 5 {
        let port = constants.addresses.proxy.port();
        writeln!(
            text,
            "proxy = \"https://localhost:{port}\"\nproxy_auth = {{ file = \"{directory}/keys/proxy\" }}"
        )
        .unwrap();
    }
    if number % 10 == 9 {
        text.push_str("requests_per_minute = 100\n");
    }
    // The query identifies the probe in the services' record.
    let (auth, chat) = match api {
        SimulatedService::Langmart => ("/v1/auth/validate", Some("/v1/chat/completions")),
        SimulatedService::Anthropic => ("/v1/models", Some("/v1/messages")),
        SimulatedService::Openrouter => ("/key", Some("/chat/completions")),
        // Its path contains the model.
        SimulatedService::Google => ("/models", None),
        _ => ("/models", Some("/chat/completions")),
    };
    writeln!(text, "auth_path = \"{auth}?p={number}&k=auth\"").unwrap();
    if let Some(chat) = chat {
        writeln!(text, "chat_path = \"{chat}?p={number}&k=chat\"").unwrap();
    }
    let further: &[&str] = match api {
        SimulatedService::Langmart => &["health", "balance"],
        SimulatedService::Openrouter => &["balance"],
        _ => &["status"],
    };
    if further == ["status"] {
        writeln!(text, "status_url = \"http://{}{}\"", constants.addresses.plain, api.status_path()).unwrap();
    }
    let interval = format!("{}ms", INTERVALS[number % INTERVALS.len()]);
    for check in ["auth", "network"].iter().chain(further) {
        probe(text, manner, &format!("p{number}-{check}"), check, (&interval, "500ms"));
    }
    generating(text, manner, api, number);
}

/// Returns a base URL: by address, by a name, over TLS (half of them through a proxy), or
/// unreachable.
fn base_url(Addresses { plain, tls, proxy: _ }: &Addresses, number: usize) -> String {
    match number % 7 {
        0 | 3 => format!("http://{plain}"),
        1 => format!("http://p{number}.sim.test:{}", plain.port()),
        2 | 4 => format!("https://p{number}.sim.test:{}", tls.port()),
        _ if number == 27 => format!("https://expired.sim.test:{}", tls.port()),
        _ if number == 13 => "https://127.0.0.77:9".to_owned(),
        _ => format!("https://localhost:{}", tls.port()),
    }
}

fn generating(text: &mut String, manner: &Manner, api: SimulatedService, number: usize) {
    let mut generation = |name: &str, check, times, rest: &str| {
        probe(text, manner, &format!("p{number}-{name}"), check, times);
        writeln!(
            text,
            "model = \"{}\"\nprice = {{ input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }}\n{rest}",
            model(api, name)
        )
        .unwrap();
    };
    // The two compared probes have the same interval, which both accept.
    generation("chat", "chat", ("1s", "500ms"), "");
    generation("stream", "stream", ("1s", "500ms"), "");
    if number.is_multiple_of(4) {
        generation("warm", "chat", ("500ms", "500ms"), "connection = \"warm\"\nslow_after = \"20ms\"");
    }
    if number % 4 == 1 {
        let rest = "stall_timeout = \"150ms\"\nrecheck = { after = \"100ms\", step = \"100ms\", times = 2 }";
        generation("recheck", "stream", ("900ms", "300ms"), rest);
    }
}

/// Adds a probe whose provider is the first part of its name.
fn probe(text: &mut String, manner: &Manner, name: &str, check: &str, (interval, timeout): (&str, &str)) {
    let provider = name.split('-').next().unwrap_or_default();
    let interval = if manner.parked { "168h" } else { interval };
    writeln!(
        text,
        "[[probe]]\nname = \"{name}\"\nprovider = \"{provider}\"\ncheck = \"{check}\"\n\
         interval = \"{interval}\"\ntimeout = \"{timeout}\""
    )
    .unwrap();
}

/// Writes the n-th key of a provider: a valid one, or one that the services reject.
pub fn write_key(directory: &Path, provider: usize, number: u64, good: bool) {
    let word = if good { "good" } else { "invalid" };
    write_secret(
        directory,
        &format!("p{provider}"),
        &format!("sk-{CANARY}-{word}-{provider}-{number}-0123456789-{CANARY}\n"),
    );
}

/// Writes a file in the directory of keys atomically.
pub fn write_secret(directory: &Path, name: &str, text: &str) {
    let being_written = directory.join("keys/being-written");
    fs::write(&being_written, text).unwrap();
    fs::set_permissions(&being_written, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(being_written, directory.join("keys").join(name)).unwrap();
}

/// Returns the probe that sent a request with this query and model. Returns `None` if it cannot be
/// identified.
pub fn probe_of_request(query: &str, model: &str) -> Option<(usize, String)> {
    let (provider, kind) = query.strip_prefix("p=")?.split_once("&k=")?;
    let kind = kind.split('&').next()?;
    let kind = if kind == "chat" { model.rsplit("soak-").next()? } else { kind };
    Some((provider.parse().ok()?, format!("p{provider}-{kind}")))
}
