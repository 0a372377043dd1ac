//! Recent runs of each probe, in bounded memory, for the pages and the API.
//!
//! The daemon's delivery writes it, the listener's thread reads it. A run is stored as numbers of
//! fixed size; details of failures are boxed, so that a hundred runs of a thousand probes take
//! about ten megabytes. The latest runs are also kept in full for the API, within a limit for all
//! probes together.

mod memory;
mod run;

pub use self::{
    memory::{
        History, LastReported, MAX_RUNS, ProbeHistory, SkippedRuns, Snapshot, Waiting, whole_per_probe,
    },
    run::{Failure, Run},
};
