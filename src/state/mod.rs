//! State that survives a restart: backoff, spending of the day, and the times of each probe's last
//! run and last success.
//!
//! - `claim` locks the directory against other processes.
//! - `file` is the file format: written atomically, validated when read.
//! - `changes` holds the changes that are not written yet.
//! - `keeper` writes them, before the record of the run that caused them is released.

mod changes;
mod claim;
mod file;
mod keeper;

pub use self::{
    claim::{Claim, Taken, claim},
    file::{Identity, Kept, KeptBackoff, KeptProbe, KeptSpending, Loaded, load},
    keeper::Keeper,
};
