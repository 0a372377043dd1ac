//! Lines to files that never stop the one who writes: a bounded queue and a thread for each, and files that roll.
//!
//! Every line given is counted exactly once: written, dropped (queue or file full, or stopped), or failed.

mod queue;
mod retired;
mod rolling;

pub use self::{
    queue::{Counters, Fate, Lines},
    retired::Retired,
    rolling::{Files, OpenError, Period, RollingFile},
};
