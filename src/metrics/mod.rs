//! Everything exported: the series of the probes by a writer of ours, the daemon's own by the prometheus crate.
//!
//! [`Metrics`] is the whole; [`Series`] is what one probe writes to. A page is rendered family by family over all
//! series; series come and go with their struct, and observing a run looks no label up.

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
