//! What comes of asking for a run of now.

use std::sync::Arc;

use super::{Outcome, SkipCause};

/// What comes of asking for a run of now.
#[derive(Clone, Debug)]
pub enum Demanded {
    /// A run that ended after it was asked for; others may have asked for the same.
    Ran(Arc<Outcome>),
    /// None, since the probe waits for this.
    Waits(SkipCause),
}
