//! The composition root: what is started in which order, the one select loop, reload and stop.
//!
//! - `service` is the daemon from its first to its last moment; `loading` reads its configuration beside the main loop,
//!   and `reload` refuses what must not take effect without a restart.
//! - `probing` is the thread that times probes; `delivery` hands their outcomes to everybody who wants them.
//! - `memory` is what is kept over a restart.
//! - `looks` watches files that others change, of which `certificate` is the listener's own.
//! - `fatal` says why it could not start or had to end.
//! - `hygiene` keeps the process' memory to itself.

mod certificate;
mod delivery;
mod fatal;
mod hygiene;
mod loading;
mod looks;
mod memory;
mod probing;
mod reload;
mod service;

pub use self::{fatal::Fatal, hygiene::forbid_core_dumps, loading::Source, service::run};
