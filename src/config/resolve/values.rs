//! Values of more than one section: choices, paths, sources of secrets.

use std::path::PathBuf;

use crate::config::{
    key,
    model::KeySource,
    problem::{Report, not_one_of, shown},
    raw::Section,
};

/// Parses an absolute path.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path)
    } else {
        Err(format!("{} is not an absolute path; use one that begins with a slash", shown(text)))
    }
}

/// Parses one of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    found.map(|(_, value)| *value).ok_or_else(|| not_one_of(text, &names()))
}

/// Reads the source of a secret: a table with exactly one of `env`, `file` and `credential`.
pub(super) fn source(mut section: Section<'_>, report: &Report) -> Option<KeySource> {
    let env = section.text("env", |text| name(text, "a variable", "LANGMART_API_KEY", |c| c == '_'));
    let file = section.text("file", |text| {
        // The message omits the text, because a text that is not a path may be the key itself.
        absolute(text).map_err(|_| "must be an absolute path; use one that begins with a slash".to_owned())
    });
    let credential = section.text("credential", |text| {
        name(text, "a credential", "langmart-api-key", |c| matches!(c, '.' | '_' | '-'))
    });
    let written = ["env", "file", "credential"].iter().filter(|key| section.has(key)).count();
    let place = section.place().clone();
    section.finish();
    if written != 1 {
        report.error(&place, "must have exactly one of env, file and credential");
        return None;
    }
    env.map(KeySource::Env).or(file.map(KeySource::File)).or(credential.map(KeySource::Credential))
}

/// Parses the name of a variable or credential. The messages omit it, because users often write the
/// secret itself.
fn name(text: &str, what: &str, example: &str, mark: impl Fn(char) -> bool) -> Result<String, String> {
    if key::looks_like_a_key(text) {
        return Err(format!(
            "looks like a key; use the name of {what} that contains it, such as {example:?}"
        ));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || mark(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins && text.len() <= 128 && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!("is not the name of {what}; use a name such as {example:?}"))
    }
}
