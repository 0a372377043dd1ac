//! Compresses the files of earlier periods by gzip, on a thread of its own with low priority.
//!
//! A compressed file consists of members of a megabyte, so that damage costs one of them. Until it
//! is complete it has another name, and takes that of the original only after the original has been
//! removed: a file with its final name is never a copy of another.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use flate2::{Compression, write::GzEncoder};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
    process::setpriority_process,
};

use super::rolling::identity;

/// Extension of compressed files.
pub(super) const EXTENSION: &str = ".gz";

/// Extension of compressed files that are not complete.
pub const PARTIAL: &str = ".gz.tmp";

/// Number of bytes of the original that a member of a compressed file has at least. It ends with a
/// line.
const MEMBER_BYTES: u64 = 1 << 20;

/// Value of nice(2) of the thread: the lowest priority.
const NICENESS: i32 = 19;

/// Compresses files in the background, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Compressor {
    is_running: Arc<AtomicBool>,
}

impl Compressor {
    /// Starts to compress these files, unless an earlier start is not finished. Files that are left
    /// out are compressed after the next rotation.
    pub(super) fn start(&self, files: Vec<PathBuf>) {
        if files.is_empty() || self.is_running.swap(true, Ordering::Relaxed) {
            return;
        }
        let running = Running(Arc::clone(&self.is_running));
        let compress = move || {
            let _running = running;
            // The unit's system call filter may forbid it; the thread then has normal priority.
            let _ = setpriority_process(None, NICENESS);
            for path in files {
                if let Err(error) = compress(&path) {
                    tracing::warn!(file = %path.display(), %error, "Failed to compress file");
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("compress".to_owned()).spawn(compress) {
            tracing::warn!(%error, "Failed to start compressing files");
        }
    }

    /// Returns whether files are being compressed.
    #[cfg(test)]
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }
}

/// Marks the compressor as finished when it is dropped, also after a panic.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Returns the path of a file with a further extension.
fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

/// Replaces a file by a compressed one. If the original has been removed, a compressed file that
/// was complete gets its final name. Does nothing if the compressed file exists.
pub fn compress(path: &Path) -> io::Result<()> {
    match replace(path) {
        // The oldest file is removed at a rotation, with what was written of its compressed one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn replace(path: &Path) -> io::Result<()> {
    let [complete, partial] = [EXTENSION, PARTIAL].map(|extension| with_extension(path, extension));
    if complete.symlink_metadata().is_ok() {
        return Ok(());
    }
    let Some(target) = claim(&partial)? else { return Ok(()) };
    match path.symlink_metadata() {
        // It was removed after the compressed file was complete.
        Err(error) if error.kind() == io::ErrorKind::NotFound && target.metadata()?.len() > 0 => {}
        original => {
            let compressed = original.and_then(|_| write(path, &target)).and_then(|()| fs::remove_file(path));
            if let Err(error) = compressed {
                fs::remove_file(&partial)?;
                return Err(error);
            }
        }
    }
    fs::rename(&partial, &complete)
}

/// Opens the partial file and locks it. Returns `None` if another thread or process compresses the
/// same file.
fn claim(partial: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).custom_flags(flags(OFlags::NOFOLLOW));
    let file = options.open(partial)?;
    if is_locked_elsewhere(flock(&file, FlockOperation::NonBlockingLockExclusive))? {
        return Ok(None);
    }
    // The other one may have renamed it before it released the lock.
    let there = fs::metadata(partial);
    let is_ours =
        there.is_ok_and(|there| file.metadata().is_ok_and(|own| identity(&own) == identity(&there)));
    Ok(is_ours.then_some(file))
}

/// Returns whether another process has the lock. Some file systems have no locks.
fn is_locked_elsewhere(locked: Result<(), Errno>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Writes the compressed content of a file. Fails if the original is still being written.
fn write(path: &Path, target: &File) -> io::Result<()> {
    // Opening a FIFO would block.
    let original = OpenOptions::new().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(path)?;
    if !original.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    target.set_len(0)?;
    let mut source = BufReader::with_capacity(64 << 10, &original);
    let mut length = 0;
    loop {
        let mut encoder = GzEncoder::new(target, Compression::default());
        length += io::copy(&mut source.by_ref().take(MEMBER_BYTES), &mut encoder)?;
        length += finish_line(&mut source, &mut encoder)?;
        encoder.finish()?;
        if source.fill_buf()?.is_empty() {
            break;
        }
    }
    target.sync_all()?;
    if original.metadata()?.len() != length {
        return Err(io::Error::other("it is still being written"));
    }
    Ok(())
}

/// Copies up to the end of the line, if the previous byte was not it. Returns the number of bytes.
fn finish_line(source: &mut impl BufRead, target: &mut impl Write) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        let buffer = source.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        target.write_all(part)?;
        let length = part.len();
        copied += length as u64;
        source.consume(length);
        if end.is_some() || length == 0 {
            return Ok(copied);
        }
    }
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use flate2::read::MultiGzDecoder;

    use super::*;

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    /// Returns a directory with a file of that text.
    fn place(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.jsonl.2026-11-22");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn compressed_file_replaces_the_original() {
        let line = "x".repeat(999) + "\n";
        for text in [String::new(), "no newline".to_owned(), line.repeat(3_000)] {
            let (directory, path) = place(&text);
            compress(&path).unwrap();
            assert_eq!(names(directory.path()), ["results.jsonl.2026-11-22.gz"]);
            let complete = with_extension(&path, EXTENSION);
            assert_eq!(unpacked(&complete), text);
            let magic = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
            let bytes = fs::read(&complete).unwrap();
            let members = bytes.windows(magic.len()).filter(|bytes| *bytes == magic).count();
            assert_eq!(members, text.len().div_ceil(MEMBER_BYTES as usize).max(1), "one for each megabyte");
        }
    }

    #[test]
    fn interrupted_compression_is_repeated_or_completed() {
        // It ended before the file was complete.
        let (directory, path) = place("line\n");
        let partial = with_extension(&path, PARTIAL);
        fs::write(&partial, "half").unwrap();
        compress(&path).unwrap();
        assert_eq!(names(directory.path()), ["results.jsonl.2026-11-22.gz"]);
        assert_eq!(unpacked(&with_extension(&path, EXTENSION)), "line\n");
        // It ended after the original had been removed.
        fs::rename(with_extension(&path, EXTENSION), &partial).unwrap();
        compress(&path).unwrap();
        assert_eq!(unpacked(&with_extension(&path, EXTENSION)), "line\n");
    }

    #[test]
    fn existing_file_is_not_replaced() {
        let (_directory, path) = place("written again\n");
        fs::write(with_extension(&path, EXTENSION), "earlier").unwrap();
        compress(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "written again\n");
        assert_eq!(fs::read_to_string(with_extension(&path, EXTENSION)).unwrap(), "earlier");
    }

    #[test]
    fn file_that_another_process_compresses_is_left_alone() {
        let (_directory, path) = place("line\n");
        let partial = with_extension(&path, PARTIAL);
        let other = claim(&partial).unwrap().unwrap();
        compress(&path).unwrap();
        assert!(path.exists() && other.metadata().unwrap().len() == 0);
        drop(other);
        compress(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn file_system_without_locks_is_an_error() {
        assert!(!is_locked_elsewhere(Ok(())).unwrap());
        assert!(is_locked_elsewhere(Err(Errno::WOULDBLOCK)).unwrap());
        for error in [Errno::NOLCK, Errno::NOTSUP, Errno::NOSYS, Errno::IO] {
            assert_eq!(is_locked_elsewhere(Err(error)).unwrap_err().kind(), io::Error::from(error).kind());
        }
    }

    #[test]
    fn failed_compression_keeps_the_original() {
        let (directory, path) = place("line\n");
        fs::create_dir(with_extension(&path, PARTIAL)).unwrap();
        compress(&path).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n");
        let missing = directory.path().join("missing");
        compress(&missing).unwrap();
        assert!(!names(directory.path()).iter().any(|name| name.starts_with("missing")));
    }
}
