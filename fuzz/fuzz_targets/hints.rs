//! Arbitrary hints and times: none panics, and each is a valid wait.
//!
//! `tests/fuzz hints`; `tests/fuzz --seconds 600 hints` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bodies::hints(bytes));
