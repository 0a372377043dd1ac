//! What survives a restart: waits, the day's spending, and when each probe ran and succeeded last; nothing else.
//!
//! - `claim` keeps other processes from the directory meanwhile.
//! - `file` is the form on disk: written as a whole or not at all, read with mistrust.
//! - `changes` is what is not written yet: of each thing the last value.
//! - `keeper` has it written, before the record of the run that changed it is released.

mod changes;
mod claim;
mod file;
mod keeper;

pub use self::{
    claim::{Claim, Taken, claim},
    file::{Identity, Kept, KeptBackoff, KeptProbe, KeptSpending, Loaded, load},
    keeper::Keeper,
};
