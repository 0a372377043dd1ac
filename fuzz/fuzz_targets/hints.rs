//! Arbitrary hints and times: none panics, and each is a valid wait.
//!
//! `cargo +nightly fuzz run hints`; `cargo +nightly fuzz run hints -- -max_total_time=60` for a minute.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bodies::hints(bytes));
