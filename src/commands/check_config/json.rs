//! The result as one JSON object.

use serde::Serialize;

use super::plan::total;
use crate::config::{Config, Loaded, Probe, Problem, Problems, Spending};

/// The result of the command.
#[derive(Serialize)]
struct Answer<'a> {
    valid: bool,
    errors: &'a [Problem],
    warnings: &'a [Problem],
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    plan: Option<Plan<'a>>,
}

/// The probes of a valid configuration.
#[derive(Serialize)]
struct Plan<'a> {
    probes: Vec<PlannedProbe<'a>>,
    per_day: Consumption,
}

#[derive(Serialize)]
struct PlannedProbe<'a> {
    probe: &'a str,
    provider: &'a str,
    api: &'static str,
    check: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    base_url: &'a str,
    interval_seconds: f64,
    timeout_seconds: f64,
    per_day: Consumption,
}

/// Upper estimates; the cost covers only what has a price.
#[derive(Serialize)]
struct Consumption {
    requests: f64,
    input_tokens: f64,
    output_tokens: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
}

impl From<Spending> for Consumption {
    fn from(spending: Spending) -> Self {
        let Spending { requests, input_tokens, output_tokens, cost_usd } = spending;
        Self { requests, input_tokens, output_tokens, cost_usd }
    }
}

/// Returns the object, with a newline.
pub(super) fn render(loaded: &Result<Loaded, Problems>) -> String {
    let (errors, warnings, plan) = match loaded {
        Ok(Loaded { warnings, config, .. }) => (&[][..], &**warnings, Some(plan(config))),
        Err(problems) => (problems.as_slice(), problems.warnings(), None),
    };
    let answer = Answer { valid: loaded.is_ok(), errors, warnings, plan };
    let text = serde_json::to_string(&answer).expect("an object with string keys is JSON");
    format!("{text}\n")
}

fn plan(config: &Config) -> Plan<'_> {
    Plan { probes: config.probes.iter().map(|probe| planned(probe)).collect(), per_day: total(config).into() }
}

fn planned(probe: &Probe) -> PlannedProbe<'_> {
    let provider = &probe.provider;
    PlannedProbe {
        probe: &probe.name,
        provider: &provider.name,
        api: provider.api.name(),
        check: probe.check().name(),
        model: probe.model.as_deref(),
        base_url: provider.base_url.as_str().trim_end_matches('/'),
        interval_seconds: probe.interval.as_secs_f64(),
        timeout_seconds: probe.timeout.as_secs_f64(),
        per_day: Spending::per_day(probe).into(),
    }
}
