//! The request of a probe in one sentence, for a support ticket: without key, headers, body and
//! query.

use std::{fmt, time::Duration};

use hyper::header::USER_AGENT;
use serde::Serialize;

use super::request::{self, AGENT};
use crate::{
    config::{Probe, Task, duration},
    outcome::in_record,
};

/// The request of a probe, as configured.
#[derive(Debug, Serialize)]
pub struct RequestSummary {
    /// The method. `None` if the check sends no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// The URL without query; the base URL if the check sends no request.
    url: String,
    /// The port of the URL.
    #[serde(skip)]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// `None` if the request is not for a completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    is_streamed: bool,
    /// The header of the key with its scheme, if any, such as `authorization: Bearer`. `None`
    /// without a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_header: Option<String>,
    #[serde(rename = "timeout_seconds", serialize_with = "in_record")]
    timeout: Duration,
    #[serde(rename = "interval_seconds", serialize_with = "in_record")]
    interval: Duration,
    /// `None` if the operator has replaced it: the values of headers are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'static str>,
    /// Whether it is sent through a proxy.
    pub is_proxied: bool,
}

impl RequestSummary {
    /// Returns the summary of a probe's request. Returns `None` if it cannot be built.
    pub fn of(probe: &Probe) -> Option<Self> {
        let request = request::request(probe).ok()?;
        let mut url = request.as_ref().map_or(&probe.provider.base_url, |request| &request.url).clone();
        url.set_query(None);
        url.set_fragment(None);
        let agent = request.as_ref().and_then(|request| request.headers.get(USER_AGENT));
        let is_own = agent.is_none_or(|agent| agent == AGENT);
        let (key_header, scheme) = request::key_header(&probe.provider);
        let sends_key = probe.provider.key.is_some()
            && request.as_ref().is_some_and(|request| request.headers.contains_key(&key_header));
        Some(Self {
            method: request.map(|request| request.method.to_string()),
            port: url.port_or_known_default(),
            url: url.into(),
            model: probe.model.clone(),
            max_tokens: probe.chat().map(|chat| chat.max_tokens),
            is_streamed: matches!(probe.task, Task::Stream(_)),
            key_header: sends_key.then(|| match scheme.trim_end() {
                "" => key_header.to_string(),
                scheme => format!("{key_header}: {scheme}"),
            }),
            timeout: probe.timeout,
            interval: probe.interval,
            user_agent: is_own.then_some(AGENT),
            is_proxied: probe.provider.proxy.is_some(),
        })
    }
}

impl fmt::Display for RequestSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [timeout, interval] = [self.timeout, self.interval].map(duration::format);
        let Some(method) = &self.method else {
            return write!(f, "none, only a connection to {}, timeout {timeout}, every {interval}", self.url);
        };
        write!(f, "{method} {}", self.url)?;
        if let Some(model) = &self.model {
            write!(f, ", model {model}")?;
        }
        if let Some(tokens) = self.max_tokens {
            let streamed = if self.is_streamed { "streamed" } else { "not streamed" };
            write!(f, ", at most {tokens} tokens, {streamed}")?;
        }
        match &self.key_header {
            Some(header) => write!(f, ", key in \"{header}\"")?,
            None => f.write_str(", without a key")?,
        }
        write!(f, ", timeout {timeout}, every {interval}, ")?;
        match self.user_agent {
            Some(agent) => write!(f, "User-Agent {agent}"),
            None => f.write_str("a User-Agent of the operator's own"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::header::HeaderValue;

    use super::*;
    use crate::{
        config::{Chat, Key, KeySource, Provider, Secret, testing},
        outcome::Api,
    };

    fn provider() -> Provider {
        let value = Secret::new("sk-secret".to_owned());
        let key = Some(Key { value, source: KeySource::Env("KEY".to_owned()) });
        Provider { key, ..testing::provider("acme", Api::Langmart, "https://api.langmart.ai") }
    }

    #[track_caller]
    fn check(provider: Provider, task: Task, expected: &str) {
        let mut probe = testing::probe("probe", &Arc::new(provider), task);
        probe.model = probe.chat().map(|_| "openai/gpt-4o-mini".to_owned());
        let summary = RequestSummary::of(&probe).unwrap().to_string();
        assert_eq!(summary, expected.replace("AGENT", AGENT));
    }

    #[test]
    fn summary_has_the_facts_of_each_request() {
        let chat = Chat { max_tokens: 32, ..Chat::default() };
        check(
            provider(),
            Task::Chat(chat),
            "POST https://api.langmart.ai/v1/chat/completions, model openai/gpt-4o-mini, at most 32 tokens, \
             not streamed, key in \"authorization: Bearer\", timeout 30s, every 1m, User-Agent AGENT",
        );
        check(
            provider(),
            Task::Health,
            "GET https://api.langmart.ai/health, without a key, timeout 30s, every 1m, User-Agent AGENT",
        );
        check(
            provider(),
            Task::Network,
            "none, only a connection to https://api.langmart.ai/, timeout 30s, every 1m",
        );
    }

    #[test]
    fn summary_shows_neither_query_nor_header_values() {
        let agent = HeaderValue::from_static("secret-agent");
        let mut provider = Provider { headers: vec![(USER_AGENT, agent)], ..provider() };
        provider.paths.health = Some("/up?token=secret".to_owned());
        check(
            provider,
            Task::Health,
            "GET https://api.langmart.ai/up, without a key, timeout 30s, every 1m, a User-Agent of the operator's own",
        );
    }
}
