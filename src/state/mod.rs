//! State that survives a restart: backoff, spending of the day, and the times of each probe's last
//! run and last success.
//!
//! - `lock` locks the directory against other processes.
//! - `file` is the file format: written atomically, validated when read.
//! - `changes` holds the changes that are not written yet.
//! - `writer` writes them, before the record of the run that caused them is released.

mod changes;
mod file;
mod lock;
mod writer;

pub use self::{
    file::{
        Identity, PersistedBackoff, PersistedProbe, PersistedSpending, PersistedState, RestoredState, load,
    },
    lock::{AlreadyLocked, DirLock, lock_directory},
    writer::StateWriter,
};
