//! The file as spanned tables, read by typed accessors that note what does not fit and go on.
//!
//! A derived serde mirror would stop at the first unknown key or wrong type; an operator wants all of them at once.
//! The known keys of a section are those that it was asked for, so no list of them can go stale.

use std::{ops::RangeInclusive, time::Duration};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    duration,
    key::looks_like_one,
    problem::{Place, Report, nearest, shown},
};

/// The tables of `text`; `None` where it is no TOML, which the report then tells.
pub(super) fn parse<'a>(text: &'a str, report: &Report) -> Option<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    // The parser recovers within a line and complains of the same fault again: the first of a line says it.
    let mut last_line = 0;
    for error in &errors {
        let offset = error.span().map_or(text.len(), |span| span.start.min(text.len()));
        let line = report.line(offset);
        if line != last_line {
            let place = Place { line, column: report.column(offset), path: String::new() };
            let mut what = error.message().replace('\n', " ");
            let key = error.span().and_then(|span| text.get(span)).filter(|key| !looks_like_one(key));
            if let ("duplicate key", Some(key)) = (&*what, key) {
                what = format!("duplicate key {}; keep one of the two", shown(key));
            }
            report.error(&place, format!("not valid TOML: {what}"));
            last_line = line;
        }
    }
    errors.is_empty().then(|| table.into_inner())
}

/// One table of the file. What it is not asked for before [`Section::finish`] is an unknown key.
pub(super) struct Section<'a> {
    /// `None`: the file has no such table.
    table: Option<&'a DeTable<'a>>,
    place: Place,
    /// Between the section's path and its keys.
    separator: &'static str,
    asked: Vec<&'static str>,
    report: &'a Report,
}

/// One entry of a table whose keys are the operator's own.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a DeValue<'a>,
    pub(super) place: Place,
}

impl<'a> Section<'a> {
    /// The file itself.
    pub(super) fn root(table: &'a DeTable<'a>, report: &'a Report) -> Self {
        Self::new(Some(table), Place::default(), report)
    }

    fn new(table: Option<&'a DeTable<'a>>, place: Place, report: &'a Report) -> Self {
        let separator = if place.path.is_empty() { "" } else { "." };
        Self { table, place, separator, asked: Vec::new(), report }
    }

    /// The section of a value that must be a table.
    pub(super) fn of(value: &'a DeValue<'a>, place: Place, report: &'a Report) -> Self {
        if value.as_table().is_none() {
            report.error(&place, wrong_type("a table", value));
        }
        Self::new(value.as_table(), place, report)
    }

    /// Adds a name to the section's path, where a number alone would say little: `probe[2] "langmart-chat"`.
    pub(super) fn called(mut self, name: &str) -> Self {
        self.place.path = format!("{} {}", self.place.path, shown(name));
        self.separator = ": ";
        self
    }

    /// Where the section begins.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the key stands, or would.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let written = self.table.and_then(|table| table.get_key_value(key));
        let line = written.map_or(self.place.line, |(key, _)| self.report.line(key.span().start));
        Place { line, column: 0, path: format!("{}{}{}", self.place.path, self.separator, path_part(key)) }
    }

    /// Whether the file has the section, as a table.
    pub(super) fn is_table(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key is written, well or badly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether a problem with the key itself is noted.
    pub(super) fn is_bad(&self, key: &str) -> bool {
        self.report.has_error_at(&self.place_of(key))
    }

    /// Notes that something is wrong with the key.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.report.error(&self.place_of(key), message);
    }

    /// The value of a key as the file has it.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a DeValue<'a>> {
        self.pass(&[key]);
        self.table?.get(key).map(Spanned::get_ref)
    }

    /// A string, as `parse` understands it. What `parse` complains of must not repeat a secret.
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

    /// Like [`Section::text`], where the section is of no use without the key.
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

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        if value.as_bool().is_none() {
            self.problem(key, wrong_type("true or false", value));
        }
        value.as_bool()
    }

    /// A whole number of that range.
    pub(super) fn number(&mut self, key: &'static str, range: &RangeInclusive<u32>) -> Option<u32> {
        let value = self.value(key)?;
        number(value, range).map_err(|message| self.problem(key, message)).ok()
    }

    /// A number of that range, whole or not.
    pub(super) fn amount(&mut self, key: &'static str, range: &RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(key)?;
        amount(value, range).map_err(|message| self.problem(key, message)).ok()
    }

    /// A duration of that range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: &RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if let Some(DeValue::Integer(number)) =
            self.table.and_then(|table| table.get(key)).map(Spanned::get_ref)
        {
            self.pass(&[key]);
            self.problem(key, format!("{number} has no unit; write a string with one, such as \"30s\""));
            return None;
        }
        self.text(key, |text| {
            let parsed = duration::parse(text).map_err(|message| format!("{} {message}", shown(text)))?;
            if range.contains(&parsed) {
                return Ok(parsed);
            }
            let (least, most) = (duration::format(*range.start()), duration::format(*range.end()));
            Err(format!("{} is out of range; allowed are \"{least}\" to \"{most}\"", shown(text)))
        })
    }

    /// The elements of an array, of which `wanted` says what they are; none where the key is absent. The first is number 1.
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

    /// The strings of an array, each as `parse` understands it, and where it stands.
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

    /// The table of that name, empty where the file has none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let place = self.place_of(key);
        match self.value(key) {
            Some(value) => Section::of(value, place, self.report),
            None => Section::new(None, place, self.report),
        }
    }

    /// What is in a table whose keys are the operator's own, in the order of the file.
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

    /// Accepts these keys without reading them, where another problem already says that they cannot be judged.
    pub(super) fn pass(&mut self, keys: &[&'static str]) {
        for key in keys {
            if !self.asked.contains(key) {
                self.asked.push(key);
            }
        }
    }

    /// Notes each key that nobody asked for.
    pub(super) fn finish(self) {
        for Entry { key, place, .. } in self.entries() {
            if !self.asked.contains(&key) {
                let message = match nearest(key, &self.asked) {
                    Some(meant) => format!("unknown key; did you mean {meant}?"),
                    None => "unknown key;".to_owned(),
                };
                // A key and a value that changed places.
                let masked =
                    || Place { path: format!("{}{}***", self.place.path, self.separator), ..place.clone() };
                let place = if looks_like_one(key) { masked() } else { place };
                self.report.error(&place, format!("{message} the keys here are {}", self.asked.join(", ")));
            }
        }
    }
}

/// The whole number that a value is, or what is wrong with it.
pub(super) fn number(value: &DeValue<'_>, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let integer = value.as_integer().ok_or_else(|| wrong_type("a whole number", value))?;
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{} is out of range; allowed are {} to {}", cut(&integer), range.start(), range.end())
    })
}

/// The number that a value is, or what is wrong with it. None of the ranges holds an infinity or what is no number.
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
        format!("{} is out of range; allowed are {} to {}", cut(&written), range.start(), range.end())
    })
}

/// What to say of a value of another type; never the value, which may be a secret in the wrong place.
pub(super) fn wrong_type(wanted: &str, value: &DeValue<'_>) -> String {
    let article = if value.is_integer() || value.is_array() { "an" } else { "a" };
    format!("must be {wanted}, not {article} {}", value.type_str())
}

/// A number of any length, cut.
fn cut(number: &impl ToString) -> String {
    number.to_string().chars().take(24).collect()
}

/// A key as a path shows it: quoted unless it is a bare one of bearable length.
fn path_part(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.len() <= 64 && key.chars().all(bare) { key.to_owned() } else { shown(key) }
}
