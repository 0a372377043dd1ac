//! What the operator asked for: from a TOML file to checked, immutable types, every problem of a file at once.
//!
//! [`load`] reads the file, `raw` turns its text into tables, `resolve` turns those into the `model`, a file for each
//! kind of section, and `problem` says what was wrong. Only `load`, `surroundings` (environment, key files, roots) and
//! `certificate` (the listener's) touch the world outside.
//!
//! [`duration`], `secret` and `key` are kinds of values; `long_prompt`, `reasoning` and `spending` are what is known of
//! prompts, of models that think first, and of what a probe costs.

mod certificate;
pub mod duration;
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
mod surroundings;
#[cfg(test)]
pub(crate) mod testing;

pub use self::{
    certificate::{CertificateFiles, Stamp},
    load::{Loaded, load, parse},
    model::*,
    problem::{Problem, Problems},
    secret::Secret,
    spending::Spending,
    surroundings::{Keys, Surroundings, open_regular, systemd_run},
};
