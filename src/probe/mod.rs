//! One attempt at one target, from the lookup to the verdict: who is at fault and what to do.
//!
//! Made ready at load, so that a run only uses it:
//! - `request`: the request of a probe in the dialect of its API, see [`crate::api`].
//!
//! The path to a host, one function for every check (`path`):
//! - `resolver`: getaddrinfo on a pool of threads; `name_server` explains a failed lookup.
//! - `dial`: TCP connections by RFC 8305; `socket` counts and times what arrives, by the kernel's clock.
//! - `proxy`: CONNECT and SOCKS 5; `tls`: handshakes and verification.
//! - `timeline`: the phases of a run.
//!
//! On a connection:
//! - `http`: HTTP/1.1 and HTTP/2, driven in the run's own task; `keep_alive` holds a warm probe's connection between runs.
//! - `exchange`: one request and its response, bounded; `network`: the check that sends none; `document`: status pages.
//! - `run` takes a run through these steps.
//!
//! From what came back to the verdict, without I/O:
//! - `classify`: reason and fault of a whole response; `failure`: of a run that got none; `stream`, by the events of
//!   `sse`: of a streamed one; `status_page` and `balance`: of those checks.
//! - `answer`: what a completion must be, by the rules of `model_name` for the model that gave it; `flow`: whether a stream
//!   was held back.
//! - `refusal`: why a service refuses; `expectation`, `model_list`: of those checks; `reported`: the service's own
//!   processing time.
//! - `remedy`: what to do about it.
//!
//! For a person: `transcript` shows what was sent and received, `curl` how to ask the same. `fuzzing` is for the fuzz
//! targets.

mod answer;
mod balance;
mod classify;
mod curl;
mod dial;
mod document;
mod exchange;
mod expectation;
mod failure;
mod flow;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod keep_alive;
mod loose;
mod model_list;
mod model_name;
mod name_server;
mod network;
mod path;
mod proxy;
mod refusal;
mod remedy;
mod reported;
mod request;
mod request_id;
mod resolver;
mod run;
mod socket;
mod sse;
mod status_page;
mod stream;
mod timeline;
mod tls;
mod transcript;

// The modules here read dialects, errors and headers by these.
use crate::api::{self as dialect, body, gate, hints, limits, words};

pub use self::{
    curl::curl,
    name_server::ask_system_servers,
    path::PrepareError,
    request::RequestError,
    run::{NetworkStack, Target, TargetError},
    transcript::Transcript,
};
