//! The problems of a configuration: one printable line each, without secrets.

use std::{cell::RefCell, fmt};

/// A problem and its place. Its `Display` is `FILE:LINE: KEY.PATH: problem, allowed values,
/// remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: String,
    place: Place,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, path } = &self.place;
        f.write_str(&self.file)?;
        if *line > 0 {
            write!(f, ":{line}")?;
        }
        if *column > 0 {
            write!(f, ":{column}")?;
        }
        f.write_str(": ")?;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// All problems of a file, in the order of its lines. The `Display` has one line per problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// Returns the problem of a file that could not be read.
    pub(super) fn of_file(file: &str, message: String) -> Self {
        let problem = Problem { file: file.to_owned(), place: Place::default(), message };
        Self { problems: vec![problem], warnings: Vec::new() }
    }

    /// Returns the problems, at least one, in the order of the file.
    pub fn as_slice(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the warnings, in the order of the file.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A position in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Line number from 1; 0 means the whole file.
    pub(super) line: usize,
    /// Column number from 1; 0 means the whole line.
    pub(super) column: usize,
    /// Path of the key, such as `server.listen`; empty if there is none.
    pub(super) path: String,
}

/// Collects the problems that the parts of the loader find, so that all are reported at once.
pub(super) struct Report {
    file: String,
    /// Offset of the first byte of each line.
    line_starts: Vec<usize>,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Report {
    /// Returns an empty report on `text`, the contents of `file`.
    pub(super) fn new(file: &str, text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self {
            file: file.to_owned(),
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Returns the line number, from 1, of the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Returns the column, in bytes from 1, of the byte at `offset`.
    pub(super) fn column(&self, offset: usize) -> usize {
        offset - self.line_starts[self.line(offset) - 1] + 1
    }

    /// Adds an error, which makes the configuration invalid.
    pub(super) fn error(&self, place: &Place, message: impl Into<String>) {
        self.errors.borrow_mut().push(self.problem(place, message.into()));
    }

    /// Adds a warning.
    pub(super) fn warning(&self, place: &Place, message: impl Into<String>) {
        self.warnings.borrow_mut().push(self.problem(place, message.into()));
    }

    /// Returns whether there is an error at that place.
    pub(super) fn has_error_at(&self, place: &Place) -> bool {
        self.errors.borrow().iter().any(|problem| problem.place == *place)
    }

    fn problem(&self, place: &Place, message: String) -> Problem {
        Problem { file: self.file.clone(), place: place.clone(), message }
    }

    /// Returns whether there is no error so far.
    pub(super) fn is_good(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    /// Returns the warnings if there is no error, else both.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Problems> {
        let by_place = |mut problems: Vec<Problem>| {
            problems.sort_by(|a, b| a.place.cmp(&b.place));
            problems
        };
        let [problems, warnings] =
            [self.errors, self.warnings].map(|collected| by_place(collected.into_inner()));
        if problems.is_empty() { Ok(warnings) } else { Err(Problems { problems, warnings }) }
    }
}

/// Formats a value for a message: quoted, escaped and truncated, so that it stays on one line.
pub(super) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    if text.chars().count() <= MAX_CHARS {
        format!("{text:?}")
    } else {
        format!("{:?}…", text.chars().take(MAX_CHARS).collect::<String>())
    }
}

/// Returns the known name that `written` probably means.
pub(super) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = known.iter().map(|name| (strsim::osa_distance(written, name), *name)).min()?;
    (distance <= name.len() / 3 + 1 && distance < written.chars().count()).then_some(name)
}

/// Returns the message for a word that is not one of `known`.
pub(super) fn not_one_of(written: &str, known: &[&str]) -> String {
    let meant = nearest(written, known).map_or_else(String::new, |name| format!(" did you mean {name:?}?"));
    format!("{} is not known;{meant} allowed: {}", shown(written), known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_sorted_by_line() {
        let report = Report::new("c.toml", "a = 1\nb = 2\n");
        let at =
            |offset: usize, path: &str| Place { line: report.line(offset), column: 0, path: path.to_owned() };
        report.error(&at(6, "b"), "late");
        report.error(&at(5, "a"), "early");
        report.error(&Place::default(), "all");
        let problems = report.finish().unwrap_err();
        assert_eq!(problems.to_string(), "c.toml: all\nc.toml:1: a: early\nc.toml:2: b: late");
    }

    #[test]
    fn shown_value_has_one_line() {
        assert_eq!(shown("a\nb\u{1b}"), r#""a\nb\u{1b}""#);
        assert_eq!(shown(&"x".repeat(65)), format!("\"{}\"…", "x".repeat(64)));
    }

    #[test]
    fn nearest_name_is_similar() {
        assert_eq!(nearest("intervall", &["interval", "timeout"]), Some("interval"));
        assert_eq!(nearest("pool", &["log", "probe"]), None);
        assert_eq!(nearest("x", &["y"]), None);
    }
}
