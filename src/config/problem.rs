//! The problems of a configuration: one printable line each, without secrets.

use std::{cell::RefCell, fmt};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::sources::Sources;

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

impl Serialize for Problem {
    /// Serializes `file`, `message`, and `line`, `column` and `key` if they are known.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { file, place: Place { line, column, path }, message } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("file", file)?;
        for (name, number) in [("line", line), ("column", column)] {
            if *number > 0 {
                map.serialize_entry(name, number)?;
            }
        }
        if !path.is_empty() {
            map.serialize_entry("key", path)?;
        }
        map.serialize_entry("message", message)?;
        map.end()
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

    /// Joins the problems of several files. Returns `None` if there are none.
    pub(super) fn merged(all: Vec<Self>) -> Option<Self> {
        all.into_iter().reduce(|mut sum, more| {
            sum.problems.extend(more.problems);
            sum.warnings.extend(more.warnings);
            sum
        })
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
    /// First line, from 1, and name of each file of the text.
    files: Vec<(usize, String)>,
    /// Offset of the first byte of each line.
    line_starts: Vec<usize>,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Report {
    /// Returns an empty report on `text`, the contents of `file`.
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self::of(&Sources::single(file, text))
    }

    /// Returns an empty report on the text of several files.
    pub(super) fn of(sources: &Sources<'_>) -> Self {
        let after_newlines = sources.text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self {
            files: sources.files.clone(),
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

    /// Returns the file and the line there of a line of the text.
    fn position(&self, line: usize) -> (&str, usize) {
        let index = self.files.partition_point(|(first, _)| *first <= line).saturating_sub(1);
        let (first, file) = &self.files[index];
        (file, if line == 0 { 0 } else { line - first + 1 })
    }

    /// Returns the position of a line for a message: with its file if there are several.
    pub(super) fn named_line(&self, line: usize) -> String {
        match self.position(line) {
            (file, line) if self.files.len() > 1 => format!("{file}:{line}"),
            (_, line) => format!("line {line}"),
        }
    }

    /// Returns whether two lines are in the same file.
    pub(super) fn same_file(&self, one: usize, other: usize) -> bool {
        self.position(one).0 == self.position(other).0
    }

    /// Adds an error, which makes the configuration invalid.
    pub(super) fn error(&self, place: &Place, message: impl Into<String>) {
        Self::add(&self.errors, place, message.into());
    }

    /// Adds a warning.
    pub(super) fn warning(&self, place: &Place, message: impl Into<String>) {
        Self::add(&self.warnings, place, message.into());
    }

    /// Adds a problem, unless it is there: a section with `models` is read for each model.
    fn add(problems: &RefCell<Vec<Problem>>, place: &Place, message: String) {
        // The file follows from the line in the end.
        let problem = Problem { file: String::new(), place: place.clone(), message };
        let mut problems = problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Returns whether there is an error at that place.
    pub(super) fn has_error_at(&self, place: &Place) -> bool {
        self.errors.borrow().iter().any(|problem| problem.place == *place)
    }

    /// Returns whether there is no error so far.
    pub(super) fn is_good(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    /// Returns the warnings if there is no error, else both.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Problems> {
        let [problems, warnings] = [&self.errors, &self.warnings].map(|collected| {
            let mut problems = collected.take();
            problems.sort_by(|a, b| a.place.cmp(&b.place));
            for problem in &mut problems {
                let (file, line) = self.position(problem.place.line);
                (problem.file, problem.place.line) = (file.to_owned(), line);
            }
            problems
        });
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
