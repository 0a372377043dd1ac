//! `[budget]`, and the `price` of a probe.

use std::ops::RangeInclusive;

use super::context::Placed;
use crate::config::{
    model::{Budget, Price},
    problem::{Place, Report},
    raw::Section,
    spending::Spending,
};

/// Range of prices in US dollars per million tokens. The maximum is about ten times the highest
/// known price.
const PRICES: RangeInclusive<f64> = 0.0..=10_000.0;

/// Range of daily limits in US dollars. Smaller values buy no token, larger ones are typing errors.
const COSTS: RangeInclusive<f64> = 1e-6..=1e6;

/// Range of daily limits in tokens.
const TOKENS: RangeInclusive<u32> = 1..=1_000_000_000;

/// `[budget]` and the places of its limits.
pub(super) struct PlacedBudget {
    pub(super) budget: Budget,
    cost_place: Place,
    tokens_place: Place,
}

/// Reads the budget of a file, if it has one.
pub(super) fn budget(root: &mut Section<'_>) -> Option<PlacedBudget> {
    let written = root.has("budget");
    let mut section = root.section("budget");
    let budget = Budget {
        daily_cost_usd: section.amount("daily_cost_usd", &COSTS),
        daily_tokens: section.number("daily_tokens", &TOKENS).map(u64::from),
    };
    let cost_place = section.place_of("daily_cost_usd");
    let tokens_place = section.place_of("daily_tokens");
    section.finish();
    written.then_some(PlacedBudget { budget, cost_place, tokens_place })
}

/// Reads the price of a probe's model.
pub(super) fn price(section: &mut Section<'_>) -> Option<Price> {
    if !section.has("price") {
        return None;
    }
    let mut table = section.section("price");
    for key in ["input_usd_per_mtok", "output_usd_per_mtok"] {
        if table.is_table() && !table.has(key) {
            table.problem(key, "is missing; set the price of a million tokens in US dollars, or 0");
        }
    }
    let input = table.amount("input_usd_per_mtok", &PRICES);
    let output = table.amount("output_usd_per_mtok", &PRICES);
    let cached_input_usd_per_mtok = table.amount("cached_input_usd_per_mtok", &PRICES);
    table.finish();
    Some(Price { input_usd_per_mtok: input?, cached_input_usd_per_mtok, output_usd_per_mtok: output? })
}

/// Reports probes without a required price, and warns if the probes may exceed the budget.
pub(super) fn check(placed: &PlacedBudget, probes: &[Placed], report: &Report) {
    let PlacedBudget { budget, cost_place, tokens_place } = placed;
    let generating = || probes.iter().filter(|placed| placed.probe.check().generates());
    let maximum =
        generating().fold(Spending::default(), |sum, placed| sum.plus(Spending::per_day(&placed.probe)));
    if let Some(limit) = budget.daily_cost_usd {
        let unpriced: Vec<_> = generating()
            .filter(|placed| placed.probe.chat().is_some_and(|chat| chat.price.is_none()))
            .map(|placed| placed.probe.name.as_str())
            .collect();
        if !unpriced.is_empty() {
            let message = format!(
                "requires a price for every chat and stream probe; missing for {}; add \
                 price = {{ input_usd_per_mtok = …, output_usd_per_mtok = … }}",
                unpriced.join(", ")
            );
            report.error(cost_place, message);
        }
        let cost = maximum.cost_usd.unwrap_or(0.0);
        if cost > limit {
            let message = format!(
                "the chat and stream probes may cost up to {cost:.2} USD per day, more than {limit}; when the budget is \
                 used up, they pause for the rest of the UTC day"
            );
            report.warning(cost_place, message);
        }
    }
    if let Some(limit) = budget.daily_tokens
        && maximum.tokens() > limit as f64
    {
        let message = format!(
            "the chat and stream probes may consume up to {:.0} tokens per day, more than {limit}; when the budget is \
             used up, they pause for the rest of the UTC day",
            maximum.tokens()
        );
        report.warning(tokens_place, message);
    }
    for Placed { probe, place } in generating() {
        let run = Spending::per_run(probe);
        let too_expensive =
            budget.daily_cost_usd.is_some_and(|limit| run.cost_usd.is_some_and(|cost| cost > limit));
        let too_long = budget.daily_tokens.is_some_and(|limit| run.tokens() > limit as f64);
        if too_expensive || too_long {
            let message = "will never run: a single run may exceed the daily budget; lower \
                           max_tokens or raise the budget";
            report.warning(place, message);
        }
    }
}
