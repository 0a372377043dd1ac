//! Status pages of any bytes: components and maintenance are those that were asked for, or unknown.
//!
//! `tests/fuzz status_page`; `tests/fuzz --seconds 600 status_page` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use std::sync::Arc;

use langmart_prober::config::Probe;
use libfuzzer_sys::fuzz_target;

thread_local!(static PROBES: Vec<Arc<Probe>> = bodies::probes());

fuzz_target!(|bytes: &[u8]| PROBES.with(|probes| bodies::status_page(probes, bytes)));
