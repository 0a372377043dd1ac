//! One attempt at one target, from the lookup to the verdict: who is at fault and what to do.

mod body;
mod classify;
mod client;
mod clock;
mod dialect;
mod exchange;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod hints;
mod remedy;
mod request;
mod resolver;
mod run;
mod sse;
mod stream;
mod tls;

pub use self::{
    client::ClientError,
    request::RequestError,
    resolver::Resolver,
    run::{PrepareError, Target},
};
