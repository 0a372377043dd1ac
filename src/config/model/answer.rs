//! Expectation of a completion: its text, and the model that gave it.

use regex::bytes::Regex;

/// The expectation of a completion's text.
#[derive(Clone, Debug, Default)]
pub enum ExpectedAnswer {
    /// None: the prompt is the operator's own.
    #[default]
    Any,
    /// The word "ok", as the built-in prompts ask for.
    Ok,
    /// The whole numbers from 1 to this one, as the prompt of `workload = "speed"` asks for.
    Count(u32),
    /// A match of `expect.answer_regex`.
    Matches(Regex),
}

impl PartialEq for ExpectedAnswer {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, Self::Any) | (Self::Ok, Self::Ok) => true,
            (Self::Count(one), Self::Count(another)) => one == another,
            (Self::Matches(one), Self::Matches(another)) => one.as_str() == another.as_str(),
            _ => false,
        }
    }
}

impl Eq for ExpectedAnswer {}

/// A pattern of model names, in which `*` stands for any text and `?` for any character. Case does
/// not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPattern(String);

impl ModelPattern {
    /// Keeps a pattern in lower case.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_ascii_lowercase())
    }

    /// Returns the pattern in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pattern matches a name, with or without its vendor's prefix.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let bare = name.rsplit('/').next().unwrap_or_default();
        is_match(self.0.as_bytes(), name.as_bytes()) || is_match(self.0.as_bytes(), bare.as_bytes())
    }
}

/// Returns whether a pattern with `*` and `?` matches a text, in one pass: a star that does not fit
/// takes one more byte, and only the last star is reconsidered.
pub(in crate::config) fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                at = after;
                seen = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_pattern_is_matched_as_a_whole() {
        for (pattern, name, expected) in [
            ("gpt-4o*", "gpt-4o-mini-2024-07-18", true),
            ("gpt-4o*", "openai/gpt-4o", true),
            ("openai/gpt-4o*", "openai/gpt-4o", true),
            ("openai/gpt-4o*", "gpt-4o", false),
            ("GPT-4O", "gpt-4o", true),
            ("gpt-4o", "GPT-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o", "xgpt-4o", false),
            ("gpt-?o", "gpt-4o", true),
            ("gpt-?o", "gpt-o", false),
            ("*", "anything", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("*sonnet*", "claude-sonnet-4-5", true),
            ("claude-*-4*5", "claude-sonnet-4-4-5", true),
            ("claude-*-4*5", "claude-sonnet-4-4-6", false),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(ModelPattern::new(pattern).matches(name), expected, "{pattern} and {name}");
        }
    }
}
