//! The integration tests, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod config;
