//! Scenarios: rules that select a fault for a request, read from TOML or built by tests.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    api::SimulatedService,
    exchange::Reply,
    fault::{Fault, Kind, Parameters},
    pace::{Pace, RawPace},
    prompt_cache::PromptCache,
};

/// Rules for faults and paces. The default scenario has none.
///
/// The first matching rule with a fault or response applies; for each key of a `pace` it is the
/// first rule that has it, so that paces and faults can be combined. Everything except `fault`,
/// `respond` or `pace` is optional:
///
/// ```
/// # use langmart_prober::simulator::Scenario;
/// let scenario = Scenario::parse(
///     r#"
///     seed = 1                      # of `probability`, so that runs repeat
///     [models]
///     openai = ["my-model"]         # known beside the usual ones
///     [[rule]]
///     provider = "groq"             # absent: any
///     path = "/chat"                # a part of the path
///     model = "llama-3.1-8b-instant"
///     key_contains = "second"
///     after = "20s"                 # since the scenario began
///     until = "60s"
///     calls = { from = 3, to = 8 }  # of the calls that match, counted from 1
///     probability = 0.2
///     fault = "rate_limited"
///     retry_after = "30s"           # of the fault: ms, retry_after, variant, status, upstream
///     [[rule]]
///     path = "/health"
///     respond = { status = 200, headers = { Content-Type = "text/plain" }, body = "OK" }
///     [[rule]]
///     provider = "langmart"
///     pace = { extra = "80ms" }     # the gateway's own share, before every answer
///     [[rule]]                      # how the models generate, whether streamed or in one piece
///     pace = { processing = "5ms", first_token = "9ms", token = "1ms", tokens = 8, usage = true }
///     [[rule]]                      # another model answers, in words of its own
///     model = "gpt-4o"
///     pace = { answered_model = "gpt-4o-mini", text = "certainly not" }
///     [[rule]]                      # a proxy buffers the stream; new prompts take time
///     pace = { buffer = 4096, prefill = "100ms" }
///     "#,
/// );
/// assert!(scenario.is_ok());
/// ```
///
/// Faults that begin with `stream_` apply to requests for a stream only. Those that break a stream
/// off do so after the `tokens` of the pace, by default two.
///
/// A header selects fault and pace of a single request, for example
/// `x-simulate: rate_limited; retry_after=30s`, `x-simulate: pace; tokens=8`, or
/// `x-simulate: stream_stalled; first_token=50ms; tokens=3`.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    seed: u64,
    models: BTreeMap<SimulatedService, Vec<String>>,
    rules: Vec<Rule>,
}

/// An invalid scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Invalid TOML or an unknown key, with line and column.
    #[error("{0}")]
    Toml(String),
    /// An unknown API under `[models]`.
    #[error("models.{0}: unknown provider")]
    Models(String),
    /// An invalid rule, counted from 1.
    #[error("rule {0}: {1}")]
    Rule(usize, String),
}

#[derive(Clone, Debug)]
struct Rule {
    provider: Option<SimulatedService>,
    path: Option<String>,
    model: Option<String>,
    key_contains: Option<String>,
    after: Duration,
    until: Option<Duration>,
    first_call: u64,
    last_call: Option<u64>,
    probability: f64,
    effect: Option<Effect>,
    pace: Pace,
}

/// Reaction to a request.
pub(super) struct Reaction {
    /// `None` if no fault applies.
    pub(super) effect: Option<Effect>,
    pub(super) pace: Pace,
}

