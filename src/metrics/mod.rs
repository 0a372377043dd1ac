//! Prometheus metrics.
//!
//! [`Metrics`] holds all metrics, [`Series`] those of one probe. A page is rendered family by
//! family over all series. The labels of a series are rendered once, so that observing a run needs
//! no lookup.
//!
//! - `families` is the table of all families. `samples` writes those that need more than a line.
//! - `page` writes them in the format of the scraper, by `text` or `protobuf`.
//! - `registry` holds all series and renders the page.
//! - `series` holds the values of one probe, with `streak` for consecutive failures; `values` and
//!   `histogram` are the values.
//! - `comparison`, `pool`, `budget_state` and `offline` are metrics of several probes.
//! - `own` are the daemon's own metrics, `process` the `process_*` metrics.
//! - `document` generates METRICS.md.

mod budget_state;
mod comparison;
#[cfg(test)]
mod document;
mod families;
#[cfg(test)]
mod formats;
mod histogram;
mod offline;
mod own;
mod page;
mod pool;
mod process;
mod protobuf;
mod registry;
mod samples;
mod series;
mod streak;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod text;
mod values;

pub use self::{
    budget_state::BudgetNow,
    comparison::ComparisonSeries,
    own::OwnNow,
    page::Format,
    registry::Metrics,
    series::{Last, Series},
};
