//! Results of on-demand runs.

use std::sync::Arc;

use super::{Outcome, SkipCause};

/// Result of a request for a run.
#[derive(Clone, Debug)]
pub enum OnDemandResult {
    /// A run that ended after the request, possibly shared with other requests.
    Ran(Arc<Outcome>),
    /// No run, for this cause.
    Skipped(SkipCause),
}
