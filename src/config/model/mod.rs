//! What the operator asked for, checked and immutable: the rest of the program reads nothing else.
//!
//! The files are those of `resolve`, which makes these types of what is written.

mod groups;
mod probe;
mod provider;
mod sections;

pub(super) use self::provider::DNS_PORT;
pub use self::{
    groups::{Comparison, Pool, PoolMember},
    probe::{
        BYTES_PER_TOKEN, Chat, Connection, Expect, HttpRequest, MaxTokensParameter, Price, Probe, Recheck,
        Stream, Task,
    },
    provider::{Key, KeySource, Paths, Provider, StatusSource, dns_server_name},
    sections::{Budget, Config, Log, LogFormat, Rotation, Schedule, Server, ServerTls, Shard},
};
