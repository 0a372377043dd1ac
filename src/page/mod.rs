//! What people and their scripts read: the status page, a page for each probe, JSON, and `blackbox_exporter`'s view of a run.
//!
//! Everything here is a pure rendering of what [`crate::history`] remembers. maud escapes whatever is put into a page, by
//! construction; style, script and icon are files of their own, so that the policy forbids everything inline.
//!
//! - `overview` is the status page, `detail` the page of one probe; `layout` is around both, `charts` draws.
//! - `state` says in a word how a probe is, `figures` what its kept runs come to, `words` how a person reads them.
//! - `api` is the JSON, `blackbox` the answer of `/probe`.

mod api;
mod blackbox;
mod charts;
mod detail;
mod figures;
mod layout;
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

/// What a page is rendered from.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// What the probes found.
    pub history: &'a History,
    /// How the day's budget stands; `None`: there is none.
    pub budget: Option<BudgetNow>,
    /// How the daemon itself is.
    pub prober: Prober,
    /// The wall clock.
    pub now: SystemTime,
}

/// How the daemon itself is.
#[derive(Clone, Debug)]
pub struct Prober {
    /// `starting`, `ready` or `stopping`.
    pub readiness: &'static str,
    /// The part that has not beaten for too long; `None`: all live.
    pub stuck: Option<String>,
    /// Whether it is cut off from the network; `None`: that cannot be told.
    pub offline: Option<bool>,
    /// When the process started.
    pub started: SystemTime,
    /// What it counts of itself.
    pub own: OwnNow,
}
