//! The right to keep state in a directory, which one process has at a time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Kept for as long as the directory is written. The kernel takes it back however the process ends.
#[derive(Debug)]
pub struct Claim {
    directory: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing it would leave it to a child that was just forked, until that runs its own program.
        let _ = flock(&self.directory, FlockOperation::Unlock);
    }
}

/// Two that write the same file would each undo what the other one remembers.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "state.directory {} is in use by another langmart-prober; end that one or give this one another state.directory",
    .0.display()
)]
pub struct Taken(PathBuf);

/// Claims the directory, which is made where it is missing. `None`: it cannot be locked, for whatever reason; whether it
/// can be written is for the writer to find out.
pub fn claim(directory: &Path) -> Result<Option<Claim>, Taken> {
    let opened = fs::create_dir_all(directory).and_then(|()| File::open(directory));
    let Ok(opened) = opened else { return Ok(None) };
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Claim { directory: opened })),
        Err(Errno::WOULDBLOCK) => Err(Taken(directory.to_owned())),
        // Some network file systems lock no directories.
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("state");
        let first = claim(&directory).unwrap();
        assert!(first.is_some(), "it is made where it is missing");
        assert_eq!(claim(&directory).unwrap_err(), Taken(directory.clone()));
        drop(first);
        assert!(claim(&directory).unwrap().is_some());
    }

    #[test]
    fn what_is_no_directory_is_left_to_the_writer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(claim(file.path()).unwrap().is_none());
    }
}
