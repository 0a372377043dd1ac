//! `results.jsonl`, one line per run: written by the daemon, read by `report`.

mod read;
mod write;

pub use self::{
    read::{Entry, Read, ReadError, read},
    write::{Records, RecordsChange, RecordsError},
};

/// Prefix of the file names, before `.2026-11-22` or `.2026-11-22-08`.
const PREFIX: &str = "results.jsonl";
