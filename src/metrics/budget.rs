//! Metrics of the daily budget.

use std::time::SystemTime;

use super::text::{Header, Kind, Page};
use crate::config::Budget;

/// State of the daily budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetNow {
    /// The configured limits.
    pub limits: Budget,
    /// US dollars spent, with runs in flight counted at their maximum.
    pub spent_usd: f64,
    /// Tokens spent, with runs in flight counted at their maximum.
    pub spent_tokens: u64,
    /// Time at which refused generation checks resume. `None` if none was refused today.
    pub resumes: Option<SystemTime>,
}

/// Writes the gauges. A limit that is not configured has no sample.
pub(super) fn write(budget: Option<&BudgetNow>, page: &mut Page) {
    let Some(&BudgetNow { limits, spent_usd, spent_tokens, resumes: _ }) = budget else { return };
    let Budget { daily_cost_usd, daily_tokens } = limits;
    let gauges = [
        (
            "langmart_budget_spent_usd",
            "Estimated cost of generation checks in the current UTC day, with runs in progress counted at their maximum.",
            Some(spent_usd),
        ),
        (
            "langmart_budget_limit_usd",
            "Configured daily cost limit. Absent if there is none.",
            daily_cost_usd,
        ),
        (
            "langmart_budget_spent_tokens",
            "Tokens of generation checks in the current UTC day, with runs in progress counted at their maximum.",
            Some(spent_tokens as f64),
        ),
        (
            "langmart_budget_limit_tokens",
            "Configured daily token limit. Absent if there is none.",
            daily_tokens.map(|tokens| tokens as f64),
        ),
    ];
    for (name, help, value) in gauges {
        page.family(Header { name, kind: Kind::Gauge, help });
        if let Some(value) = value {
            page.sample("", value);
        }
    }
}
