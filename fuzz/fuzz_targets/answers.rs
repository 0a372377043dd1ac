//! Arbitrary answers to every check of every API: the verdict is one of the possible ones.
//!
//! `tests/fuzz answers`; `tests/fuzz --seconds 600 answers` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use std::sync::Arc;

use langmart_prober::config::Probe;
use libfuzzer_sys::fuzz_target;

thread_local!(static PROBES: Vec<Arc<Probe>> = bodies::probes());

fuzz_target!(|bytes: &[u8]| PROBES.with(|probes| bodies::answers(probes, bytes)));