/// Effect of a rule.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Fault(Fault),
    /// A response, and the name under which it is recorded.
    Respond(Box<Reply>, &'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    #[serde(default = "one")]
    seed: u64,
    #[serde(default)]
    models: BTreeMap<String, Vec<String>>,
    #[serde(default, rename = "rule")]
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    provider: Option<String>,
    path: Option<String>,
    model: Option<String>,
    key_contains: Option<String>,
    after: Option<String>,
    until: Option<String>,
    calls: Option<RawCalls>,
    probability: Option<f64>,
    fault: Option<String>,
    ms: Option<u64>,
    retry_after: Option<String>,
    variant: Option<String>,
    status: Option<u16>,
    upstream: Option<String>,
    respond: Option<RawResponse>,
    pace: Option<RawPace>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCalls {
    #[serde(default = "one")]
    from: u64,
    to: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResponse {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

const fn one() -> u64 {
    1
}

impl Scenario {
    /// Parses the TOML of `simulate --scenario`.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let raw: RawScenario =
            toml::from_str(text).map_err(|error| ScenarioError::Toml(error.to_string()))?;
        let mut models = BTreeMap::new();
        for (name, list) in raw.models {
            models.insert(SimulatedService::from_name(&name).ok_or(ScenarioError::Models(name))?, list);
        }
        let rules = raw.rules.into_iter().enumerate();
        let rules =
            rules.map(|(index, rule)| rule.check().map_err(|error| ScenarioError::Rule(index + 1, error)));
        Ok(Self { seed: raw.seed, models, rules: rules.collect::<Result<_, _>>()? })
    }

    /// Appends a rule that answers requests whose path contains `path` (all requests if it is
    /// `None`) with a response in text form: status line, headers, an empty line, body; lines of
    /// the head may end with LF. HTTP/1.1 keeps case and order of the headers; framing is added
    /// unless the headers specify it.
    pub fn play(mut self, path: Option<&str>, response: &[u8]) -> Result<Self, ScenarioError> {
        let number = self.rules.len() + 1;
        let reply = Reply::parse(response)
            .map_err(|error| ScenarioError::Rule(number, format!("the response {error}")))?;
        self.rules.push(Rule {
            provider: None,
            path: path.map(str::to_owned),
            model: None,
            key_contains: None,
            after: Duration::ZERO,
            until: None,
            first_call: 1,
            last_call: None,
            probability: 1.0,
            effect: Some(Effect::Respond(Box::new(reply), "raw")),
            pace: Pace::default(),
        });
        Ok(self)
    }

    /// Returns the models that the scenario adds to the usual ones of a provider.
    pub(super) fn models(&self, provider: SimulatedService) -> &[String] {
        self.models.get(&provider).map_or(&[], Vec::as_slice)
    }
}

impl RawRule {
    fn check(self) -> Result<Rule, String> {
        let provider = self.provider.map(|name| {
            SimulatedService::from_name(&name).ok_or_else(|| format!("provider: unknown provider {name:?}"))
        });
        let duration = |key: &str, text: Option<String>| {
            text.map(|text| parse_duration(&text).map_err(|error| format!("{key}: {error}"))).transpose()
        };
        let parameters = Parameters {
            pause: self.ms.map(Duration::from_millis),
            retry_after: duration("retry_after", self.retry_after)?,
            variant: self.variant,
            status: self.status,
            upstream: self.upstream,
        };
        let effect = match (self.fault, self.respond) {
            (Some(name), None) => Some(Effect::Fault(Fault::new(&name, parameters)?)),
            (None, Some(_)) if parameters != Parameters::default() => {
                return Err(
                    "respond takes status, headers and body, and those inside its own braces".to_owned()
                );
            }
            (None, Some(response)) => Some(Effect::Respond(Box::new(response.check()?), "respond")),
            (None, None) if self.pace.is_some() && parameters == Parameters::default() => None,
            _ => return Err("needs either fault or respond, or a pace alone".to_owned()),
        };
        let pace = self.pace.map(RawPace::check).transpose().map_err(|error| format!("pace.{error}"))?;
        let calls = self.calls.unwrap_or(RawCalls { from: 1, to: None });
        let probability = self.probability.unwrap_or(1.0);
        let rule = Rule {
            provider: provider.transpose()?,
            path: self.path,
            model: self.model,
            key_contains: self.key_contains,
            after: duration("after", self.after)?.unwrap_or_default(),
            until: duration("until", self.until)?,
            first_call: calls.from,
            last_call: calls.to,
            probability,
            effect,
            pace: pace.unwrap_or_default(),
        };
        match rule.contradiction() {
            Some(contradiction) => Err(contradiction.to_owned()),
            None => Ok(rule),
        }
    }
}

impl RawResponse {
    fn check(self) -> Result<Reply, String> {
        if !(200..=599).contains(&self.status) {
            return Err("respond.status: must be from 200 to 599".to_owned());
        }
        let mut reply = Reply::new(self.status, "", self.body);
        reply.headers = self.headers.into_iter().collect();
        let broken = |text: &str| text.contains(['\r', '\n', '\0']);
        if reply.headers.iter().any(|(name, value)| name.is_empty() || broken(name) || broken(value)) {
            return Err("respond.headers: a name is empty, or there is a line break".to_owned());
        }
        Ok(reply)
    }
}

/// Properties of a request that rules can match.
pub(super) struct RequestFacts<'a> {
    pub(super) provider: Option<SimulatedService>,
    pub(super) path: &'a str,
    pub(super) model: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    /// Whether the request is for a stream.
    pub(super) streams: bool,
}

impl Rule {
    fn fault(&self) -> Option<Kind> {
        match &self.effect {
            Some(Effect::Fault(fault)) => Some(fault.kind),
            Some(Effect::Respond(..)) | None => None,
        }
    }

    /// Returns the first contradiction in the rule. Returns `None` if there is none.
    fn contradiction(&self) -> Option<&'static str> {
        if self.first_call == 0 || self.last_call.is_some_and(|last| last < self.first_call) {
            Some("calls: from must be at least 1, and to at least from")
        } else if self.until.is_some_and(|until| until <= self.after) {
            Some("until: must be later than after")
        } else if !(0.0..=1.0).contains(&self.probability) {
            Some("probability: must be from 0 to 1")
        } else if self.is_for_connections() && self.matches_requests() {
            Some(
                "the fault applies before a request is read, so it allows no provider, path, model, key or pace",
            )
        } else {
            None
        }
    }

    fn is_for_connections(&self) -> bool {
        self.fault().is_some_and(Kind::is_for_connections)
    }

    fn matches_requests(&self) -> bool {
        self.provider.is_some()
            || self.path.is_some()
            || self.model.is_some()
            || self.key_contains.is_some()
            || self.pace != Pace::default()
    }

    fn matches(&self, facts: &RequestFacts<'_>, since_begin: Duration) -> bool {
        self.provider.is_none_or(|provider| facts.provider == Some(provider))
            && self.path.as_deref().is_none_or(|part| facts.path.contains(part))
            && self.model.as_deref().is_none_or(|model| facts.model == Some(model))
            && self.key_contains.as_deref().is_none_or(|part| facts.key.is_some_and(|key| key.contains(part)))
            && (facts.streams || !self.fault().is_some_and(Kind::is_for_streams))
            && self.is_due(since_begin)
    }

    fn is_due(&self, since_begin: Duration) -> bool {
        since_begin >= self.after && self.until.is_none_or(|until| since_begin < until)
    }
}

