//! Arbitrary requests: each is answered or its connection closed, and the listener continues to
//! serve.
//!
//! `tests/fuzz listener`; `tests/fuzz --seconds 600 listener` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

thread_local!(static LISTENER: bodies::Listener = bodies::Listener::start());

fuzz_target!(|bytes: &[u8]| LISTENER.with(|listener| listener.hears(bytes)));
