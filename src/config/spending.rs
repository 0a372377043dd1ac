//! Maximum consumption of a probe in requests, tokens and money, for check-config and the budget.

use std::time::Duration;

use super::model::{Probe, Task};

/// A UTC day; leap seconds are ignored.
const DAY: Duration = Duration::from_secs(86_400);

/// Days of the longest months, because the figures are upper bounds.
const DAYS_PER_MONTH: f64 = 31.0;

/// The consumption of runs: an upper estimate. Input tokens are estimated from the prompt; output
/// tokens are `max_tokens`, which most answers do not reach.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spending {
    /// Number of HTTP requests.
    pub requests: f64,
    /// Estimated tokens of the prompts.
    pub input_tokens: f64,
    /// Maximum tokens of the answers.
    pub output_tokens: f64,
    /// Cost of the tokens that have a price, in US dollars. `None` if none has one.
    pub cost_usd: Option<f64>,
}

impl Spending {
    /// Returns the consumption of one run.
    pub fn per_run(probe: &Probe) -> Self {
        // The network check only connects.
        let requests = if matches!(probe.task, Task::Network) { 0.0 } else { 1.0 };
        let Some(chat) = probe.chat() else { return Self { requests, ..Self::default() } };
        let (input, output) = (chat.estimated_input_tokens(), u64::from(chat.max_tokens));
        let cost_usd = chat.price.map(|price| price.cost(input, 0, output));
        Self { requests, input_tokens: input as f64, output_tokens: output as f64, cost_usd }
    }

    /// Returns the consumption of a day of runs at the probe's interval.
    pub fn per_day(probe: &Probe) -> Self {
        Self::per_run(probe).times(DAY.as_secs_f64() / probe.interval.as_secs_f64())
    }

    /// Returns the consumption of 31 days, if this is that of one day.
    #[must_use]
    pub fn month(self) -> Self {
        self.times(DAYS_PER_MONTH)
    }

    /// Returns the sum. The cost covers only what has a price.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let cost_usd = match (self.cost_usd, other.cost_usd) {
            (Some(one), Some(another)) => Some(one + another),
            (one, another) => one.or(another),
        };
        Self {
            requests: self.requests + other.requests,
            input_tokens: self.input_tokens + other.input_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            cost_usd,
        }
    }

    /// Returns input and output tokens together.
    pub fn tokens(&self) -> f64 {
        self.input_tokens + self.output_tokens
    }

    fn times(self, factor: f64) -> Self {
        Self {
            requests: self.requests * factor,
            input_tokens: self.input_tokens * factor,
            output_tokens: self.output_tokens * factor,
            cost_usd: self.cost_usd.map(|cost| cost * factor),
        }
    }
}
