//! Providers and probes for tests. Special values are set by struct update.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::model::{Connection, Paths, Probe, Provider, Task};
use crate::outcome::Api;

/// Returns a provider with defaults and without a key.
pub(crate) fn provider(name: &str, api: Api, base_url: &str) -> Provider {
    Provider {
        name: name.to_owned(),
        api,
        base_url: base_url.parse().unwrap(),
        key: None,
        key_header: None,
        proxy: None,
        ignores_environment_proxy: false,
        proxy_auth: None,
        dns_servers: Vec::new(),
        ca_file: None,
        ca_certificates: Vec::new(),
        headers: Vec::new(),
        labels: BTreeMap::new(),
        paths: Paths::default(),
        status_source: None,
        requests_per_minute: None,
    }
}

/// Returns a probe without a model, with an interval of 60 s and a timeout of 30 s.
pub(crate) fn probe(name: &str, provider: &Arc<Provider>, task: Task) -> Probe {
    Probe {
        name: name.to_owned(),
        provider: Arc::clone(provider),
        task,
        model: None,
        retires: None,
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(30),
        connection: Connection::Cold,
        slow_after: None,
        recheck: None,
        comparison: None,
    }
}
