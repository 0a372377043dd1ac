//! Arbitrary configurations: none panics, and every problem names its position.
//!
//! `cargo +nightly fuzz run configuration`; `cargo +nightly fuzz run configuration -- -max_total_time=60` for a minute.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bodies::configuration(bytes));
