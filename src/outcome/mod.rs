//! Vocabulary shared by all parts: APIs, checks, reasons, faults, the outcome of a run and its
//! record.
//!
//! All types are closed, so that label values and names in records come from this code only.
//!
//! - `verdict`: API, check and fault; `reason`: the reasons, with the table of what each implies.
//! - `detail`: what was observed beyond the reason, for remedies and as a sentence.
//! - `findings`: findings of a run: phases, rate limits, certificate, status page, balance.
//! - `network`: findings of the network check.
//! - `run`: the [`Outcome`].
//! - `record`: the outcome as a line of `results.jsonl`.
//! - `comparison`: comparison of two outcomes.
//! - `on_demand`: result of an on-demand run.

#[macro_use]
mod named;

mod comparison;
mod detail;
mod findings;
mod network;
mod on_demand;
mod reason;
mod record;
mod run;
mod time;
mod verdict;

pub use self::{
    comparison::{Compared, Measure, Pair, PairVerdict, Side},
    detail::{CertificateFailure, Detail, Emptiness, HandshakeFailure, Intermediary, ProxyFailure},
    findings::{
        Balance, Clock, ComponentStatus, ConnectionUse, Indicator, LimitedBy, Maintenance, Phase, Phases,
        RateLimit, Resource, StatusPage, StreamShape, Tls,
    },
    network::{AddressFailure, DnsServer, FailedAddress, LookupFailure, Network},
    on_demand::OnDemandResult,
    reason::{BackoffClass, Reason, ReasonInfo, possible_failures},
    record::{Record, Subject},
    run::{MIN_SPEED_TOKENS, OTHER, Outcome},
    time::{InRecord, date, in_record, rfc3339, unix_seconds},
    verdict::{Api, Check, Fault, SkipCause},
};
