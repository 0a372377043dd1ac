//! Detects texts that cannot be keys, such as results of copy and paste mistakes, without showing
//! them.

use crate::outcome::Api;

/// Maximum length of a key, far above that of any provider.
const MAX_KEY_BYTES: usize = 8_192;

/// Prefixes of the keys of other services, in lower case.
const PREFIXES: [&str; 5] = ["sk-", "sk_", "xai-", "bearer ", "eyj"];

/// Returns the documented prefixes of the keys of each API.
fn owners() -> impl Iterator<Item = (&'static str, Api)> {
    Api::ALL.iter().flat_map(|api| api.profile().key_prefixes.iter().map(|prefix| (*prefix, *api)))
}

/// Length of an alphanumeric sequence that does not occur in names of variables or credentials.
const MAX_NAME_WORD: usize = 24;

/// Maximum length of a variable's name.
const MAX_NAME_BYTES: usize = 128;

/// Placeholders from documentation, in lower case.
const PLACEHOLDERS: [&str; 7] =
    ["changeme", "change-me", "change_me", "replaceme", "replace-me", "replace_me", "xxx"];

/// Returns an error with a remedy if the text cannot be a key. The error does not contain the key.
pub(super) fn check(key: &str) -> Result<(), &'static str> {
    let trimmed = key.trim();
    let lower = trimmed.to_ascii_lowercase();
    if trimmed.is_empty() {
        Err("the key is empty; store the provider's key in its place")
    } else if is_assignment(trimmed) {
        Err("the key is a line NAME=value; store only the value after the =")
    } else if ["\"", "'", "`"].iter().any(|quote| trimmed.starts_with(quote) || trimmed.ends_with(quote)) {
        Err("the key is in quotes; store it without them")
    } else if lower.starts_with("authorization:") || lower.starts_with("bearer ") || lower == "bearer" {
        Err("the key has a \"Bearer \" prefix; store the bare key, the prober adds the prefix itself")
    } else if lower.contains("your") && lower.contains("key")
        || PLACEHOLDERS.contains(&lower.as_str())
        || lower.starts_with('<') && lower.ends_with('>')
        || lower.ends_with("...")
    {
        Err("the key is a placeholder such as YOUR_API_KEY; store the provider's key in its place")
    } else if trimmed.contains(['\n', '\r']) {
        Err("the key has more than one line; store only the key")
    } else if trimmed != key {
        Err("the key is surrounded by white space; remove it")
    } else if trimmed.contains(char::is_whitespace) {
        Err("the key contains white space; copy the complete key again")
    } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("the key contains control or non-ASCII characters; copy it again as plain text")
    } else if key.len() > MAX_KEY_BYTES {
        Err("the key is longer than 8192 characters; store only the key")
    } else {
        Ok(())
    }
}

/// Returns whether a text is a line of an environment file. Keys may end with `=`, which pads
/// base64.
fn is_assignment(text: &str) -> bool {
    let line = text.strip_prefix("export ").unwrap_or(text);
    let Some((name, value)) = line.split_once('=') else { return false };
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    is_name && name.len() < MAX_NAME_BYTES && value.contains(|c: char| c != '=')
}

/// Returns whether a text in place of a key's source is probably the key itself, and must not be
/// shown.
pub(super) fn looks_like_a_key(text: &str) -> bool {
    let lower = text.trim().to_ascii_lowercase();
    PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
        || owners().any(|(prefix, _)| lower.starts_with(&prefix.to_ascii_lowercase()))
        || lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.len() >= MAX_NAME_WORD)
}

/// Returns a warning for a key with the prefix of another service. It is not an error, because
/// services change their prefixes.
pub(super) fn wrong_service_warning(key: &str, own: Api) -> Option<String> {
    let (prefix, owner) = owners().find(|(prefix, _)| key.starts_with(prefix))?;
    (owner != own).then(|| {
        format!("the key begins with {prefix} like keys of {owner}, but is sent to {own}; check which key is stored")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rejected(key: &str, because: &str) {
        let message = check(key).unwrap_err();
        assert!(message.contains(because), "{key:?}: {message}");
    }

    #[test]
    fn paste_mistakes_are_distinguished() {
        rejected("", "empty");
        rejected(" \n", "empty");
        rejected("\"sk-1\"", "quotes");
        rejected("'sk-1'\n", "quotes");
        rejected("Bearer sk-1", "prefix");
        rejected("bearer", "prefix");
        rejected("Authorization: Bearer sk-1", "prefix");
        rejected("YOUR_API_KEY", "placeholder");
        rejected("sk-langmart-your-key-here", "placeholder");
        rejected("<key>", "placeholder");
        rejected("sk-...", "placeholder");
        rejected("sk-1 ", "surrounded");
        rejected("LANGMART_API_KEY=sk-1", "NAME=value");
        rejected("export LANGMART_API_KEY=sk-1", "NAME=value");
        rejected("LANGMART_API_KEY=\"sk-1\"", "NAME=value");
        rejected("A=sk-1\nB=sk-2", "NAME=value");
        rejected("sk-1\nsk-2", "more than one line");
        rejected("sk-1 sk-2", "contains white space");
        rejected("sk-\u{200b}1", "non-ASCII");
        rejected("sk-\u{7}1", "control");
        rejected(&"k".repeat(8_193), "8192");
    }

    #[test]
    fn keys_of_any_format_are_accepted() {
        for key in
            ["sk-langmart-abc123", "AIzaSyA-b_c", "gsk_1", "a", "a.b.c+/=", "test-key", "ABCDEF==", "Abc=d"]
        {
            assert_eq!(check(key), Ok(()), "{key}");
        }
    }

    #[test]
    fn key_of_another_service_is_warned_of() {
        for (key, own, suspected) in [
            ("sk-ant-api03-abc", Api::Langmart, true),
            ("sk-langmart-abc", Api::Openai, true),
            ("gsk_abc", Api::Google, true),
            ("sk-langmart-abc", Api::Langmart, false),
            ("sk-prod-0123", Api::Langmart, false),
            ("sk-abc", Api::Anthropic, false),
            ("", Api::Groq, false),
        ] {
            let warning = wrong_service_warning(key, own);
            assert_eq!(warning.is_some(), suspected, "{key} for {own}");
            assert!(warning.is_none_or(|warning| !warning.contains("abc")), "{key} is shown");
        }
    }

    #[test]
    fn key_in_place_of_a_name_is_detected() {
        for key in ["sk-1", "gsk_abc", "AIzaSyAbc", "Bearer x", "0123456789abcdef0123456789abcdef"] {
            assert!(looks_like_a_key(key), "{key}");
        }
        for name in ["LANGMART_API_KEY", "langmart-api-key", "A_VARIABLE_WITH_A_VERY_LONG_NAME"] {
            assert!(!looks_like_a_key(name), "{name}");
        }
    }
}
