//! Arbitrary configurations: none panics, and every problem names its position.
//!
//! `tests/fuzz configuration`; `tests/fuzz --seconds 600 configuration` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bodies::configuration(bytes));
