//! `results.jsonl`, one line per run: written by the daemon, read by `report`.

mod entry;
mod gzip;
mod read;
mod write;

pub use self::{
    entry::Entry,
    read::{Progress, Read, ReadError, read},
    write::{Records, RecordsChange, RecordsError},
};

/// Prefix of the file names, before `.2026-11-22` or `.2026-11-22-08`.
const PREFIX: &str = "results.jsonl";

/// Extension of compressed files.
const COMPRESSED: &str = "gz";
