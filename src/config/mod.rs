//! What the operator asked for: from a TOML file to checked, immutable types, every problem of a file at once.
//!
//! [`load`] reads the file, `raw` turns its text into tables, `resolve` turns those into the [`model`], `problem` says
//! what was wrong. Only `load` and `surroundings` touch the world outside.

mod certificate;
pub mod duration;
mod key;
mod load;
mod long_prompt;
pub mod model;
mod problem;
mod raw;
mod reasoning;
mod resolve;
mod resolve_budget;
mod resolve_groups;
mod resolve_http;
mod resolve_manner;
mod resolve_probe;
mod resolve_provider;
mod resolve_server;
mod resolve_shard;
pub mod secret;
mod spending;
mod surroundings;
#[cfg(test)]
pub mod testing;

pub use self::{
    certificate::{CertificateFiles, Stamp},
    load::{Keys, Loaded, load, parse},
    model::*,
    problem::{Problem, Problems},
    resolve::systemd_run,
    secret::Secret,
    spending::Spending,
    surroundings::Surroundings,
};
