//! The integration tests, one binary: real sockets, real TLS, the simulator.

#![expect(unreachable_pub, reason = "the harness is shared by modules of one binary")]

mod fixtures;
mod harness;
