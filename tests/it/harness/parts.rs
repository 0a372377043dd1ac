//! External programs that tests need. If one is missing, the test reports that it is skipped.

use std::{env, process::Command};

/// Returns whether all of these programs are installed, and whether this is root if required. If CI
/// is set, a missing program is a failure; otherwise the test is skipped with a line that the
/// summary counts.
#[track_caller]
pub fn has(programs: &[&str], root: bool) -> bool {
    let present = |program: &&&str| {
        Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success()
    };
    let mut missing: Vec<String> =
        programs.iter().filter(|program| !present(program)).map(ToString::to_string).collect();
    let is_root = || Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if root && !is_root() {
        missing.push("root".to_owned());
    }
    if missing.is_empty() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "missing here: {}", missing.join(", "));
    println!("SKIPPED: {} is missing", missing.join(", "));
    false
}

/// Returns the text of a file that `tests/run parts` downloads into target/tools. Returns `None` if
/// it is missing, and reports that as above.
#[track_caller]
pub fn tool(path: &str) -> Option<String> {
    let path = format!("{}/target/tools/{path}", env!("CARGO_MANIFEST_DIR"));
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Some(text);
    }
    assert!(env::var_os("CI").is_none(), "missing here: {path}");
    println!("SKIPPED: {path} is missing");
    None
}
