//! Liveness of the daemon's parts, restarts of parts that panicked, and readiness.

mod parts;
mod supervisor;

pub use self::{
    parts::{Beat, Health, Readiness, Silence},
    supervisor::{GaveUp, Panicked, Supervisor, caught},
};
