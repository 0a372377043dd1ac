//! What is exported of the day's budget.

use std::time::SystemTime;

use super::text::{Header, Kind, Page};
use crate::config::Budget;

/// How the budget of a UTC day stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetNow {
    /// What there is to spend.
    pub limits: Budget,
    /// US dollars spent, runs in flight at their most.
    pub spent_usd: f64,
    /// Tokens spent, runs in flight at their most.
    pub spent_tokens: u64,
    /// When generation checks go on that do not fit in what is left; `None`: none was refused so far.
    pub resumes: Option<SystemTime>,
}

/// The gauges: of what is spent wherever there is a budget, of limits where there is one.
pub(super) fn write(budget: Option<&BudgetNow>, page: &mut Page) {
    let Some(&BudgetNow { limits, spent_usd, spent_tokens, resumes: _ }) = budget else { return };
    let Budget { daily_cost_usd, daily_tokens } = limits;
    let gauges = [
        (
            "langmart_budget_spent_usd",
            "Estimated cost of this UTC day's generation checks, runs in flight at their most.",
            Some(spent_usd),
        ),
        (
            "langmart_budget_limit_usd",
            "The most that a UTC day may cost. Absent without a limit.",
            daily_cost_usd,
        ),
        (
            "langmart_budget_spent_tokens",
            "Tokens of this UTC day's generation checks, runs in flight at their most.",
            Some(spent_tokens as f64),
        ),
        (
            "langmart_budget_limit_tokens",
            "The most tokens that a UTC day may take. Absent without a limit.",
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
