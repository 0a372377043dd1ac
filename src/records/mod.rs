//! `results.jsonl`, one line for each run: written by the daemon, read by `report`.

mod read;
mod write;

pub use self::{
    read::{Entry, Read, ReadError, read},
    write::{Records, RecordsChange, RecordsError},
};

/// What the files' names begin with, before `.2026-11-22` or `.2026-11-22-08`.
const PREFIX: &str = "results.jsonl";