/// A running scenario. A request counts for every rule that it matches, whichever rule applies, so
/// that each rule can be understood alone. Whether a rule applies to its n-th request depends on
/// seed, rule and n only.
pub(super) struct Script {
    scenario: Scenario,
    began: Instant,
    calls: Vec<u64>,
    /// The prompts so far.
    pub(super) prompts: PromptCache,
}

impl Script {
    pub(super) fn begin(scenario: Scenario) -> Self {
        Self {
            calls: vec![0; scenario.rules.len()],
            began: Instant::now(),
            prompts: PromptCache::default(),
            scenario,
        }
    }

    pub(super) fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Returns the reaction to a request.
    pub(super) fn for_request(&mut self, facts: &RequestFacts<'_>, now: Instant) -> Reaction {
        let since_begin = now - self.began;
        self.evaluate(|rule| !rule.is_for_connections() && rule.matches(facts, since_begin))
    }

    /// Returns the fault of this kind for a new connection. Returns `None` if there is none.
    pub(super) fn for_connection(&mut self, kind: Kind, now: Instant) -> Option<Fault> {
        let since_begin = now - self.began;
        match self.evaluate(|rule| rule.fault() == Some(kind) && rule.is_due(since_begin)).effect {
            Some(Effect::Fault(fault)) => Some(fault),
            Some(Effect::Respond(..)) | None => None,
        }
    }

    fn evaluate(&mut self, matches: impl Fn(&Rule) -> bool) -> Reaction {
        let mut reaction = Reaction { effect: None, pace: Pace::default() };
        for (index, (rule, calls)) in self.scenario.rules.iter().zip(&mut self.calls).enumerate() {
            if !matches(rule) {
                continue;
            }
            *calls += 1;
            let applies = *calls >= rule.first_call
                && rule.last_call.is_none_or(|last| *calls <= last)
                && share(self.scenario.seed, index as u64, *calls) < rule.probability;
            if applies {
                reaction.effect = reaction.effect.or_else(|| rule.effect.clone());
                reaction.pace = reaction.pace.or(&rule.pace);
            }
        }
        reaction
    }
}

/// Returns a uniformly distributed number in [0, 1): splitmix64 of the three arguments.
fn share(seed: u64, rule: u64, call: u64) -> f64 {
    let mut bits = seed;
    for part in [rule, call] {
        bits =
            bits.wrapping_add(part.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
    }
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Parses a number with unit ms, s, m or h, of at most a thousand hours.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is not a number with unit ms, s, m or h")),
    };
    let number = Some(number).filter(|number| number.starts_with(|c: char| c.is_ascii_digit()));
    let seconds = number.and_then(|number| number.parse::<f64>().ok()).map(|number| number * scale);
    match seconds {
        Some(seconds) if seconds <= 3_600_000.0 => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => Err(format!("{text:?} is above a thousand hours")),
        None => Err(format!("{text:?} is not a number with unit ms, s, m or h")),
    }
}

#[cfg(test)]
mod tests;
