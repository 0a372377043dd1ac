//! One attempt at one target, from the lookup to the verdict: who is at fault and what to do.
//!
//! Made ready at load, so that a run only uses it:
//! - `client`: the HTTP client of a provider, with `tls` (verification, and what it saw) and `resolver` (lookups).
//! - `request`: the request of a probe, in the words of its `dialect`, one file for each API family.
//!
//! One run, which `run` takes through its steps:
//! - `clock`: the marks between the five phases, which `handover`, `resolver`, `tls` and the client leave.
//! - `exchange`: sends the request and reads the response, bounded; `follow` does so for a status page's redirects,
//!   `warm` knows of the connection that a probe keeps.
//! - `network` with `dial`: the check that sends no request.
//!
//! From what came back to the verdict, without I/O:
//! - `classify`: reason and fault of a whole response; `failure`: of a run that got none; `stream`, by the events of
//!   `sse`: of a streamed one; `status_page` and `balance`: of those checks.
//! - `body`: the error that a body carries; `hints`: Retry-After and its relatives; `gate`: which of the network's words
//!   may be told.
//! - `remedy`: what to do about it.
//!
//! For a person: `transcript` shows what was sent and received, `curl` how to ask the same. `fuzzing` is for the fuzz
//! targets.

mod balance;
mod body;
mod classify;
mod client;
mod clock;
mod curl;
mod dial;
mod dialect;
mod exchange;
mod failure;
mod follow;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod handover;
mod hints;
mod network;
mod refusal;
mod remedy;
mod request;
mod resolver;
mod run;
mod sse;
mod status_page;
mod stream;
mod tls;
mod transcript;
mod warm;

pub use self::{
    client::ClientError,
    curl::curl,
    request::RequestError,
    resolver::Resolver,
    run::{PrepareError, Target},
    transcript::Transcript,
};
