//! What a probe takes of requests, tokens and money at most, for plans and for the budget.

use std::time::Duration;

use super::model::{Probe, Task};

/// A UTC day; leap seconds are nobody's schedule.
const DAY: Duration = Duration::from_secs(86_400);

/// The days of the longest months, since the figures are the most there can be.
const DAYS_A_MONTH: f64 = 31.0;

/// What runs take. Input tokens are estimated from the prompt, output tokens are the most there can be: an upper
/// estimate, since most answers end before `max_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spending {
    /// HTTP requests.
    pub requests: f64,
    /// Tokens of the prompts, estimated.
    pub input_tokens: f64,
    /// Tokens of the answers, at most.
    pub output_tokens: f64,
    /// US dollars, of what has a price; `None`: nothing of it has.
    pub cost_usd: Option<f64>,
}

impl Spending {
    /// Of one run.
    pub fn of_run(probe: &Probe) -> Self {
        // The network check connects, and sends none.
        let requests = if matches!(probe.task, Task::Network) { 0.0 } else { 1.0 };
        let Some(chat) = probe.chat() else { return Self { requests, ..Self::default() } };
        let (input, output) = (chat.estimated_input_tokens(), u64::from(chat.max_tokens));
        let cost_usd = chat.price.map(|price| price.cost(input, output));
        Self { requests, input_tokens: input as f64, output_tokens: output as f64, cost_usd }
    }

    /// Of a day of runs at the probe's interval.
    pub fn of_day(probe: &Probe) -> Self {
        Self::of_run(probe).times(DAY.as_secs_f64() / probe.interval.as_secs_f64())
    }

    /// A month of 31 days, if this is a day.
    #[must_use]
    pub fn month(self) -> Self {
        self.times(DAYS_A_MONTH)
    }

    /// Both together; the cost is that of the one that has a price, where the other has none.
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

    /// Input and output together.
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
