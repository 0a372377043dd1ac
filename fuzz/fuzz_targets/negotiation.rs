//! Accept and Accept-Encoding of any bytes: /metrics comes in a format that there is.
//!
//! `tests/fuzz negotiation`; `tests/fuzz --seconds 600 negotiation` for ten minutes.

#![no_main]

#[expect(dead_code, reason = "each target uses its part")]
#[path = "../bodies.rs"]
mod bodies;

use libfuzzer_sys::fuzz_target;

thread_local!(static LISTENER: bodies::Listener = bodies::Listener::start());

fuzz_target!(|bytes: &[u8]| LISTENER.with(|listener| listener.negotiates(bytes)));
