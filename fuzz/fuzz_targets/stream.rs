//! Arbitrary streams in every dialect: none panics, and the split into pieces has no effect.
//!
//! `tests/fuzz stream`; `tests/fuzz --seconds 600 stream` for ten minutes.

#![no_main]

use langmart_prober::{outcome::Api, probe::fuzzing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [api, size, stream @ ..] = bytes else { return };
    let api = Api::ALL[usize::from(*api) % Api::ALL.len()];
    let pieces = stream.chunks(usize::from(*size).max(1));
    assert_eq!(fuzzing::stream(api, pieces), fuzzing::stream(api, [stream]));
});
