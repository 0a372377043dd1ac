//! The vocabulary that every part shares: APIs, checks, reasons, faults, the outcome of one run and its record.
//!
//! Everything here is a closed type, so that a label value or a word in a record can only be one of ours.
//!
//! - `verdict`: which API, which check, why it failed, and whose part failed.
//! - `findings`: what a run finds beside its verdict: phases, limits, certificate, status page, balance.
//! - `network`: what only the network check finds.
//! - `run`: the [`Outcome`], which holds all of it.
//! - `record`: the outcome as a line of `results.jsonl`.
//! - `comparison`: what two outcomes say together.
//! - `demand`: what comes of asking for a run of now.

#[macro_use]
mod named;

mod comparison;
mod demand;
mod findings;
mod network;
mod record;
mod run;
mod time;
mod verdict;

pub use self::{
    comparison::{Compared, Measure, Pair, PairVerdict, Side},
    demand::Demanded,
    findings::{
        Balance, Clock, Clue, ComponentStatus, ConnectionUse, Indicator, LimitedBy, Maintenance, Phases,
        RateLimit, Resource, StatusPage, Tls,
    },
    network::{AddressFailure, DnsServer, FailedAddress, LookupFailure, Network},
    record::{Record, Subject},
    run::{OTHER, Outcome},
    time::{date, rfc3339, unix_seconds},
    verdict::{Api, Check, Fault, Reason, SkipCause, possible_failures},
};
