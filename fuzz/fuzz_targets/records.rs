//! Files of records of any bytes: each line is an entry in plain words, or is skipped and counted.
//!
//! `tests/fuzz records`; `tests/fuzz --seconds 600 records` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

thread_local!(static FILES: bodies::RecordFiles = bodies::RecordFiles::new());

fuzz_target!(|bytes: &[u8]| FILES.with(|files| files.holds(bytes)));
