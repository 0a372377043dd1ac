//! Configurations for tests of metrics and of the pages that show them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{Format, Metrics};
use crate::{
    config::{
        Chat, Config, Log, LogFormat, Price, Probe, Provider, Rotation, Schedule, Server, Stream, Task,
        testing,
    },
    line_writer::Counters,
    outcome::Api,
};

pub(crate) use crate::config::testing::probe;

/// Returns a provider with default settings.
pub(crate) fn provider(name: &str, api: Api) -> Provider {
    testing::provider(name, api, "https://api.example:8443/v1")
}

const PRICE: Option<Price> =
    Some(Price { input_usd_per_mtok: 0.15, cached_input_usd_per_mtok: None, output_usd_per_mtok: 0.6 });

/// Returns a chat probe of the model, with an interval of 60 s and a timeout of 30 s.
pub(crate) fn chat(name: &str, provider: &Arc<Provider>, model: &str) -> Arc<Probe> {
    let task = Task::Chat(Chat { prompt: "Hi".to_owned(), max_tokens: 32, price: PRICE, ..Chat::default() });
    Arc::new(Probe { model: Some(model.to_owned()), ..probe(name, provider, task) })
}

/// Returns the same as a stream probe.
pub(crate) fn stream(name: &str, provider: &Arc<Provider>, model: &str) -> Arc<Probe> {
    let chat = Chat { prompt: "Hi".to_owned(), max_tokens: 32, price: PRICE, ..Chat::default() };
    let task = Task::Stream(Stream { chat, stall_timeout: Duration::from_secs(20), include_usage: true });
    Arc::new(Probe { model: Some(model.to_owned()), ..probe(name, provider, task) })
}

/// Returns a configuration of these probes.
pub(crate) fn config(probes: Vec<Arc<Probe>>) -> Config {
    Config {
        server: Server {
            listen: ([127, 0, 0, 1], 0).into(),
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
        providers: BTreeMap::new(),
        probes,
        comparisons: Vec::new(),
        pools: Vec::new(),
        budget: None,
        state_directory: None,
        system_roots: Arc::default(),
    }
}

/// Renders the page as text 0.0.4.
pub(crate) fn page(metrics: &Metrics, now: SystemTime) -> String {
    page_in(metrics, now, Format::Text)
}

/// Renders the page in a text format.
pub(crate) fn page_in(metrics: &Metrics, now: SystemTime, format: Format) -> String {
    let mut page = Vec::new();
    metrics.render(now, format, &mut page).expect("a Vec takes every write");
    String::from_utf8(page).expect("a page is UTF-8")
}

/// Makes the write of a file appear blocked for that long.
pub(crate) fn block_write(metrics: &Metrics, file: &'static str, ago: Duration) {
    let counters = Counters::default();
    counters.clock.block_since(Instant::now().checked_sub(ago).expect("the machine runs for longer"));
    metrics.count_writer(file, &counters);
}
