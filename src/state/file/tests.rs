//! Tests of the file format, and of files that are rejected.

use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::outcome::Check;

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn identity(probe: &str, model: Option<&str>) -> Identity {
    Identity::new(Subject { probe, provider: "groq", check: Check::Chat, model })
}

fn kept() -> PersistedState {
    let whole = PersistedProbe {
        last_run: Some(at(NOW - 60) + Duration::from_nanos(123_456_789)),
        last_success: Some(at(NOW - 120)),
        backoff: Some(PersistedBackoff { until: Some(at(NOW + 600)), step: 4 }),
    };
    let step = PersistedProbe {
        backoff: Some(PersistedBackoff { until: None, step: 2 }),
        ..PersistedProbe::default()
    };
    PersistedState {
        spending: Some(PersistedSpending { day: NOW / 86_400, usd: 0.001_25, tokens: 1234 }),
        probes: [(identity("a", Some("m")), whole), (identity("b", None), step)].into(),
    }
}

fn load_bytes(bytes: &[u8]) -> RestoredState {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(NAME), bytes).unwrap();
    let loaded = load(directory.path(), at(NOW));
    let files = names(directory.path());
    match &loaded.warning {
        None => assert_eq!(files, [NAME]),
        Some(_) => assert_eq!(files, [format!("{DAMAGED}{NOW}")], "the file is set aside, and nothing else"),
    }
    loaded
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn saved_state_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("made/as/needed");
    assert_eq!(load(&place, at(NOW)).kept, PersistedState::default());
    for kept in [PersistedState::default(), kept()] {
        save(&place, &kept).unwrap();
        let loaded = load(&place, at(NOW));
        assert_eq!((loaded.kept, loaded.warning), (kept, None));
        assert_eq!(names(&place), [NAME]);
    }
}

#[test]
fn file_format_is_readable() {
    let text = String::from_utf8(render(&kept())).unwrap();
    let expected = concat!(
        r#"{"version":1,"budget":{"day":"2027-01-15","spent_usd":0.00125,"spent_tokens":1234},"probes":["#,
        r#"{"probe":"a","provider":"groq","check":"chat","model":"m","last_run":"2027-01-15T07:59:00.123456789Z","#,
        r#""last_success":"2027-01-15T07:58:00Z","backoff":{"until":"2027-01-15T08:10:00Z","step":4}},"#,
        r#"{"probe":"b","provider":"groq","check":"chat","backoff":{"step":2}}]}"#,
        "\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn truncated_file_is_set_aside() {
    let bytes = render(&kept());
    for length in 0..bytes.len() - 1 {
        let loaded = load_bytes(&bytes[..length]);
        assert_eq!(loaded.kept, PersistedState::default(), "{length}");
        assert!(loaded.warning.is_some(), "{length}");
    }
    assert_eq!(load_bytes(&bytes[..bytes.len() - 1]).kept, kept(), "only the newline is missing");
}

#[test]
fn foreign_file_is_set_aside_with_a_warning() {
    #[track_caller]
    fn check(bytes: &[u8], why: &str) {
        let warning = load_bytes(bytes).warning.unwrap();
        assert!(warning.contains(why), "{warning}");
        assert!(warning.ends_with("backoff and spending start from zero"), "{warning}");
    }
    let text = String::from_utf8(render(&kept())).unwrap();
    check(text.replace("\"version\":1", "\"version\":2").as_bytes(), "has format version 2");
    check(b"", "is damaged at line 1, column 0");
    check(b"\xff\xfe\x00", "is damaged at line 1");
    check(b"[1]", "is damaged");
    check("[".repeat(100_000).as_bytes(), "is damaged");
    check(&vec![b' '; MAX_FILE_BYTES as usize + 1], "is larger than 16777216 bytes");
    check(text.replace("0.00125", "1e999").as_bytes(), "is damaged");
    check(text.replace("0.00125", "NaN").as_bytes(), "is damaged");
}

#[test]
fn directory_in_place_of_the_file_does_not_block_start() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(NAME)).unwrap();
    let warning = load(directory.path(), at(NOW)).warning.unwrap();
    assert!(warning.contains("is not a regular file"), "{warning}");
    save(directory.path(), &kept()).unwrap();
}

