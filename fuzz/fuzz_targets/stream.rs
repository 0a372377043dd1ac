//! Arbitrary streams in every dialect: none panics, and the split into pieces has no effect.
//!
//! `cargo +nightly fuzz run stream`; `cargo +nightly fuzz run stream -- -max_total_time=60` for a minute.

#![no_main]

use langmart_prober::{outcome::Api, probe::fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [api, size, stream @ ..] = bytes else { return };
    let api = Api::ALL[usize::from(*api) % Api::ALL.len()];
    let pieces = stream.chunks(usize::from(*size).max(1));
    assert_eq!(fuzzing::stream(api, pieces), fuzzing::stream(api, [stream]));
});
