//! Probes without a configuration file.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use langmart_prober::{
    config::{
        Chat, Config, Connection, Expect, HttpRequest, Key, KeySource, Log, LogFormat, Paths, Probe,
        Provider, Rotation, Schedule, Secret, Server, StatusSource, Stream, Task,
    },
    outcome::{Api, Check, Outcome},
    probe::{NetworkStack, Target},
};

/// Returns a provider of that API and base URL, with a key.
pub fn provider(api: Api, base_url: &str) -> Provider {
    Provider {
        name: api.name().to_owned(),
        api,
        base_url: base_url.parse().unwrap(),
        key: Some(Key {
            value: Secret::new("sk-test-canary".to_owned()),
            source: KeySource::Env("KEY".to_owned()),
        }),
        key_header: None,
        proxy: None,
        ignores_environment_proxy: false,
        proxy_auth: None,
        dns_servers: Vec::new(),
        ca_file: None,
        ca_certificates: Vec::new(),
        headers: Vec::new(),
        labels: BTreeMap::new(),
        paths: Paths { health: Some("/health".to_owned()), ..Paths::default() },
        status_source: None,
        requests_per_minute: None,
    }
}

/// Returns the sentence of an outcome's detail; empty if there is none.
pub fn detail_of(outcome: &Outcome) -> String {
    outcome.detail.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Returns a probe of that check.
pub fn probe(provider: Provider, check: Check) -> Probe {
    let chat = Chat { prompt: "Say OK.".to_owned(), max_tokens: 32, ..Chat::default() };
    let task = match check {
        Check::Network => Task::Network,
        Check::Health => Task::Health,
        Check::Auth => Task::Auth,
        Check::Models => Task::Models,
        Check::Chat => Task::Chat(chat),
        Check::Stream => {
            Task::Stream(Stream { chat, stall_timeout: Duration::from_secs(5), include_usage: true })
        }
        Check::Status => {
            let url = provider.base_url.clone();
            Task::Status(
                provider.status_source.clone().unwrap_or(StatusSource { url, components: Vec::new() }),
            )
        }
        Check::Balance => Task::Balance,
        Check::Http => Task::Http(Box::new(HttpRequest {
            method: "GET".parse().unwrap(),
            path: "/x".to_owned(),
            body: None,
            headers: Vec::new(),
            send_key: true,
            expect: Expect::default(),
        })),
    };
    Probe {
        name: format!("{}-{check}", provider.name),
        model: check.generates().then(|| "some-model".to_owned()),
        provider: Arc::new(provider),
        retires: None,
        task,
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(10),
        connection: Connection::Cold,
        slow_after: None,
        recheck: None,
        comparison: None,
    }
}

/// Returns a configuration with these probes.
pub fn config(probes: Vec<Probe>) -> Config {
    Config {
        server: Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            hostnames: Vec::new(),
            tls: None,
            users: BTreeMap::new(),
            allow_unauthenticated: false,
            probe_generation: false,
        },
        log: Log {
            filter: "info".to_owned(),
            format: LogFormat::Text,
            stderr: true,
            directory: None,
            rotation: Rotation::Daily,
            max_files: 2,
            max_file_size: 1 << 20,
            compress: false,
        },
        schedule: Schedule {
            max_concurrent: 64,
            max_concurrent_per_provider: 8,
            max_backoff: Duration::from_secs(3600),
        },
        shard: None,
        providers: probes.iter().map(|probe| (probe.provider.name.clone(), probe.provider.clone())).collect(),
        probes: probes.into_iter().map(Arc::new).collect(),
        comparisons: Vec::new(),
        pools: Vec::new(),
        budget: None,
        state_directory: None,
        system_roots: Arc::default(),
    }
}

/// Runs a probe once.
pub fn run(probe: Probe) -> Outcome {
    let targets = Target::prepare(&config(vec![probe]), &Arc::new(NetworkStack::new())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(targets[0].run())
}