/// Creates a victim outside of the directory, and the directory with a link to it under that name.
fn linked(name: &str, hard: bool) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let [victim, directory] = ["victim", "state"].map(|name| top.path().join(name));
    fs::write(&victim, "victim").unwrap();
    fs::create_dir(&directory).unwrap();
    let place = directory.join(name);
    if hard { fs::hard_link(&victim, place) } else { std::os::unix::fs::symlink(&victim, place) }.unwrap();
    (top, victim, directory)
}

#[test]
fn links_are_not_followed_when_writing() {
    for hard in [false, true] {
        for name in [UNFINISHED, NAME] {
            let (_top, victim, directory) = linked(name, hard);
            save(&directory, &kept()).unwrap();
            assert_eq!(fs::read_to_string(&victim).unwrap(), "victim", "{name}");
            assert_eq!(names(&directory), [NAME]);
            assert_eq!(load(&directory, at(NOW)).kept, kept());
        }
    }
}

#[test]
fn link_is_not_followed_when_reading() {
    let (_top, victim, directory) = linked(NAME, false);
    fs::write(&victim, render(&kept())).unwrap();
    let loaded = load(&directory, at(NOW));
    assert_eq!(loaded.kept, PersistedState::default());
    assert!(loaded.warning.unwrap().contains("is not a regular file"));
    assert_eq!(fs::read(&victim).unwrap(), render(&kept()), "only the link is set aside");
    save(&directory, &PersistedState::default()).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), render(&kept()));
}

#[test]
fn dangling_link_target_is_not_created() {
    let (_top, victim, directory) = linked(UNFINISHED, false);
    fs::remove_file(&victim).unwrap();
    save(&directory, &kept()).unwrap();
    assert!(!victim.exists());
}

#[test]
fn fifos_do_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = |name: &str| {
        mknodat(CWD, directory.path().join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    };
    pipe(NAME);
    assert!(load(directory.path(), at(NOW)).warning.unwrap().contains("is not a regular file"));
    pipe(UNFINISHED);
    save(directory.path(), &kept()).unwrap();
    assert_eq!(load(directory.path(), at(NOW)).kept, kept());
}

#[test]
fn directory_in_place_of_new_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join(UNFINISHED)).unwrap();
    assert!(save(directory.path(), &kept()).is_err());
}

#[test]
fn one_damaged_file_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    for seconds in [1, 2, 3] {
        fs::write(directory.path().join(NAME), format!("damage {seconds}")).unwrap();
        load(directory.path(), at(NOW + seconds));
    }
    let name = format!("{DAMAGED}{}", NOW + 3);
    assert_eq!(names(directory.path()), [&*name]);
    assert_eq!(fs::read_to_string(directory.path().join(name)).unwrap(), "damage 3");
}

#[test]
fn hostile_values_are_dropped() {
    let text = String::from_utf8(render(&kept())).unwrap();
    let text = text
        .replace("2027-01-15T07:59:00.123456789Z", "9999-12-30T00:00:00Z")
        .replace("2027-01-15T07:58:00Z", "yesterday")
        .replace("2027-01-15T08:10:00Z", "")
        .replace("0.00125", "-5.0")
        .replace("2027-01-15\"", "-009999-01-01\"");
    let loaded = load_bytes(text.as_bytes()).kept;
    assert_eq!(loaded.spending, None, "a day before 1970");
    let probe = loaded.probes[&identity("a", Some("m"))];
    assert_eq!((probe.last_run, probe.last_success), (None, None));
    assert_eq!(probe.backoff, Some(PersistedBackoff { until: None, step: 4 }));
    let negative = render(&kept());
    let negative = String::from_utf8(negative).unwrap().replace("0.00125", "-5.0");
    let spending = load_bytes(negative.as_bytes()).kept.spending.unwrap();
    assert_eq!((spending.usd, spending.tokens), (0.0, 1234));
}

#[test]
fn extreme_days_do_not_overflow() {
    for day in [0, u64::MAX, 1 << 40] {
        let spending = Some(PersistedSpending { day, usd: 0.0, tokens: 0 });
        let loaded = load_bytes(&render(&PersistedState { spending, ..PersistedState::default() }));
        assert!(loaded.warning.is_none() && loaded.kept.spending.is_some(), "{day}: {loaded:?}");
    }
}

proptest! {
    #[test]
    fn damaged_file_does_not_panic(place: prop::sample::Index, byte: u8) {
        let mut bytes = render(&kept());
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let _ = parse(&bytes, at(NOW));
    }
}
