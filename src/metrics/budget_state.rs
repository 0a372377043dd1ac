//! State of the daily budget, as the metrics show it.

use std::time::SystemTime;

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
