//! Pages and machine-readable views: the status page, a page per probe, JSON, and runs with
//! `blackbox_exporter`'s metric names.
//!
//! All of them render the contents of [`crate::history`]. maud escapes all values. Style, script
//! and icon are separate files, so that the content security policy can forbid inline code.
//!
//! - `overview` is the status page with `outages`, `detail` the page of one probe. `layout` frames
//!   both, `charts` draws the SVG.
//! - `state` derives the state of a probe, `figures` the statistics of its runs, `words` formats
//!   values for people.
//! - `api` is the JSON, `blackbox` the response of `/probe`.

mod api;
mod blackbox;
mod charts;
mod detail;
mod figures;
mod layout;
mod outages;
mod overview;
mod state;
#[cfg(test)]
mod tests;
mod words;

pub use self::{
    api::{Filter, FilterError, Listing, probes, results},
    blackbox::{Answer, answer},
    detail::detail,
    layout::{ICON, SCRIPT, STYLE},
    overview::overview,
};

use std::time::SystemTime;

use crate::{
    history::History,
    metrics::{BudgetNow, OwnNow},
};

/// The data that a page is rendered from.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The runs of the probes.
    pub history: &'a History,
    /// The state of the daily budget, if one is configured.
    pub budget: Option<BudgetNow>,
    /// The state of the daemon.
    pub prober: Prober,
    /// The current time.
    pub now: SystemTime,
}

/// The state of the daemon.
#[derive(Clone, Debug)]
pub struct Prober {
    /// `starting`, `ready` or `stopping`.
    pub readiness: &'static str,
    /// The name of a stuck part, if any.
    pub stuck: Option<String>,
    /// Whether the prober is offline. `None` if unknown.
    pub offline: Option<bool>,
    /// Start time of the process.
    pub started: SystemTime,
    /// The daemon's counters.
    pub own: OwnNow,
}
