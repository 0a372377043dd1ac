//! One attempt at one target, from the lookup to the verdict with responsible party and remedy.
//!
//! Prepared at load:
//! - `request`: the request of a probe in the dialect of its API, see [`crate::api`].
//!
//! The path to a host, one function for every check (`path`):
//! - `resolver`: getaddrinfo on a pool of threads; `name_server` explains a failed lookup.
//! - `dial`: TCP connections by RFC 8305; `socket` counts and times received data, by the kernel's
//!   clock.
//! - `proxy`: CONNECT and SOCKS 5; `tls`: handshakes and verification.
//! - `timeline`: the phases of a run.
//!
//! On a connection:
//! - `http`: HTTP/1.1 and HTTP/2, driven in the run's own task; `keep_alive` holds a warm probe's
//!   connection between runs.
//! - `exchange`: one request and its response, bounded; `network`: the check without a request;
//!   `document`: status pages and LangMart's account.
//! - `run` takes a run through these steps.
//!
//! From the response to the verdict, without I/O:
//! - `classify`: reason and fault of a whole response; `failure`: of a run without one; `stream`:
//!   of a streamed one, by the events of `sse`; `status_page` and `balance`: of those checks.
//! - `answer`: the expectation of a completion, by the rules of `model_name` for the model that
//!   answered; `flow`: whether a stream was held back.
//! - `refusal`: the reason of a refusal; `expectation` and `model_list`: of those checks;
//!   `reported`: the processing time that the service reports.
//! - `remedy`: the remedies.
//!
//! For people: `account` reads LangMart's own account of requests, for `report --account`;
//! `transcript` shows the exchange, `curl` the same request as a command,
//! `request_summary` in a sentence. `fuzzing` is for the fuzz targets.

mod account;
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
mod request_summary;
mod resolver;
mod run;
mod socket;
mod sse;
mod status_page;
mod stream;
mod timeline;
mod tls;
mod transcript;

pub use self::{
    account::{AccountApi, AccountError, AccountFailure, AccountRequest, AccountRequests},
    curl::curl,
    name_server::ask_system_servers,
    path::PrepareError,
    request::RequestError,
    request_summary::RequestSummary,
    run::{NetworkStack, Target, TargetError},
    transcript::Transcript,
};
