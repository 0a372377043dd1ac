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
pub mod secret;
mod spending;
mod surroundings;
#[cfg(test)]
pub mod testing;

pub use self::{
    certificate::{CertificateFiles, Stamp},
    load::{Loaded, load, parse},
    model::*,
    problem::{Problem, Problems},
    secret::Secret,
    spending::Spending,
    surroundings::{Keys, Surroundings, systemd_run},
};
