//! Outages, from the runs of all probes in order: when each began and ended, who was responsible,
//! what failed, and what the status page and the other path reported meanwhile.
//!
//! `report --incidents` feeds it with records, the status page with the runs in memory. Its memory
//! is bounded by the number of probes and of listed outages, not by the number of runs.
//!
//! - `run` is one run as its input, `name` a shared name.
//! - `ledger` follows each probe and assigns its failures to outages.
//! - `outage` is one outage, `availability` the account of each provider and month.
//! - `status_pages` is what the providers themselves reported.
//! - `elsewhere` is what other probers saw.
//! - `span` adds up the time in which at least one of several probes was down.

mod availability;
mod elsewhere;
mod ledger;
mod name;
mod outage;
mod run;
mod span;
mod status_pages;
#[cfg(test)]
mod tests;

pub use self::{
    availability::{Downtime, ProviderMonth},
    elsewhere::Vantage,
    ledger::{Incidents, Ledger, MAX_OUTAGES},
    name::Name,
    outage::{AffectedProbe, Elsewhere, FailedRequest, FailureKind, Maintained, Outage, StatusPageReport},
    run::Observed,
};
