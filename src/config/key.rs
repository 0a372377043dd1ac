//! Whether a text can be a key at all: the faults of copying and pasting, told without showing what was pasted.

use crate::outcome::Api;

/// More than any provider's key, and little enough for a header.
const LONGEST: usize = 8_192;

/// What keys are known to begin with, in lower case.
const PREFIXES: [&str; 7] = ["sk-", "sk_", "gsk_", "aiza", "xai-", "bearer ", "eyj"];

/// Whose keys are documented to begin so. `OpenAI`'s plain `sk-` is everybody's.
const OWNERS: [(&str, Api); 6] = [
    ("sk-langmart-", Api::Langmart),
    ("sk-ant-", Api::Anthropic),
    ("sk-or-", Api::Openrouter),
    ("sk-proj-", Api::Openai),
    ("gsk_", Api::Groq),
    ("AIza", Api::Google),
];

/// Letters and digits in a row that no name of a variable or credential has.
const LONGEST_WORD: usize = 24;

/// What documentation has in the place of a key, in lower case.
const PLACEHOLDERS: [&str; 7] =
    ["changeme", "change-me", "change_me", "replaceme", "replace-me", "replace_me", "xxx"];

/// What is wrong with a key, and what to do about it; nothing of the key itself.
pub(super) fn check(key: &str) -> Result<(), &'static str> {
    let trimmed = key.trim();
    let lower = trimmed.to_ascii_lowercase();
    if trimmed.is_empty() {
        Err("the key is empty; store the provider's key there")
    } else if ["\"", "'", "`"].iter().any(|quote| trimmed.starts_with(quote) || trimmed.ends_with(quote)) {
        Err("the key is in quotes; store it without them")
    } else if lower.starts_with("authorization:") || lower.starts_with("bearer ") || lower == "bearer" {
        Err("the key has a \"Bearer \" prefix; store the bare key, the prober adds the prefix itself")
    } else if lower.contains("your") && lower.contains("key")
        || PLACEHOLDERS.contains(&lower.as_str())
        || lower.starts_with('<') && lower.ends_with('>')
        || lower.ends_with("...")
    {
        Err("the key is a placeholder such as YOUR_API_KEY; store the provider's key there")
    } else if trimmed.contains(['\n', '\r']) {
        Err("the key has more than one line; store the key alone")
    } else if trimmed != key {
        Err("the key has white space around it; store it without")
    } else if trimmed.contains(char::is_whitespace) {
        Err("the key has white space inside; copy it again, in one piece")
    } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("the key has control or non-ASCII characters inside; copy it again, as plain text")
    } else if key.len() > LONGEST {
        Err("the key is longer than 8192 characters; store the key alone")
    } else {
        Ok(())
    }
}

/// Whether a text that should name a key's place is more likely the key itself, and must not be shown.
pub(super) fn looks_like_one(text: &str) -> bool {
    let lower = text.trim().to_ascii_lowercase();
    PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
        || lower.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word.len() >= LONGEST_WORD)
}

/// What to say of a key that begins as another service's keys do; `None`: it may be `own`'s. No more than a suspicion,
/// since services change their forms.
pub(super) fn suspicion(key: &str, own: Api) -> Option<String> {
    let (prefix, owner) = OWNERS.iter().find(|(prefix, _)| key.starts_with(prefix))?;
    (*owner != own).then(|| {
        format!("the key begins with {prefix} as those of {owner} do, and goes to {own}; check which one is stored there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(key: &str, because: &str) {
        let message = check(key).unwrap_err();
        assert!(message.contains(because), "{key:?}: {message}");
    }

    #[test]
    fn the_faults_of_pasting_are_told_apart() {
        refused("", "empty");
        refused(" \n", "empty");
        refused("\"sk-1\"", "quotes");
        refused("'sk-1'\n", "quotes");
        refused("Bearer sk-1", "prefix");
        refused("bearer", "prefix");
        refused("Authorization: Bearer sk-1", "prefix");
        refused("YOUR_API_KEY", "placeholder");
        refused("sk-langmart-your-key-here", "placeholder");
        refused("<key>", "placeholder");
        refused("sk-...", "placeholder");
        refused("sk-1 ", "around");
        refused("sk-1\nsk-2", "more than one line");
        refused("sk-1 sk-2", "inside");
        refused("sk-\u{200b}1", "non-ASCII");
        refused("sk-\u{7}1", "control");
        refused(&"k".repeat(8_193), "8192");
    }

    #[test]
    fn keys_of_every_shape_pass() {
        for key in ["sk-langmart-abc123", "AIzaSyA-b_c", "gsk_1", "a", "a.b.c+/=", "test-key"] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
    }

    #[test]
    fn a_key_of_another_service_is_suspected() {
        for (key, own, suspected) in [
            ("sk-ant-api03-abc", Api::Langmart, true),
            ("sk-langmart-abc", Api::Openai, true),
            ("gsk_abc", Api::Google, true),
            ("sk-langmart-abc", Api::Langmart, false),
            ("sk-prod-0123", Api::Langmart, false),
            ("sk-abc", Api::Anthropic, false),
            ("", Api::Groq, false),
        ] {
            let said = suspicion(key, own);
            assert_eq!(said.is_some(), suspected, "{key} for {own}");
            assert!(said.is_none_or(|said| !said.contains("abc")), "{key} is shown");
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_name_is_noticed() {
        for key in ["sk-1", "gsk_abc", "AIzaSyAbc", "Bearer x", "0123456789abcdef0123456789abcdef"] {
            assert!(looks_like_one(key), "{key}");
        }
        for name in ["LANGMART_API_KEY", "langmart-api-key", "A_VARIABLE_WITH_A_VERY_LONG_NAME"] {
            assert!(!looks_like_one(name), "{name}");
        }
    }
}
