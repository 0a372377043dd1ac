//! External programs that tests need. If one is missing, the test reports that it is skipped.

use std::{env, path::PathBuf, process::Command};

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
    tool_path(path).map(|path| std::fs::read_to_string(path).unwrap())
}

/// Returns the path of such a file.
#[track_caller]
pub fn tool_path(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(path);
    if path.exists() {
        return Some(path);
    }
    assert!(env::var_os("CI").is_none(), "missing here: {}", path.display());
    println!("SKIPPED: {} is missing", path.display());
    None
}
