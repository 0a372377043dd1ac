//! What the process does so that the keys in its memory stay there.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// No memory of this process goes into a core file, nor to a program that collects them, whatever the limit; and no other
/// process of the same user can look into it (`PR_SET_DUMPABLE`). To be called before a key is read.
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
