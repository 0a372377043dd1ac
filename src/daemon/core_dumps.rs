//! Protects the keys in the memory of the process.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Excludes the memory of this process from core dumps, and forbids other processes of the same
/// user to read it (`PR_SET_DUMPABLE`). Must be called before a key is read.
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
