//! The entry points of the module: load a configuration from a file or from its text.

use std::path::Path;

use super::{
    environment::{Environment, Keys},
    model::{Config, KeySource},
    problem::{Place, Problem, Problems, Report},
    raw,
    resolve::{self, Context},
    service::Usage,
    sources::Sources,
};

/// A configuration with its warnings.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The warnings, in the order of the files.
    pub warnings: Vec<Problem>,
    /// The sources of secrets that commands in this shell cannot read.
    pub unread: Vec<KeySource>,
}

/// Loads the file at `path` and those that it includes, or returns all their problems.
pub fn load(path: &Path, keys: Keys<'_>, environment: &Environment<'_>) -> Result<Loaded, Problems> {
    resolve(&Sources::read(path)?, keys, environment)
}

/// Loads a configuration from its text. `file` is its name in messages.
pub fn parse(
    text: &str,
    file: &str,
    keys: Keys<'_>,
    environment: &Environment<'_>,
) -> Result<Loaded, Problems> {
    resolve(&Sources::single(file, text), keys, environment)
}

fn resolve(sources: &Sources<'_>, keys: Keys<'_>, environment: &Environment<'_>) -> Result<Loaded, Problems> {
    let report = Report::of(sources);
    let Some(table) = raw::parse(&sources.text, &report) else {
        return Err(report.finish().expect_err("invalid TOML is reported"));
    };
    let context = Context::new(keys, environment, &report);
    for (first_line, file) in &sources.files {
        // The first file is the main one, whose problems have no line.
        let line = if *first_line == 1 { 0 } else { *first_line };
        let place = Place { line, ..Place::default() };
        context.check_readable(Path::new(file), Usage::Configuration, &place);
    }
    for (directory, place) in &sources.listed {
        context.check_readable(directory, Usage::Configuration, place);
    }
    let config = resolve::config(&table, &context);
    let unread = context.into_unread();
    report.finish().map(|warnings| Loaded { config, warnings, unread })
}
