//! The composition root: what is started in which order, the one select loop, reload and stop.
//!
//! - `service` is the daemon from its first to its last moment; `loading` reads its configuration beside the main loop.
//! - `probing` is the thread that times probes; `delivery` hands their outcomes to everybody who wants them.
//! - `memory` is what is kept over a restart.
//! - `looks` watches files that others change, of which `certificate` is the listener's own.
//! - `hygiene` keeps the process' memory to itself.

mod certificate;
mod delivery;
mod hygiene;
mod loading;
mod looks;
mod memory;
mod probing;
mod service;

pub use self::{
    loading::Source,
    service::{Fatal, run},
};
