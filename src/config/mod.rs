//! The configuration: from a TOML file to checked, immutable types. Reports every problem of a file
//! at once.
//!
//! `sources` reads the file and those that it includes, `raw` parses their text to tables,
//! `resolve` turns those into the `model`, with one file per section, and `problem` has the error
//! messages. Only `sources`, `environment` (environment, key files, roots), `listener_certificate`
//! and `service` (the systemd unit, and what it may access) perform I/O, and
//! `resolve::context`, which checks access.
//!
//! [`duration`], `secret` and `key` are types of values; `shell` quotes words of printed commands.
//! `long_prompt`, `reasoning` and `spending` have facts about prompts, about reasoning models, and
//! about the consumption of probes.

pub mod duration;
mod environment;
mod key;
mod listener_certificate;
mod load;
mod long_prompt;
mod model;
mod problem;
mod raw;
mod reasoning;
mod resolve;
mod secret;
mod service;
mod shell;
mod sources;
mod spending;
#[cfg(test)]
pub(crate) mod testing;

pub use self::{
    environment::{Environment, Keys, open_regular},
    listener_certificate::{CertificateFiles, Stamp},
    load::{Loaded, load, parse},
    model::*,
    problem::{Problem, Problems},
    secret::Secret,
    service::{Service, Unit, systemd_run},
    shell::quoted,
    spending::Spending,
};
