//! `[budget]`, and the `price` of a probe.

use std::ops::RangeInclusive;

use super::context::Placed;
use crate::config::{
    model::{Budget, Price},
    problem::{Place, Report},
    raw::Section,
    spending::Spending,
};

/// US dollars a million tokens: some ten times what the dearest model has ever cost.
const PRICES: RangeInclusive<f64> = 0.0..=10_000.0;

/// US dollars a day: less than a millionth buys no token, more than a million is a slip of the finger.
const COSTS: RangeInclusive<f64> = 1e-6..=1e6;

/// Tokens a day.
const TOKENS: RangeInclusive<u32> = 1..=1_000_000_000;

/// `[budget]`, and where its limits stand.
pub(super) struct PlacedBudget {
    pub(super) budget: Budget,
    cost_place: Place,
    tokens_place: Place,
}

/// The budget of a file; `None`: it has none.
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

/// What the tokens of a probe's model cost.
pub(super) fn price(section: &mut Section<'_>) -> Option<Price> {
    if !section.has("price") {
        return None;
    }
    let mut table = section.section("price");
    for key in ["input_usd_per_mtok", "output_usd_per_mtok"] {
        if table.is_table() && !table.has(key) {
            table.problem(key, "is missing; write what a million tokens cost in US dollars, 0 if nothing");
        }
    }
    let input = table.amount("input_usd_per_mtok", &PRICES);
    let output = table.amount("output_usd_per_mtok", &PRICES);
    table.finish();
    Some(Price { input_usd_per_mtok: input?, output_usd_per_mtok: output? })
}

/// Reports what the probes lack for the budget, and warns where they would take more than it has.
pub(super) fn agree(placed: &PlacedBudget, probes: &[Placed], report: &Report) {
    let PlacedBudget { budget, cost_place, tokens_place } = placed;
    let generating = || probes.iter().filter(|placed| placed.probe.check().generates());
    let most =
        generating().fold(Spending::default(), |sum, placed| sum.plus(Spending::of_day(&placed.probe)));
    if let Some(limit) = budget.daily_cost_usd {
        let unpriced: Vec<_> = generating()
            .filter(|placed| placed.probe.chat().is_some_and(|chat| chat.price.is_none()))
            .map(|placed| placed.probe.name.as_str())
            .collect();
        if !unpriced.is_empty() {
            let message = format!(
                "needs a price on every chat and stream probe; without one are {}; give each \
                 price = {{ input_usd_per_mtok = …, output_usd_per_mtok = … }}",
                unpriced.join(", ")
            );
            report.error(cost_place, message);
        }
        let cost = most.cost_usd.unwrap_or(0.0);
        if cost > limit {
            let message = format!(
                "the chat and stream probes may cost up to {cost:.2} USD a day, more than {limit}; when it is \
                 spent they stop for the rest of the UTC day"
            );
            report.warning(cost_place, message);
        }
    }
    if let Some(limit) = budget.daily_tokens
        && most.tokens() > limit as f64
    {
        let message = format!(
            "the chat and stream probes may take up to {:.0} tokens a day, more than {limit}; when they are spent \
             the probes stop for the rest of the UTC day",
            most.tokens()
        );
        report.warning(tokens_place, message);
    }
    for Placed { probe, place } in generating() {
        let run = Spending::of_run(probe);
        let too_dear =
            budget.daily_cost_usd.is_some_and(|limit| run.cost_usd.is_some_and(|cost| cost > limit));
        let too_long = budget.daily_tokens.is_some_and(|limit| run.tokens() > limit as f64);
        if too_dear || too_long {
            let message = "will never run: a single run of it may take more than the whole budget of a day; lower \
                           its max_tokens or raise the budget";
            report.warning(place, message);
        }
    }
}
