//! The `process_*` metrics. Those of the prometheus crate count whole CPU seconds and need
//! `/proc/stat`, which a hardened unit hides.

use std::{fs, time::SystemTime};

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::text::{Header, Kind, Page};
use crate::outcome::unix_seconds;

/// Writes the metrics of the process. Unavailable values are omitted.
pub(super) fn write(page: &mut Page, started: SystemTime) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    counter(page, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpu);
    gauge(
        page,
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        unix_seconds(started),
    );
    if let Some(Stat { threads, virtual_bytes, resident_pages }) = Stat::read() {
        gauge(page, "process_threads", "Number of OS threads in the process.", threads as f64);
        gauge(page, "process_virtual_memory_bytes", "Virtual memory size in bytes.", virtual_bytes as f64);
        let resident = resident_pages as f64 * page_size() as f64;
        gauge(page, "process_resident_memory_bytes", "Resident memory size in bytes.", resident);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // The listing itself used one descriptor, which is closed by now.
        let open = descriptors.count().saturating_sub(1);
        gauge(page, "process_open_fds", "Number of open file descriptors.", open as f64);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        gauge(page, "process_max_fds", "Maximum number of open file descriptors.", most as f64);
    }
}

fn counter(page: &mut Page, name: &'static str, help: &'static str, value: f64) {
    page.family(Header { name, kind: Kind::Counter, help });
    page.sample("", value);
}

fn gauge(page: &mut Page, name: &'static str, help: &'static str, value: f64) {
    page.family(Header { name, kind: Kind::Gauge, help });
    page.sample("", value);
}

/// The used fields of `/proc/self/stat`; see `proc_pid_stat(5)`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
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
        assert_eq!(Stat::parse(text), Some(Stat { threads: 7, virtual_bytes: 9000, resident_pages: 11 }));
        assert_eq!(Stat::parse("garbage"), None);
        assert_eq!(Stat::parse("1 (short) S 1"), None);
    }

    #[test]
    fn own_process_is_measured() {
        let stat = Stat::read().unwrap();
        assert!(stat.threads >= 1);
        assert!(stat.virtual_bytes > stat.resident_pages * page_size() as u64, "{stat:?}");
        let mut page = Page::new(SystemTime::UNIX_EPOCH, 0);
        write(&mut page, SystemTime::UNIX_EPOCH);
        let text = String::from_utf8(page.into_bytes()).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
            line.split(' ').nth(1).unwrap().parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds").abs() < f64::EPSILON);
    }
}
