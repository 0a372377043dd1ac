//! What the real services would say: their endpoints, their checks, their errors, headers and streams, one file a dialect.

mod anthropic;
mod chunks;
mod google;
mod langmart;
mod limits;
mod openai;
mod openrouter;
mod provider;
mod service;
mod stream;

pub use self::provider::Provider;
pub(super) use self::service::{Call, Failure, failure, faulty_stream, success};
