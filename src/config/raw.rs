//! The file as spanned tables. Typed accessors report values that do not fit, and continue.
//!
//! The tables are traversed by hand instead of deserialized, because serde stops at the first error
//! and operators want all of them. The known keys of a section are those that the code has
//! requested, so there is no list to maintain.

use std::{ops::RangeInclusive, time::Duration};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    duration,
    key::looks_like_a_key,
    problem::{Place, Report, nearest, shown},
};

/// Parses `text`. Returns `None` if it is not valid TOML, which is reported.
pub(super) fn parse<'a>(text: &'a str, report: &Report) -> Option<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    // The parser may report several errors for one mistake in a line; only the first is used.
    let mut last_line = 0;
    for error in &errors {
        let offset = error.span().map_or(text.len(), |span| span.start.min(text.len()));
        let line = report.line(offset);
        if line != last_line {
            let place = Place { line, column: report.column(offset), path: String::new() };
            let mut what = error.message().replace('\n', " ");
            let key = error.span().and_then(|span| text.get(span)).filter(|key| !looks_like_a_key(key));
            if let ("duplicate key", Some(key)) = (&*what, key) {
                what = format!("duplicate key {}; keep one of the two", shown(key));
                if let Some(first) = first_like(text, line).filter(|first| !report.same_file(*first, line)) {
                    what = format!("{what}, the other is in {}", report.named_line(first));
                }
            }
            let written = text.lines().nth(line - 1).unwrap_or_default();
            if written.contains(['“', '”', '‘', '’', '„']) {
                what = String::from("typographic quotes; write straight ones: \" or '");
            } else if ["`inf`", "`nan`", "`true`", "`false`"].iter().any(|word| what.contains(word)) {
                what = format!("{what}; string values must be quoted");
            } else if what.contains("escape") {
                what = format!("{what}; write paths with slashes, or in single quotes: 'C:\\path'");
            }
            report.error(&place, format!("not valid TOML: {what}"));
            last_line = line;
        }
    }
    errors.is_empty().then(|| table.into_inner())
}

/// Returns the number of the first line with the same text.
fn first_like(text: &str, line: usize) -> Option<usize> {
    let written = text.lines().nth(line.checked_sub(1)?)?.trim();
    Some(text.lines().position(|other| other.trim() == written)? + 1)
}

/// A table of the file. Keys that were not requested before [`Section::finish`] are unknown.
pub(super) struct Section<'a> {
    /// `None` if the file does not have the table.
    table: Option<&'a DeTable<'a>>,
    place: Place,
    /// Separator of the section's path and its keys.
    separator: &'static str,
    requested: Vec<&'static str>,
    report: &'a Report,
}

/// An entry of a table whose keys are chosen by the operator.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a DeValue<'a>,
    pub(super) place: Place,
}

impl<'a> Section<'a> {
    /// Returns the section of the whole file.
    pub(super) fn root(table: &'a DeTable<'a>, report: &'a Report) -> Self {
        Self::new(Some(table), Place::default(), report)
    }

    fn new(table: Option<&'a DeTable<'a>>, place: Place, report: &'a Report) -> Self {
        let separator = if place.path.is_empty() { "" } else { "." };
        Self { table, place, separator, requested: Vec::new(), report }
    }

    /// Returns the section of a value, which must be a table.
    pub(super) fn from_value(value: &'a DeValue<'a>, place: Place, report: &'a Report) -> Self {
        if value.as_table().is_none() {
            report.error(&place, wrong_type("a table", value));
        }
        Self::new(value.as_table(), place, report)
    }

    /// Adds a name to the path of a numbered section: `probe[2] "langmart-chat"`.
    pub(super) fn with_name(mut self, name: &str) -> Self {
        self.place.path = format!("{} {}", self.place.path, shown(name));
        self.separator = ": ";
        self
    }

