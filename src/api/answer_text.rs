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
    /// Returns the text without reasoning that a server leaves in it: what precedes `</think>`, and
    /// what follows a `<think>` that is not closed. Some templates open it in the prompt. A text of
    /// which the end was not kept is returned as it is. A character has up to four bytes.
    pub(crate) fn without_thoughts(&self) -> &str {
        let is_opened = self.0.trim_start().starts_with("<think>");
        let is_whole = self.0.len() + 4 <= MAX_ANSWER;
        match self.0.split_once("</think>") {
            Some((answer, rest)) if !is_opened && rest.trim().is_empty() => answer,
            Some((_, answer)) => answer,
            None if is_opened && is_whole => "",
            None => &self.0,
        }
    }

    /// Returns whether any of the text is an answer: white space and reasoning are none.
    pub(crate) fn is_visible(&self) -> bool {
        !self.without_thoughts().trim().is_empty()
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
    fn reasoning_in_the_text_is_no_answer() {
        for (text, answer) in [
            ("ok", "ok"),
            ("<think>reply ok</think>hello", "hello"),
            (" <think>\nreply ok", ""),
            ("reply ok</think>hello", "hello"),
            ("ok</think>\n", "ok"),
            ("a <think> in the text", "a <think> in the text"),
            ("<think></think> ", " "),
        ] {
            let kept: AnswerText = [text.to_owned()].into_iter().collect();
            assert_eq!(kept.without_thoughts(), answer, "{text:?}");
            assert_eq!(kept.is_visible(), !answer.trim().is_empty(), "{text:?}");
        }
    }

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
