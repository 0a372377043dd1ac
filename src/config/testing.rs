//! Providers and probes for the tests of whatever reads a configuration; what is special about one is set by struct update.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::model::{Connection, Paths, Probe, Provider, Task};
use crate::outcome::Api;

/// A provider with nothing special, not even a key.
pub(crate) fn provider(name: &str, api: Api, base_url: &str) -> Provider {
    Provider {
        name: name.to_owned(),
        api,
        base_url: base_url.parse().unwrap(),
        key: None,
        key_header: None,
        proxy: None,
        proxy_auth: None,
        dns_servers: Vec::new(),
        ca_certificates: Vec::new(),
        headers: Vec::new(),
        labels: BTreeMap::new(),
        paths: Paths::default(),
        status_source: None,
        requests_per_minute: None,
    }
}

/// A probe without a model, each 60 s, with a timeout of 30 s.
pub(crate) fn probe(name: &str, provider: &Arc<Provider>, task: Task) -> Probe {
    Probe {
        name: name.to_owned(),
        provider: Arc::clone(provider),
        task,
        model: None,
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(30),
        connection: Connection::Cold,
        slow_after: None,
        recheck: None,
        comparison: None,
    }
}
