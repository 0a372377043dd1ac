//! The visible text of an answer.

use std::fmt;

/// Maximum number of bytes of an answer that are kept and compared. Answers to the built-in prompts
/// have at most a thousand.
const MAX_ANSWER: usize = 64 * 1024;

/// The visible text of an answer. Its Debug shows only the size.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct AnswerText(String);

impl fmt::Debug for AnswerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl AnswerText {
    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends as much of a piece as there is room for.
    pub(crate) fn push(&mut self, text: &str) {
        let room = MAX_ANSWER.saturating_sub(self.0.len());
        let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        self.0.push_str(&text[..end.unwrap_or(0)]);
    }
}

impl FromIterator<String> for AnswerText {
    fn from_iter<T: IntoIterator<Item = String>>(pieces: T) -> Self {
        let mut text = Self::default();
        pieces.into_iter().for_each(|piece| text.push(&piece));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_kept_to_its_bound_and_not_shown() {
        let mut text = AnswerText::default();
        for _ in 0..MAX_ANSWER {
            text.push("äb");
        }
        assert!(text.0.len() <= MAX_ANSWER && text.0.len() > MAX_ANSWER - 3);
        assert_eq!(format!("{text:?}"), format!("{} bytes", text.0.len()));
    }
}
