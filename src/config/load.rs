//! The entry points of the module: load a configuration from a file or from its text.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use super::{
    environment::{Environment, Keys, read_file},
    model::Config,
    problem::{Problem, Problems, Report},
    raw,
    resolve::{self, Context},
};

/// Maximum size of a configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A configuration with its warnings.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The warnings, in the order of the file.
    pub warnings: Vec<Problem>,
    /// The names of the systemd credentials in the file, sorted.
    pub credentials: Vec<String>,
}

/// Loads the file at `path`, or returns all its problems.
pub fn load(path: &Path, keys: Keys<'_>, environment: &Environment<'_>) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let bytes = read_file(path, MAX_FILE_BYTES)
        .map_err(|error| Problems::of_file(&file, format!("cannot be read: {error}; {}", remedy(&error))))?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        Problems::of_file(&file, format!("not UTF-8 text in line {line}; save the file as UTF-8"))
    })?;
    parse(text, &file, keys, environment)
}

/// Returns the remedy for a file that cannot be read.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => {
            "set its path with --config, or create it as described in langmart-prober.toml(5)"
        }
        ErrorKind::PermissionDenied => "grant this user read permission, or set another path with --config",
        _ => "set the path of a TOML file with --config",
    }
}

/// Loads a configuration from its text. `file` is its name in messages.
pub fn parse(
    text: &str,
    file: &str,
    keys: Keys<'_>,
    environment: &Environment<'_>,
) -> Result<Loaded, Problems> {
    let report = Report::new(file, text);
    let Some(table) = raw::parse(text, &report) else {
        return Err(report.finish().expect_err("invalid TOML is reported"));
    };
    let context = Context::new(keys, environment, &report);
    let config = resolve::config(&table, &context);
    let credentials = context.into_credentials();
    report.finish().map(|warnings| Loaded { config, warnings, credentials })
}
