//! What the pages show: of each probe the last runs, what was told last, and what it waits for, in bounded memory.
//!
//! The daemon's delivery feeds it, the listener's thread reads it. A run is kept as numbers of fixed size; what only a
//! failed one has is boxed beside them, so that a hundred runs of a thousand probes take some ten megabytes. The last of
//! them are kept whole as well, for the API: as many as a bound for all probes together allows.

mod memory;
mod run;

pub use self::{
    memory::{Held, History, MAX_RUNS, ProbeHistory, Snapshot, Told, Waiting, whole_per_probe},
    run::{Failure, Run},
};
