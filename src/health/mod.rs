//! Liveness of the daemon's parts, restarts of parts that panicked, and readiness.

mod parts;
mod supervisor;

pub use self::{
    parts::{Health, Heartbeat, Liveness, Readiness},
    supervisor::{GaveUp, Panicked, Supervisor, catch_panic},
};
