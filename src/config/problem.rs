//! What is wrong with a configuration, ready to print: one line for each problem, and no secret in any.

use std::{cell::RefCell, fmt};

/// One thing that is wrong, and where. Its Display is `FILE:LINE: KEY.PATH: what, what is allowed, what to do`.
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

/// Every problem of a file, in the order of its lines. Its Display is a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// The only problem of a file that could not be read.
    pub(super) fn of_file(file: &str, message: String) -> Self {
        let problem = Problem { file: file.to_owned(), place: Place::default(), message };
        Self { problems: vec![problem], warnings: Vec::new() }
    }

    /// The problems, at least one, in the order of the file.
    pub fn as_slice(&self) -> &[Problem] {
        &self.problems
    }

    /// What is doubtful besides, in the order of the file.
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

/// Where in the file something stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From 1; 0: the file as a whole.
    pub(super) line: usize,
    /// From 1; 0: the line as a whole.
    pub(super) column: usize,
    /// The key's, such as `server.listen`; empty: none.
    pub(super) path: String,
}

/// Where the parts of the loader leave what they find, so that one run reports all of it.
pub(super) struct Report {
    file: String,
    /// Offset of the first byte of each line.
    line_starts: Vec<usize>,
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Report {
    /// A report on `text`, the contents of `file`, with nothing in it.
    pub(super) fn new(file: &str, text: &str) -> Self {
        let behind_newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self {
            file: file.to_owned(),
            line_starts: std::iter::once(0).chain(behind_newlines).collect(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The line, from 1, that the byte at `offset` is in.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The column, in bytes from 1, of the byte at `offset`.
    pub(super) fn column(&self, offset: usize) -> usize {
        offset - self.line_starts[self.line(offset) - 1] + 1
    }

    /// Notes what makes the file unusable.
    pub(super) fn error(&self, place: &Place, message: impl Into<String>) {
        self.errors.borrow_mut().push(self.problem(place, message.into()));
    }

    /// Notes what the operator should know and may live with.
    pub(super) fn warning(&self, place: &Place, message: impl Into<String>) {
        self.warnings.borrow_mut().push(self.problem(place, message.into()));
    }

    /// Whether an error was noted at that place.
    pub(super) fn has_error_at(&self, place: &Place) -> bool {
        self.errors.borrow().iter().any(|problem| problem.place == *place)
    }

    fn problem(&self, place: &Place, message: String) -> Problem {
        Problem { file: self.file.clone(), place: place.clone(), message }
    }

    /// Whether nothing makes the file unusable so far.
    pub(super) fn is_good(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    /// The warnings where there was no error, else both.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Problems> {
        let by_place = |mut problems: Vec<Problem>| {
            problems.sort_by(|a, b| a.place.cmp(&b.place));
            problems
        };
        let [problems, warnings] = [self.errors, self.warnings].map(|noted| by_place(noted.into_inner()));
        if problems.is_empty() { Ok(warnings) } else { Err(Problems { problems, warnings }) }
    }
}

/// A value as a message shows it: quoted, escaped and cut, so that it stays on one line.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 64;
    if text.chars().count() <= LONGEST {
        format!("{text:?}")
    } else {
        format!("{:?}…", text.chars().take(LONGEST).collect::<String>())
    }
}

/// The one of `known` that was probably meant by `written`.
pub(super) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = known.iter().map(|name| (strsim::osa_distance(written, name), *name)).min()?;
    (distance <= name.len() / 3 + 1 && distance < written.chars().count()).then_some(name)
}

/// What to say of a word that is none of `known`.
pub(super) fn not_one_of(written: &str, known: &[&str]) -> String {
    let meant = nearest(written, known).map_or_else(String::new, |name| format!(" did you mean {name:?}?"));
    format!("{} is not known;{meant} allowed are {}", shown(written), known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_in_the_order_of_the_lines() {
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
    fn a_value_stays_on_its_line() {
        assert_eq!(shown("a\nb\u{1b}"), r#""a\nb\u{1b}""#);
        assert_eq!(shown(&"x".repeat(65)), format!("\"{}\"…", "x".repeat(64)));
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("intervall", &["interval", "timeout"]), Some("interval"));
        assert_eq!(nearest("pool", &["log", "probe"]), None);
        assert_eq!(nearest("x", &["y"]), None);
    }
}
