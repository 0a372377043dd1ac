//! The integration tests, one binary: real sockets, real TLS, the simulator.

#![expect(unreachable_pub, reason = "the harness is shared by modules of one binary")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod config;
mod fixtures;
mod harness;
mod phases;
mod stream;
mod stream_simulated;
