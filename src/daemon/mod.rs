//! The composition root: start order, the select loop, reload and stop.
//!
//! - `service` is the daemon from start to stop. `loading` reads the configuration outside of the
//!   main loop, and `reload_checks` rejects changes that require a restart.
//! - `books` opens files and metrics. `probing` is the thread that schedules probes. `delivery`
//!   distributes their outcomes.
//! - `state_store` is the state that survives a restart.
//! - `file_watcher` watches the files of `listener_certificate`.
//! - `fatal` is the error that ends the daemon.
//! - `core_dumps` protects the memory of the process.

mod books;
mod core_dumps;
mod delivery;
mod fatal;
mod file_watcher;
mod listener_certificate;
mod loading;
mod probing;
mod reload_checks;
mod service;
mod state_store;

pub use self::{core_dumps::forbid_core_dumps, fatal::Fatal, loading::Source, service::run};
