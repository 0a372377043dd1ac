//! Everything exported: the series of the probes by a writer of ours, the daemon's own by the prometheus crate.
//!
//! [`Metrics`] is the whole; [`Series`] is what one probe writes to. A page is rendered family by family over all
//! series; series come and go with their struct, and observing a run looks no label up.
//!
//! - `registry` is the whole: which probes have series, and the page.
//! - `series` takes a probe's runs in, with `streak` for failures in a row; `values` are the atomics below.
//! - `families` names what of it is exported, `text` writes the format.
//! - `comparison`, `pool`, `budget` and `offline` are what concerns more than one probe.
//! - `own` is the daemon's own, `process` its `process_*`.
//! - `document` writes METRICS.md.

mod budget;
mod comparison;
#[cfg(test)]
mod document;
mod families;
mod offline;
mod own;
mod pool;
mod process;
mod registry;
mod series;
mod streak;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod text;
mod values;

pub use self::{
    budget::BudgetNow,
    comparison::ComparisonSeries,
    own::OwnNow,
    registry::Metrics,
    series::{Last, Series},
};
