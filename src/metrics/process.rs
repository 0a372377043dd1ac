//! The `process_*` metrics, from `/proc/self/stat`: a hardened unit hides `/proc/stat`.

use std::fs;

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// The relevant fields of `/proc/self/stat`; see `proc_pid_stat(5)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) threads: u64,
    pub(super) virtual_bytes: u64,
    resident_pages: u64,
}

impl Process {
    /// Returns `None` if the file cannot be read.
    pub(super) fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    pub(super) fn cpu_seconds() -> f64 {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9
    }

    pub(super) fn resident_bytes(&self) -> f64 {
        self.resident_pages as f64 * page_size() as f64
    }

    pub(super) fn open_files() -> Option<f64> {
        let descriptors = fs::read_dir("/proc/self/fd").ok()?;
        // The listing has a descriptor of its own, which is gone by now.
        Some(descriptors.count().saturating_sub(1) as f64)
    }

    /// Returns `None` without a limit.
    pub(super) fn max_files() -> Option<f64> {
        getrlimit(Resource::Nofile).current.map(|limit| limit as f64)
    }

    /// Parses the fields after the program name, which is the second field and may contain blanks
    /// and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace().skip(17);
        let threads = fields.next()?.parse().ok()?;
        let mut fields = fields.skip(2);
        let virtual_bytes = fields.next()?.parse().ok()?;
        let resident_pages = fields.next()?.parse().ok()?;
        Some(Self { threads, virtual_bytes, resident_pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_counted_after_the_name() {
        let text = "1734 (a (b) c) S 1 1734 1734 0 -1 4194560 10 20 30 40 50 60 70 80 20 0 7 0 1357 9000 11 18446744073709551615 1";
        assert_eq!(
            Process::parse(text),
            Some(Process { threads: 7, virtual_bytes: 9000, resident_pages: 11 })
        );
        assert_eq!(Process::parse("garbage"), None);
        assert_eq!(Process::parse("1 (short) S 1"), None);
    }

    #[test]
    fn this_process_is_described() {
        let process = Process::read().unwrap();
        assert!(process.threads >= 1);
        assert!(process.virtual_bytes as f64 > process.resident_bytes(), "{process:?}");
        assert!(Process::cpu_seconds() > 0.0);
        assert!(Process::open_files().unwrap() >= 3.0);
        assert!(Process::max_files() >= Process::open_files());
    }
}
