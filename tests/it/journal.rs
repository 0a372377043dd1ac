//! Tests that the journal gets each line once, with its priority.

use std::{fs::File, net::TcpListener, os::unix::fs::MetadataExt};

use crate::harness::daemon::Place;

/// Returns the lines of a daemon that cannot start and whose standard error is the journal, and its
/// exit status.
#[track_caller]
fn journal(config: &str) -> (Vec<String>, Option<i32>) {
    let place = Place::new(config);
    let path = place.path("journal");
    let file = File::create(&path).unwrap();
    let identity = file.metadata().unwrap();
    let stream = format!("{}:{}", identity.dev(), identity.ino());
    let status = place.command("run").env("JOURNAL_STREAM", stream).stderr(file).status().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    (text.lines().map(str::to_owned).collect(), status.code())
}

#[test]
fn bad_configuration_is_one_error_per_line() {
    let (lines, status) = journal("[log]\nlevl = 1\n[serve]\n");
    assert_eq!(status, Some(78));
    assert!(lines.len() >= 2 && lines.iter().all(|line| line.starts_with("<3>")), "{lines:#?}");
}

#[test]
fn fatal_error_is_logged_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for format in ["text", "json"] {
        let server = format!("[log]\nformat = \"{format}\"\n[server]\nlisten = \"{address}\"\n");
        let (lines, status) = journal(&format!("{server}[provider.langmart]\nchecks = [\"network\"]\n"));
        assert_eq!(status, Some(1));
        let said: Vec<_> = lines.iter().filter(|line| line.contains("cannot listen on")).collect();
        assert!(said.len() == 1 && said[0].starts_with("<3>"), "{lines:#?}");
        assert!(lines.iter().all(|line| line.starts_with('<')), "{lines:#?}");
    }
}

#[test]
fn fatal_error_is_printed_without_stderr_log() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("[log]\nstderr = false\n[server]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    let (lines, _) = journal(&format!("{server}[provider.langmart]\nchecks = [\"network\"]\n"));
    let [line] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(line.starts_with("<3>cannot listen on"), "{line}");
}
