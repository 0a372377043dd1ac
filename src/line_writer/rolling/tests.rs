//! Tests of rotation with a simulated clock, and of disks that fail.

use std::{
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering},
    thread,
};

use tempfile::TempDir;

use super::*;
use crate::line_writer::{Counters, LineWriter};

const MIDDAY: &str = "2026-11-22T12:00:00Z";

fn time(text: &str) -> SystemTime {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

fn files(directory: &Path) -> LogFiles {
    LogFiles {
        directory: directory.to_owned(),
        prefix: "prober.log",
        period: Period::Day,
        max_files: 2,
        max_size: 1 << 20,
        compress: false,
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A file with a simulated clock, so that no test waits for real time to pass.
struct Fixture {
    directory: TempDir,
    file: RollingFile,
    time: SystemTime,
    now: Instant,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut LogFiles)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut files = files(&directory.path().join("logs"));
        change(&mut files);
        let (time, now) = (time(MIDDAY), Instant::now());
        let file = RollingFile::open_at(files, time, now).unwrap();
        Self { directory, file, time, now }
    }

    fn logs(&self) -> PathBuf {
        self.directory.path().join("logs")
    }

    fn pass(&mut self, duration: Duration) {
        self.time += duration;
        self.now += duration;
    }

    #[track_caller]
    fn check(&mut self, line: &str, expected: WriteResult) {
        let result = self.file.write_at(line.as_bytes(), self.time, self.now);
        assert_eq!(result, expected, "of {line:?} in {:?}", self.file);
    }

    #[track_caller]
    fn holds(&self, name: &str, expected: &str) {
        let text = fs::read_to_string(self.logs().join(name)).unwrap();
        assert_eq!(text, expected, "in {name} of {:?}", names(&self.logs()));
    }
}

#[test]
fn file_names_have_the_period_in_utc() {
    #[track_caller]
    fn check(period: Period, at: &str, name: &str) {
        let files = LogFiles { period, ..files(Path::new("logs")) };
        assert_eq!(files.path(time(at)), Path::new("logs").join(name));
        assert!(files.matches(name), "{name} is recognized");
    }
    check(Period::Day, "2026-11-22T00:00:00Z", "prober.log.2026-11-22");
    check(Period::Day, "2026-11-22T23:59:59.999Z", "prober.log.2026-11-22");
    check(Period::Hour, "2026-11-22T00:00:00Z", "prober.log.2026-11-22-00");
    check(Period::Hour, "2026-11-22T23:59:59.999Z", "prober.log.2026-11-22-23");
}

#[test]
fn new_period_starts_a_file_and_removes_the_oldest() {
    let mut fixture = Fixture::new(|_| ());
    let others = ["prober.log.2020-01-01.xz", "prober.log.notes", "results.jsonl.2020-01-01"];
    for other in others {
        fs::write(fixture.logs().join(other), "").unwrap();
    }
    fixture.check("first day\n", WriteResult::Written);
    fixture.pass(Duration::from_secs(12 * 3600 - 1));
    fixture.check("last second\n", WriteResult::Written);
    fixture.pass(Duration::from_secs(1));
    fixture.check("second day\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "first day\nlast second\n");
    fixture.holds("prober.log.2026-11-23", "second day\n");

    fixture.pass(Duration::from_secs(86400));
    fixture.check("third day\n", WriteResult::Written);
    let mut kept = others.to_vec();
    kept.extend(["prober.log.2026-11-23", "prober.log.2026-11-24"]);
    kept.sort_unstable();
    assert_eq!(names(&fixture.logs()), kept);
}

#[test]
fn restart_appends_and_keeps_max_files() {
    let mut fixture = Fixture::new(|_| ());
    fixture.check("before\n", WriteResult::Written);
    fs::write(fixture.logs().join("prober.log.2026-11-20"), "").unwrap();
    fs::write(fixture.logs().join("prober.log.2026-11-21"), "").unwrap();
    fixture.file = RollingFile::open_at(files(&fixture.logs()), fixture.time, fixture.now).unwrap();
    fixture.check("after\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "before\nafter\n");
    assert_eq!(names(&fixture.logs()), ["prober.log.2026-11-21", "prober.log.2026-11-22"]);
}

#[test]
fn restart_with_one_file_keeps_it() {
    let mut fixture = Fixture::new(|files| files.max_files = 1);
    fixture.check("before\n", WriteResult::Written);
    let files = fixture.file.files.clone();
    fixture.file = RollingFile::open_at(files, fixture.time, fixture.now).unwrap();
    fixture.check("after\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "before\nafter\n");
}

#[test]
fn clock_error_removes_no_file_of_correct_days() {
    let mut fixture = Fixture::new(|files| files.max_files = 3);
    fixture.check("before\n", WriteResult::Written);
    for wrong in ["2027-11-23T12:00:00Z", "2026-10-01T12:00:00Z", "1970-01-01T00:00:00Z"] {
        let right = mem::replace(&mut fixture.time, time(wrong));
        fixture.check("wrong\n", WriteResult::Written);
        fixture.time = right;
        fixture.check("right\n", WriteResult::Written);
    }
    fixture.holds("prober.log.2026-11-22", "before\nright\nright\nright\n");
    for _ in 0..2 {
        fixture.pass(Duration::from_secs(86400));
        fixture.check("later\n", WriteResult::Written);
    }
    let wanted =
        ["2026-11-22", "2026-11-23", "2026-11-24", "2027-11-23"].map(|day| format!("prober.log.{day}"));
    assert_eq!(names(&fixture.logs()), wanted, "older files of wrong clocks are removed");
}

#[test]
fn period_that_cannot_start_fails_lines() {
    let mut fixture = Fixture::new(|_| ());
    fixture.check("first day\n", WriteResult::Written);
    let next = fixture.logs().join("prober.log.2026-11-23");
    fs::create_dir(&next).unwrap();
    fixture.pass(Duration::from_secs(12 * 3600));
    fixture.check("lost\n", WriteResult::Failed);
    fs::remove_dir(&next).unwrap();
    fixture.pass(RETRY_INTERVAL);
    fixture.check("second day\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "first day\n");
    fixture.holds("prober.log.2026-11-23", "second day\n");
}

#[test]
fn incomplete_line_is_ended_before_the_next() {
    let mut fixture = Fixture::new(|_| ());
    fs::write(fixture.logs().join("prober.log.2026-11-22"), "whole\nto").unwrap();
    fixture.file = RollingFile::open_at(files(&fixture.logs()), fixture.time, fixture.now).unwrap();
    fixture.check("next\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "whole\nto\nnext\n");
}

#[test]
fn file_at_size_limit_drops_lines_until_next_period() {
    let mut fixture = Fixture::new(|files| files.max_size = 10);
    fixture.check("12345\n", WriteResult::Written);
    fixture.check("12345\n", WriteResult::Dropped);
    fixture.check("123\n", WriteResult::Written);
    fixture.check("\n", WriteResult::Dropped);
    // The size is counted across a restart.
    let files = fixture.file.files.clone();
    fixture.file = RollingFile::open_at(files, fixture.time, fixture.now).unwrap();
    fixture.check("\n", WriteResult::Dropped);
    fixture.pass(Duration::from_secs(86400));
    fixture.check("12345\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "12345\n123\n");
    fixture.holds("prober.log.2026-11-23", "12345\n");
}

#[test]
fn removed_directory_is_recreated_within_a_second() {
    let mut fixture = Fixture::new(|_| ());
    fixture.check("lost with the directory\n", WriteResult::Written);
    fs::remove_dir_all(fixture.logs()).unwrap();
    fixture.pass(RETRY_INTERVAL);
    fixture.check("found\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "found\n");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    // Regardless of the umask: no access for others, no write access for the group.
    assert_eq!(mode(fixture.logs()) & 0o027, 0);
    assert_eq!(mode(fixture.logs().join("prober.log.2026-11-22")) & 0o137, 0);
}

#[test]
fn moved_file_is_replaced_within_a_second() {
    let mut fixture = Fixture::new(|_| ());
    fixture.check("old\n", WriteResult::Written);
    let away = fixture.logs().join("prober.log.2026-11-22.moved");
    fs::rename(fixture.logs().join("prober.log.2026-11-22"), &away).unwrap();
    fixture.pass(RETRY_INTERVAL / 2);
    fixture.check("still old\n", WriteResult::Written);
    fixture.pass(RETRY_INTERVAL / 2);
    fixture.check("new\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22.moved", "old\nstill old\n");
    fixture.holds("prober.log.2026-11-22", "new\n");

    // As logrotate does: another file takes the path immediately.
    fs::rename(fixture.logs().join("prober.log.2026-11-22"), &away).unwrap();
    fs::write(fixture.logs().join("prober.log.2026-11-22"), "").unwrap();
    fixture.pass(RETRY_INTERVAL);
    fixture.check("newer\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "newer\n");
}

#[test]
fn unwritable_directory_is_retried_each_second() {
    let mut fixture = Fixture::new(|_| ());
    fs::remove_dir_all(fixture.logs()).unwrap();
    // A file in place of the directory, which root cannot write either.
    fs::write(fixture.logs(), "").unwrap();
    fixture.pass(RETRY_INTERVAL);
    fixture.check("lost\n", WriteResult::Failed);
    fs::remove_file(fixture.logs()).unwrap();
    fixture.pass(RETRY_INTERVAL / 2);
    fixture.check("too early\n", WriteResult::Failed);
    assert!(!fixture.logs().exists(), "no attempt within the pause");
    fixture.pass(RETRY_INTERVAL / 2);
    fixture.check("back\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "back\n");
}

#[test]
fn unwritable_directory_error_names_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    fs::write(&taken, "").unwrap();
    let error = RollingFile::open_at(files(&taken), time(MIDDAY), Instant::now()).unwrap_err().to_string();
    let path = taken.join("prober.log.2026-11-22");
    assert!(error.starts_with(&format!("cannot open {}: ", path.display())), "{error}");
    assert!(error.contains("set log.directory"), "{error}");
}

#[test]
fn device_without_space_fails_lines_and_recovers() {
    let mut fixture = Fixture::new(|_| ());
    let path = fixture.logs().join("prober.log.2026-11-22");
    fs::remove_file(&path).unwrap();
    symlink("/dev/full", &path).unwrap();
    fixture.pass(RETRY_INTERVAL);
    fixture.check("no space\n", WriteResult::Failed);
    fs::remove_file(&path).unwrap();
    fixture.check("in the pause\n", WriteResult::Failed);
    fixture.pass(RETRY_INTERVAL);
    fixture.check("space\n", WriteResult::Written);
    fixture.holds("prober.log.2026-11-22", "space\n");
}

/// A small file system, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it. Returns `None` if this process may not mount.
    fn mount(at: PathBuf) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"]).arg(&at);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn full_disk_counts_every_lost_line() {
    let mut fixture = Fixture::new(|_| ());
    let Some(_disk) = SmallDisk::mount(fixture.logs()) else {
        eprintln!("SKIPPED: a small tmpfs cannot be mounted here");
        return;
    };
    fixture.pass(RETRY_INTERVAL);
    let line = |number: u32| format!("{number:0>99}\n");
    let mut written = Vec::new();
    for number in 0..300 {
        match fixture.file.write_at(line(number).as_bytes(), fixture.time, fixture.now) {
            WriteResult::Written => written.push(number),
            WriteResult::Failed => assert!(number > 0, "the disk is not full yet"),
            WriteResult::Dropped => panic!("the file is not at its size"),
        }
    }
    assert!(written.len() < 300, "the disk was never full");
    let path = fixture.logs().join("prober.log.2026-11-22");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n'), "the line that filled the disk is removed");

    // Space is available again, in the same file.
    let resize = Command::new("mount").args(["-o", "remount,size=64k"]).arg(fixture.logs()).status();
    assert!(resize.unwrap().success());
    fixture.check("in the pause\n", WriteResult::Failed);
    fixture.pass(RETRY_INTERVAL);
    fixture.check("healed\n", WriteResult::Written);
    let text = fs::read_to_string(&path).unwrap();
    let whole: Vec<_> = text.lines().filter(|line| line.len() == 99).collect();
    let expected: Vec<_> = written.iter().map(|&number| line(number)).collect();
    assert_eq!(whole, expected.iter().map(|line| line.trim_end()).collect::<Vec<_>>());
    assert_eq!(text.lines().count(), written.len() + 1, "and the last line");
    assert!(text.ends_with("\nhealed\n"));
}

#[test]
fn lines_of_many_threads_are_counted_once() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    let mut file = RollingFile::open(LogFiles { max_size: 30_000, ..files(&logs) }).unwrap();
    let counters = Counters::default();
    let lines = LineWriter::start("threads", counters.clone(), Duration::ZERO, move |line: Vec<u8>| {
        file.write(&line)
    })
    .unwrap();
    let lines = Arc::new(lines);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let lines = Arc::clone(&lines);
            thread::spawn(move || (0..3000).for_each(|number| lines.push(format!("{number}\n").into())))
        })
        .collect();
    // Immediately, so that the rename succeeds while the thread writes.
    fs::rename(&logs, directory.path().join("away")).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    lines.stop(Duration::from_secs(60));
    let [written, dropped, errors] =
        [&counters.written, &counters.dropped, &counters.errors].map(|c| c.load(Ordering::Relaxed));
    assert_eq!(written + dropped + errors, 12_000, "{counters:?}");
    assert!(written > 0 && dropped > 0, "{counters:?}");
}

/// Waits for the compressor of the file.
fn wait_for_compression(file: &RollingFile) {
    while file.compressor.is_running() {
        thread::yield_now();
    }
}

#[test]
fn files_of_earlier_periods_are_compressed() {
    let mut fixture = Fixture::new(|files| (files.compress, files.max_files) = (true, 3));
    fixture.check("first\n", WriteResult::Written);
    for day in ["23", "24", "25", "26"] {
        fixture.time = time(&format!("2026-11-{day}T12:00:00Z"));
        fixture.check("next\n", WriteResult::Written);
        wait_for_compression(&fixture.file);
    }
    let expected = ["prober.log.2026-11-24.gz", "prober.log.2026-11-25.gz", "prober.log.2026-11-26"];
    assert_eq!(names(&fixture.logs()), expected);
}

#[test]
fn files_are_left_alone_without_compression() {
    let mut fixture = Fixture::new(|_| ());
    fixture.check("first\n", WriteResult::Written);
    fixture.time = time("2026-11-23T12:00:00Z");
    fixture.check("next\n", WriteResult::Written);
    assert_eq!(names(&fixture.logs()), ["prober.log.2026-11-22", "prober.log.2026-11-23"]);
}

/// Writes a compressed file of a text, as a crash leaves it before it gets its name.
fn partial(logs: &Path, name: &str, text: &str) {
    let original = logs.join(name);
    fs::write(&original, text).unwrap();
    crate::line_writer::compress(&original).unwrap();
    fs::rename(logs.join(format!("{name}.gz")), logs.join(format!("{name}.gz.tmp"))).unwrap();
}

#[test]
fn interrupted_compression_is_finished() {
    let mut fixture = Fixture::new(|files| (files.compress, files.max_files) = (true, 3));
    partial(&fixture.logs(), "prober.log.2026-11-21", "first\n");
    fixture.check("next\n", WriteResult::Written);
    wait_for_compression(&fixture.file);
    assert_eq!(names(&fixture.logs()), ["prober.log.2026-11-21.gz", "prober.log.2026-11-22"]);
}

#[test]
fn partial_file_is_removed_by_its_age() {
    // One that was complete when the daemon ended counts as the file that it replaces.
    let mut fixture = Fixture::new(|_| ());
    partial(&fixture.logs(), "prober.log.2026-11-20", "first\n");
    fs::write(fixture.logs().join("prober.log.2026-11-21"), "second\n").unwrap();
    fixture.check("next\n", WriteResult::Written);
    assert_eq!(names(&fixture.logs()), ["prober.log.2026-11-21", "prober.log.2026-11-22"]);
    // One that was not is removed with its original.
    fs::write(fixture.logs().join("prober.log.2026-11-21.gz.tmp"), "half").unwrap();
    fixture.time = time("2026-11-23T12:00:00Z");
    fixture.check("next\n", WriteResult::Written);
    assert_eq!(names(&fixture.logs()), ["prober.log.2026-11-22", "prober.log.2026-11-23"]);
}
