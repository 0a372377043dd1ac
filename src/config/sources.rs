//! The text of the configuration: the main file, followed by the files that it includes.
//!
//! Included files consist of sections, so that their texts can be joined: the tables of all files
//! are those of one text, and a table in two files is a duplicate key.

use std::{
    borrow::Cow,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{
    environment::read_file,
    model::is_match,
    problem::{Place, Problems, Report, shown},
    raw::{self, Section},
};

/// Maximum size of a configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Maximum number of included files.
const MAX_INCLUDED_FILES: usize = 1_000;

/// Sections that occur repeatedly, each under a header in double brackets.
const REPEATED: [(&str, &str); 3] = [
    ("probe", "an array of tables, each written under [[probe]]"),
    ("comparison", "an array of tables, each written under [[comparison]]"),
    ("pool", "an array of tables, each written under [[pool]]"),
];

/// The joined text, with the files by the numbers of their first lines.
pub(super) struct Sources<'a> {
    pub(super) text: Cow<'a, str>,
    /// First line, from 1, and name of each file.
    pub(super) files: Vec<(usize, String)>,
    /// The directories that wildcards list, with the places of those.
    pub(super) listed: Vec<(PathBuf, Place)>,
}

impl<'a> Sources<'a> {
    /// Returns a text that includes no file.
    pub(super) fn single(file: &str, text: &'a str) -> Self {
        Self { text: text.into(), files: vec![(1, file.to_owned())], listed: Vec::new() }
    }

    /// Reads a file and those that it includes.
    pub(super) fn read(path: &Path) -> Result<Self, Problems> {
        let file = path.display().to_string();
        let text = read_text(path, remedy).map_err(|message| Problems::of_file(&file, message))?;
        let report = Report::new(&file, &text);
        let (included, listed) = match raw::parse(&text, &report) {
            Some(table) => included(path, &mut Section::root(&table, &report), &report),
            None => Included::default(),
        };
        report.finish()?;
        let mut sources = Sources { text: text.into(), files: vec![(1, file)], listed };
        let mut problems = Vec::new();
        for (name, text) in included {
            problems.extend(check(&name, &text).err());
            sources.append(name, &text);
        }
        Problems::merged(problems).map_or(Ok(sources), Err)
    }

    fn append(&mut self, name: String, text: &str) {
        let joined = self.text.to_mut();
        if !joined.ends_with('\n') {
            joined.push('\n');
        }
        self.files.push((joined.matches('\n').count() + 1, name));
        joined.push_str(text);
    }
}

/// The names and texts of included files, and the directories that wildcards list.
type Included = (Vec<(String, String)>, Vec<(PathBuf, Place)>);

/// Returns name and text of each file that `include` names, without repetitions.
fn included(main: &Path, root: &mut Section<'_>, report: &Report) -> Included {
    let base = main.parent().unwrap_or_else(|| Path::new(""));
    let is_main = |path: &Path| {
        path.canonicalize().is_ok_and(|path| main.canonicalize().is_ok_and(|main| main == path))
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    let (mut texts, mut listed) = Included::default();
    for (pattern, place) in root.texts("include", |text| Ok(text.to_owned())) {
        let path = base.join(&pattern);
        if wildcard(&path).is_some() {
            listed.push((folder(&path).to_owned(), place.clone()));
        }
        match expand(&path) {
            Ok(found) => {
                for path in found.into_iter().filter(|path| !is_main(path)) {
                    if !paths.contains(&path) {
                        read_included(&path, &place, report, &mut texts);
                        paths.push(path);
                    }
                }
            }
            Err(error) => report.error(&place, format!("{} cannot be listed: {error}", shown(&pattern))),
        }
    }
    (texts, listed)
}

fn read_included(path: &Path, place: &Place, report: &Report, texts: &mut Vec<(String, String)>) {
    if texts.len() == MAX_INCLUDED_FILES {
        report.error(place, format!("more than {MAX_INCLUDED_FILES} files are included; join some of them"));
    }
    if texts.len() >= MAX_INCLUDED_FILES {
        return;
    }
    let name = path.display().to_string();
    match read_text(path, remedy_of_included) {
        // A mark of byte order is allowed at the start of a text only.
        Ok(text) => texts.push((name, text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())),
        Err(message) => report.error(place, format!("{name} {message}")),
    }
}

/// Returns the files of a path whose last part may have the wildcards `*` and `?`, sorted. Hidden
/// files must be named.
fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(pattern) = wildcard(path) else { return Ok(vec![path.to_owned()]) };
    let entries = match fs::read_dir(folder(path)) {
        // As if it were empty.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_str().unwrap_or_default();
        if !text.starts_with('.') && is_match(pattern.as_bytes(), text.as_bytes()) {
            found.push(path.with_file_name(name));
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the last part of a path if it has a wildcard.
fn wildcard(path: &Path) -> Option<&str> {
    path.file_name()?.to_str().filter(|name| name.contains(['*', '?']))
}

/// Returns the directory of a file.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Checks that an included file is valid TOML of sections only.
fn check(name: &str, text: &str) -> Result<(), Problems> {
    let report = Report::new(name, text);
    if let Some(table) = raw::parse(text, &report) {
        let is_content = |line: &str| !line.is_empty() && !line.starts_with('#');
        let first = text.lines().map(str::trim).enumerate().find(|(_, line)| is_content(line));
        if let Some((index, _)) = first.filter(|(_, line)| !line.starts_with('[')) {
            let place = Place { line: index + 1, ..Place::default() };
            report.error(
                &place,
                "an included file consists of sections; move this line below one, or to the file that includes it",
            );
        }
        let mut root = Section::root(&table, &report);
        for (key, wanted) in REPEATED {
            root.elements(key, wanted);
        }
    }
    report.finish().map(|_| ())
}

fn read_text(path: &Path, remedy: fn(&io::Error) -> &'static str) -> Result<String, String> {
    let bytes = read_file(path, MAX_FILE_BYTES)
        .map_err(|error| format!("cannot be read: {error}; {}", remedy(&error)))?;
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let error = error.utf8_error();
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        format!("not UTF-8 text in line {line}; save the file as UTF-8")
    })
}

/// Returns the remedy for an included file that cannot be read.
fn remedy_of_included(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "correct include, or create the file",
        ErrorKind::PermissionDenied => "grant this user read permission, or correct include",
        _ => "correct include: it names TOML files",
    }
}

/// Returns the remedy for a main file that cannot be read.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "set its path with --config, or create it: `langmart-prober init` prints one",
        ErrorKind::PermissionDenied => "grant this user read permission, or set another path with --config",
        _ => "set the path of a TOML file with --config",
    }
}
