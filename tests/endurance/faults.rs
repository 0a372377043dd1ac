//! Random scenarios of everything that the simulator can play, and the hints that they send.

use std::{collections::BTreeMap, fmt::Write};

use langmart_prober::simulator::{Scenario, SimulatedService};

use super::draw::Draw;
use crate::harness::random::Random;

/// Models that every service knows.
const MODELS: [&str; 4] = ["soak-chat", "soak-stream", "soak-warm", "soak-recheck"];

/// Faults with a hint in every service.
const HINTS: [&str; 3] = ["rate_limited", "unavailable", "overloaded"];

/// Returns the name of the model at that provider.
pub fn model(provider: SimulatedService, name: &str) -> String {
    match provider {
        SimulatedService::Langmart | SimulatedService::Openrouter => format!("openai/soak-{name}"),
        _ => format!("soak-{name}"),
    }
}

/// A scenario, and its hints: seconds by fault. Faults without an entry send no predictable hint.
pub struct FaultScenario {
    pub text: String,
    pub hints: BTreeMap<&'static str, f64>,
}

/// Every fault with its variants.
pub struct Faults(Vec<(String, Vec<String>)>);

impl Faults {
    pub fn all() -> Self {
        let with_variants = |name: String| {
            let variants = listed(&format!("fault = \"{name}\"\nms = 1\nvariant = \"?\""), "it has ");
            let variants = if variants.is_empty() {
                listed(&format!("fault = \"{name}\"\nvariant = \"?\""), "it has ")
            } else {
                variants
            };
            (name, variants)
        };
        let names = listed("fault = \"?\"", "known faults: ");
        assert!(names.len() >= 30, "{names:?}");
        Self(names.into_iter().map(with_variants).collect())
    }

    /// Returns a scenario with up to six rules.
    pub fn draw(&self, random: &mut Random) -> FaultScenario {
        let mut text = models();
        let mut hints = BTreeMap::new();
        for rule in 0..=random.below(6) {
            // Every other time the first one has a hint.
            let asking = self.0.iter().filter(|(name, _)| HINTS.contains(&name.as_str()));
            let asking: Vec<_> = asking.collect();
            let (name, variants) =
                if rule == 0 && random.one_in(2) { *random.pick(&asking) } else { random.pick(&self.0) };
            text.push_str("[[rule]]\n");
            writeln!(text, "fault = \"{name}\"").unwrap();
            writeln!(text, "probability = {}", random.pick(&["0.1", "0.3", "1.0"])).unwrap();
            let of_connection = matches!(name.as_str(), "slow_accept" | "slow_handshake" | "reset_handshake");
            if !of_connection && !random.one_in(3) {
                writeln!(text, "provider = \"{}\"", random.pick(&SimulatedService::ALL).name()).unwrap();
            }
            match name.as_str() {
                // The listener itself is slow; with a longer delay no client would be served.
                "slow_accept" => text.push_str("ms = 2\n"),
                "slow_headers" | "slow_body" | "slow_handshake" => {
                    writeln!(text, "ms = {}", random.pick(&[5, 50, 300, 60_000])).unwrap();
                }
                _ => {}
            }
            let variant = (!variants.is_empty() && !random.one_in(3)).then(|| random.pick(variants).as_str());
            if let Some(variant) = variant {
                writeln!(text, "variant = \"{variant}\"").unwrap();
            }
            if let Some((fault, seconds)) = hint(name, random) {
                writeln!(text, "retry_after = \"{seconds}s\"").unwrap();
                let asked = match variant {
                    Some("none") => 0.0,
                    // Truncated to seconds, as is the Date header: the two may differ by one.
                    Some("http_date") => f64::from(seconds) - 1.0,
                    _ => f64::from(seconds),
                };
                let least = hints.get(fault).map_or(asked, |before: &f64| before.min(asked));
                hints.insert(fault, least);
            }
        }
        writeln!(
            text,
            "[[rule]]\npath = \"/chat\"\npace = {{ first_token = \"{}ms\", token = \"2ms\", tokens = {} }}",
            random.pick(&[0, 5, 80]),
            random.pick(&[2, 5, 20])
        )
        .unwrap();
        FaultScenario { text, hints }
    }
}

/// Returns a scenario without faults.
pub fn fair() -> FaultScenario {
    FaultScenario { text: models(), hints: BTreeMap::new() }
}

/// Returns a hint; an hour is more than `max_backoff`.
fn hint(fault: &str, random: &mut Random) -> Option<(&'static str, u32)> {
    let fault = HINTS.into_iter().find(|name| *name == fault)?;
    Some((fault, *random.pick(&[1, 2, 3, 3600])))
}

fn models() -> String {
    let mut text = "[models]\n".to_owned();
    for provider in SimulatedService::ALL {
        let names =
            MODELS.map(|name| format!("\"{}\"", model(provider, name.strip_prefix("soak-").unwrap())));
        writeln!(text, "{} = [{}]", provider.name(), names.join(", ")).unwrap();
    }
    text
}

/// Returns the names that the simulator lists in its error for an unknown one.
fn listed(rule: &str, before: &str) -> Vec<String> {
    let Err(refusal) = Scenario::parse(&format!("[[rule]]\n{rule}")) else { return Vec::new() };
    let refusal = refusal.to_string();
    let names = refusal.split_once(before).map(|(_, names)| names.trim_end().split(", "));
    names.into_iter().flatten().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
