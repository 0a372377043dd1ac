//! The checked, immutable configuration, which is all that the rest of the program uses.
//!
//! The files correspond to those of `resolve`, which creates these types.

mod answer;
mod groups;
mod probe;
mod provider;
mod sections;

pub(super) use self::{answer::is_match, provider::DNS_PORT};
pub use self::{
    answer::{ExpectedAnswer, ModelPattern},
    groups::{Comparison, Pool, PoolMember},
    probe::{
        BYTES_PER_TOKEN, Chat, Connection, Expect, HttpRequest, PROMPT_NONCE, Price, Probe, Recheck, Stream,
        Task,
    },
    provider::{Key, KeySource, Paths, Provider, StatusSource, dns_server_name},
    sections::{Budget, Config, Log, LogFormat, Rotation, Schedule, Server, ServerTls, Shard},
};
