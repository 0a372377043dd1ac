//! The configuration: from a TOML file to checked, immutable types. Reports every problem of a file
//! at once.
//!
//! [`load`] reads the file, `raw` parses its text to tables, `resolve` turns those into the
//! `model`, with one file per section, and `problem` has the error messages. Only `load`,
//! `environment` (environment, key files, roots) and `certificate` (of the listener) perform I/O.
//!
//! [`duration`], `secret` and `key` are types of values. `long_prompt`, `reasoning` and `spending`
//! have facts about prompts, about reasoning models, and about the consumption of probes.

mod certificate;
pub mod duration;
mod environment;
mod key;
mod load;
mod long_prompt;
mod model;
mod problem;
mod raw;
mod reasoning;
mod resolve;
mod secret;
mod spending;
#[cfg(test)]
pub(crate) mod testing;

pub use self::{
    certificate::{CertificateFiles, Stamp},
    environment::{Environment, Keys, open_regular, systemd_run},
    load::{Loaded, load, parse},
    model::*,
    problem::{Problem, Problems},
    secret::Secret,
    spending::Spending,
};
