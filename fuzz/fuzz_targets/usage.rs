//! Counts of tokens made of any bytes, in every dialect: none comes out that the request cannot have taken.
//!
//! `tests/fuzz usage`; `tests/fuzz --seconds 600 usage` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use std::sync::Arc;

use langmart_prober::config::Probe;
use libfuzzer_sys::fuzz_target;

thread_local!(static PROBES: Vec<Arc<Probe>> = bodies::probes());

fuzz_target!(|bytes: &[u8]| PROBES.with(|probes| bodies::usage(probes, bytes)));
