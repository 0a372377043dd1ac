//! From a file, or its text, to a configuration: the one way in.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use super::{
    model::Config,
    problem::{Problem, Problems, Report},
    raw,
    resolve::{self, Context},
    surroundings::{Keys, Surroundings, read_file},
};

/// The most that a configuration file may hold, in bytes.
const LONGEST_FILE: u64 = 4 << 20;

/// A configuration and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the operator should know, in the order of the file.
    pub warnings: Vec<Problem>,
    /// The systemd credentials that the file names, sorted.
    pub credentials: Vec<String>,
}

/// Loads the file at `path`, or says everything that is wrong with it.
pub fn load(path: &Path, keys: Keys<'_>, surroundings: &Surroundings<'_>) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let bytes = read_file(path, LONGEST_FILE).map_err(|error| {
        Problems::of_file(&file, format!("cannot be read: {error}; {}", what_to_do(&error)))
    })?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        Problems::of_file(&file, format!("not UTF-8 text in line {line}; save the file as UTF-8"))
    })?;
    parse(text, &file, keys, surroundings)
}

/// What mends a file that cannot be read.
fn what_to_do(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "name the file by --config, or write one, as langmart-prober.toml(5) says",
        ErrorKind::PermissionDenied => "give this user the right to read it, or name another by --config",
        _ => "name a file of TOML by --config",
    }
}

/// Loads a configuration from its text; `file` is what its problems call it.
pub fn parse(
    text: &str,
    file: &str,
    keys: Keys<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Loaded, Problems> {
    let report = Report::new(file, text);
    let Some(table) = raw::parse(text, &report) else {
        return Err(report.finish().expect_err("what is no TOML is reported"));
    };
    let context = Context::new(keys, surroundings, &report);
    let config = resolve::config(&table, &context);
    let credentials = context.into_credentials();
    report.finish().map(|warnings| Loaded { config, warnings, credentials })
}
