//! One attempt at one target, from the lookup to the verdict: who is at fault and what to do.

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
