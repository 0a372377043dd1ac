//! Lock on the state directory, which one process holds at a time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Lock on a directory. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    directory: File,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Unlock explicitly: closing alone would leave the lock with a child that was just forked,
        // until it executes its program.
        let _ = flock(&self.directory, FlockOperation::Unlock);
    }
}

/// Another process uses the directory. Two processes that write the same file would overwrite each
/// other's state.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "state.directory {} is in use by another langmart-prober; stop that process, or set another state.directory",
    .0.display()
)]
pub struct AlreadyLocked(PathBuf);

/// Locks the directory, and creates it if it is missing. Returns `None` if it cannot be locked for
/// another reason; the writer reports whether it can be written.
pub fn lock_directory(directory: &Path) -> Result<Option<DirLock>, AlreadyLocked> {
    let opened = fs::create_dir_all(directory).and_then(|()| File::open(directory));
    let Ok(opened) = opened else { return Ok(None) };
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(DirLock { directory: opened })),
        Err(Errno::WOULDBLOCK) => Err(AlreadyLocked(directory.to_owned())),
        // Some network file systems cannot lock directories.
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_locked_by_one_process() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("state");
        let first = lock_directory(&directory).unwrap();
        assert!(first.is_some(), "a missing directory is created");
        assert_eq!(lock_directory(&directory).unwrap_err(), AlreadyLocked(directory.clone()));
        drop(first);
        assert!(lock_directory(&directory).unwrap().is_some());
    }

    #[test]
    fn file_in_place_of_the_directory_is_not_locked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(lock_directory(file.path()).unwrap().is_none());
    }
}