    /// Returns the place of the section.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the place of a key, or that of the section if the key is absent.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let written = self.table.and_then(|table| table.get_key_value(key));
        let line = written.map_or(self.place.line, |(key, _)| self.report.line(key.span().start));
        Place { line, column: 0, path: format!("{}{}{}", self.place.path, self.separator, path_part(key)) }
    }

    /// Returns whether the file has the section as a table.
    pub(super) fn is_table(&self) -> bool {
        self.table.is_some()
    }

    /// Returns whether the key is present, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Returns whether a problem of the key has been reported.
    pub(super) fn is_bad(&self, key: &str) -> bool {
        self.report.has_error_at(&self.place_of(key))
    }

    /// Reports a problem of the key.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.report.error(&self.place_of(key), message);
    }

    /// Reports a problem at a place within the section.
    pub(super) fn error_at(&self, place: &Place, message: impl Into<String>) {
        self.report.error(place, message);
    }

    /// Returns the value of a key as parsed.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a DeValue<'a>> {
        self.mark_known(&[key]);
        self.table?.get(key).map(Spanned::get_ref)
    }

    /// Returns a string after `parse`. Error messages of `parse` must not contain a secret.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let Some(text) = value.as_str() else {
            self.problem(key, wrong_type("a string", value));
            return None;
        };
        parse(text).map_err(|message| self.problem(key, message)).ok()
    }

    /// Like [`Section::text`], but reports a missing key.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.report.error(&self.place, format!("{key} is missing"));
        }
        self.text(key, parse)
    }

    /// Returns a boolean.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        if value.as_bool().is_none() {
            self.problem(key, wrong_type("true or false", value));
        }
        value.as_bool()
    }

    /// Returns an integer within the range.
    pub(super) fn number(&mut self, key: &'static str, range: &RangeInclusive<u32>) -> Option<u32> {
        let value = self.value(key)?;
        number(value, range).map_err(|message| self.problem(key, message)).ok()
    }

    /// Returns a number within the range.
    pub(super) fn amount(&mut self, key: &'static str, range: &RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(key)?;
        amount(value, range).map_err(|message| self.problem(key, message)).ok()
    }

    /// Returns a duration within the range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if let Some(DeValue::Integer(number)) =
            self.table.and_then(|table| table.get(key)).map(Spanned::get_ref)
        {
            self.mark_known(&[key]);
            self.problem(key, format!("{number} has no unit; use a string with a unit, such as \"30s\""));
            return None;
        }
        self.text(key, |text| {
            let parsed = duration::parse(text).map_err(|message| format!("{} {message}", shown(text)))?;
            if range.contains(&parsed) {
                return Ok(parsed);
            }
            let (least, most) = (duration::format(*range.start()), duration::format(*range.end()));
            Err(format!("{} is out of range; allowed: \"{least}\" to \"{most}\"", shown(text)))
        })
    }

    /// Returns the elements of an array with their places, counted from 1. `wanted` describes the
    /// array in error messages. Returns no elements if the key is absent.
    pub(super) fn elements(&mut self, key: &'static str, wanted: &str) -> Vec<(&'a DeValue<'a>, Place)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.as_array() else {
            self.problem(key, wrong_type(wanted, value));
            return Vec::new();
        };
        let path = self.place_of(key).path;
        let place = |(index, element): (usize, &'a Spanned<DeValue<'a>>)| {
            let line = self.report.line(element.span().start);
            (element.get_ref(), Place { line, column: 0, path: format!("{path}[{}]", index + 1) })
        };
        array.iter().enumerate().map(place).collect()
    }

    /// Returns the strings of an array after `parse`, with their places.
    pub(super) fn texts<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(T, Place)> {
        let mut parsed = Vec::new();
        for (value, place) in self.elements(key, "an array of strings") {
            match value.as_str().map_or_else(|| Err(wrong_type("a string", value)), &parse) {
                Ok(item) => parsed.push((item, place)),
                Err(message) => self.report.error(&place, message),
            }
        }
        parsed
    }

    /// Returns the table of that name, empty if it is absent.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let place = self.place_of(key);
        match self.value(key) {
            Some(value) => Section::from_value(value, place, self.report),
            None => Section::new(None, place, self.report),
        }
    }

    /// Returns the entries of a table whose keys are chosen by the operator, in the order of the
    /// file.
    pub(super) fn entries(&self) -> Vec<Entry<'a>> {
        let Some(table) = self.table else { return Vec::new() };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| Entry {
            key: key.get_ref(),
            value: value.get_ref(),
            place: self.place_of(key.get_ref()),
        };
        entries.into_iter().map(entry).collect()
    }

    /// Accepts these keys without reading them, because another problem prevents their validation.
    pub(super) fn mark_known(&mut self, keys: &[&'static str]) {
        for key in keys {
            if !self.requested.contains(key) {
                self.requested.push(key);
            }
        }
    }

    /// Reports each key that was not requested.
    pub(super) fn finish(self) {
        for Entry { key, place, .. } in self.entries() {
            if !self.requested.contains(&key) {
                let message = match nearest(key, &self.requested) {
                    Some(meant) => format!("unknown key; did you mean {meant}?"),
                    None => "unknown key;".to_owned(),
                };
                // Key and value may be swapped, so that the key is a secret.
                let masked =
                    || Place { path: format!("{}{}***", self.place.path, self.separator), ..place.clone() };
                let place = if looks_like_a_key(key) { masked() } else { place };
                self.report.error(&place, format!("{message} known keys: {}", self.requested.join(", ")));
            }
        }
    }
}

/// Returns a value as an integer within the range, or an error message.
pub(super) fn number(value: &DeValue<'_>, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let integer = value.as_integer().ok_or_else(|| wrong_type("a whole number", value))?;
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{} is out of range; allowed: {} to {}", truncated(&integer), range.start(), range.end())
    })
}

/// Returns a value as a number within the range, or an error message. No range contains infinity or
/// NaN.
fn amount(value: &DeValue<'_>, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let (written, amount) = match value {
        DeValue::Float(float) => (float.as_str(), float.as_str().parse().ok()),
        DeValue::Integer(integer) => {
            let whole = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            (integer.as_str(), whole.map(|whole| whole as f64))
        }
        _ => return Err(wrong_type("a number", value)),
    };
    amount.filter(|amount| range.contains(amount)).ok_or_else(|| {
        format!("{} is out of range; allowed: {} to {}", truncated(&written), range.start(), range.end())
    })
}

/// Returns the message for a value of the wrong type. It does not contain the value, which may be a
/// misplaced secret.
pub(super) fn wrong_type(wanted: &str, value: &DeValue<'_>) -> String {
    let article = if value.is_integer() || value.is_array() { "an" } else { "a" };
    format!("must be {wanted}, not {article} {}", value.type_str())
}

/// Truncates a number of any length.
fn truncated(number: &impl ToString) -> String {
    number.to_string().chars().take(24).collect()
}

/// Formats a key for a path: quoted unless it is a short bare key.
fn path_part(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.len() <= 64 && key.chars().all(bare) { key.to_owned() } else { shown(key) }
}
