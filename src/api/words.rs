//! Meaning of the codes and messages of APIs, regardless of the status: money, capacity, keys,
//! permissions, models, lost routes.
//!
//! Services spell the same failure in many ways, so a list of whole codes would always be
//! incomplete. A code is therefore split into its words (`AccountOverdueError`: account, overdue,
//! error), and a message into its sentences. A table lists the words that have a meaning together,
//! with exclusions for sentences that use the same words differently. The APIs answer in English
//! and Chinese.

mod tables;

pub(crate) use self::tables::LOST_ROUTE_HEADERS;
use self::tables::{
    BAD_CREDENTIALS, BAD_KEY, CAPACITY, CREDENTIALS, LOST_ROUTE, MONEY, NO_MODEL, NO_PATH, NOT_ALLOWED,
    NOT_CREDENTIALS, RATE, REGION, RETIRED, SHUT_OUT, TOO_LARGE, Table,
};
use super::body::ErrorBody;

/// Maximum size of a code in bytes; longer ones are sentences.
const MAX_CODE_BYTES: usize = 96;

/// Maximum number of codes of one error; more are repetitions.
const MAX_CODES: usize = 64;

/// Codes and sentences of an error, prepared for the tables.
#[derive(Debug, Default)]
pub(crate) struct Words {
    /// Words of each code, type or status, in lower case.
    codes: Vec<Vec<String>>,
    /// Sentences of the messages, in lower case.
    sentences: Vec<String>,
    /// Whether it is Google's, whose terms for exhausted credit also mean limits per minute.
    is_google: bool,
}

impl Words {
    /// Prepares the codes and messages of an error.
    pub(crate) fn of(error: &ErrorBody<'_>) -> Self {
        let messages = error.messages();
        let identifiers = messages.iter().flat_map(|message| identifiers(message));
        let codes = error.codes().into_iter().chain(identifiers);
        let codes = codes.filter(|code| code.len() <= MAX_CODE_BYTES).take(MAX_CODES).map(split).collect();
        let lower: Vec<String> = messages.iter().map(|message| message.to_lowercase()).collect();
        let is_google =
            error.codes().contains(&"RESOURCE_EXHAUSTED") || lower.iter().any(|message| is_googles(message));
        Self { codes, sentences: lower.iter().flat_map(|message| sentences(message)).collect(), is_google }
    }

    /// Prepares text in place of an error. The words of a path or URL in it have no meaning.
    pub(crate) fn of_prose(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().filter(|word| !word.contains('/')).collect();
        let text = words.join(" ");
        let codes = identifiers(&text).filter(|code| code.len() <= MAX_CODE_BYTES).take(MAX_CODES);
        let lower = text.to_lowercase();
        Self {
            codes: codes.map(split).collect(),
            is_google: is_googles(&lower),
            sentences: sentences(&lower),
        }
    }

    /// Prepares codes that are not from an error.
    pub(crate) fn of_codes<'a>(codes: impl IntoIterator<Item = &'a str>) -> Self {
        Self { codes: codes.into_iter().take(MAX_CODES).map(split).collect(), ..Self::default() }
    }

    /// Adds another error, such as the one that a gateway forwards.
    pub(crate) fn join(&mut self, other: Self) {
        self.codes.extend(other.codes);
        self.sentences.extend(other.sentences);
        self.is_google |= other.is_google;
    }

    /// Marks the error as Google's.
    pub(crate) fn by_google(&mut self) {
        self.is_google = true;
    }

    /// Returns whether a sentence contains one of these parts.
    pub(crate) fn contain(&self, parts: &[&str]) -> bool {
        self.sentences.iter().any(|sentence| has_any(sentence, parts))
    }

    /// Returns whether a code has all these words, in this order.
    pub(crate) fn has_code(&self, words: &[&str]) -> bool {
        self.codes.iter().any(|code| has_all(code, words))
    }

    pub(crate) fn is_money(&self) -> bool {
        // OpenAI's phrase for exhausted credit is Google's for any limit.
        let allows_nothing =
            |sentence: &String| sentence.trim_end().ends_with("limit: 0") && !sentence.contains("remaining");
        self.mean(&MONEY)
            || !self.is_google && self.contain(&["exceeded your current quota"])
            || self.sentences.iter().any(allows_nothing)
    }

    pub(crate) fn is_capacity(&self) -> bool {
        self.mean(&CAPACITY)
    }

    /// Returns whether a code alone means capacity.
    pub(crate) fn has_capacity_code(&self) -> bool {
        self.codes_mean(&CAPACITY)
    }

    pub(crate) fn is_rate(&self) -> bool {
        self.mean(&RATE)
    }

    pub(crate) fn is_bad_key(&self) -> bool {
        let credential = |sentence: &String| {
            has_any(sentence, CREDENTIALS)
                && has_any(sentence, BAD_CREDENTIALS)
                && !has_any(sentence, NOT_CREDENTIALS)
        };
        self.mean(&BAD_KEY) || self.sentences.iter().any(credential)
    }

    pub(crate) fn is_not_allowed(&self) -> bool {
        self.mean(&NOT_ALLOWED)
    }

    pub(crate) fn is_region(&self) -> bool {
        self.mean(&REGION)
    }

    pub(crate) fn is_shut_out(&self) -> bool {
        self.mean(&SHUT_OUT)
    }

    pub(crate) fn is_no_model(&self) -> bool {
        self.mean(&NO_MODEL)
    }

    pub(crate) fn has_no_model_code(&self) -> bool {
        self.codes_mean(&NO_MODEL)
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.mean(&RETIRED)
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.mean(&TOO_LARGE)
    }

    pub(crate) fn is_no_path(&self) -> bool {
        self.mean(&NO_PATH)
    }

    pub(crate) fn is_lost_route(&self) -> bool {
        self.contain(LOST_ROUTE)
    }

    fn mean(&self, table: &Table) -> bool {
        let carries = |sentence: &String| {
            let together = || {
                let words = sentence.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                words.into_iter().any(|word| table.nouns.contains(&word)) && has_any(sentence, table.states)
            };
            (has_any(sentence, table.phrases) || together()) && !has_any(sentence, table.not_phrases)
        };
        self.codes_mean(table) || self.sentences.iter().any(carries)
    }

    fn codes_mean(&self, table: &Table) -> bool {
        let carries = |code: &Vec<String>| {
            table.codes.iter().any(|words| has_all(code, words))
                && !code.iter().any(|word| table.not_codes.contains(&word.as_str()))
        };
        self.codes.iter().any(carries)
    }
}

/// Returns whether a message, in lower case, is Google's, or quotes one.
fn is_googles(message: &str) -> bool {
    has_any(
        message,
        &["resource_exhausted", "generativelanguage", "quota exceeded for metric", "geminiexception"],
    )
}

/// Returns whether text that is not JSON, such as a router's page, reports that the application
/// behind it is gone.
pub(crate) fn is_lost_route(text: &str) -> bool {
    has_any(&text.to_lowercase(), LOST_ROUTE)
}

fn has_any(sentence: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| sentence.contains(part))
}

/// Returns whether a code has these words in this order.
fn has_all(code: &[String], words: &[&str]) -> bool {
    let mut rest = code.iter();
    words.iter().all(|word| rest.any(|found| found == word))
}

/// Returns the words of a message that have the form of codes: `litellm.BudgetExceededError`,
/// `"type":"overloaded_error"`.
fn identifiers(message: &str) -> impl Iterator<Item = &str> {
    let words = message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| {
        let camel = || {
            word.as_bytes().windows(2).any(|two| two[0].is_ascii_lowercase() && two[1].is_ascii_uppercase())
        };
        word.contains('_') || camel()
    })
}

/// Splits a code such as `NOT_ENOUGH_BALANCE`, `AccountOverdueError` or `insufficient-quota` into
/// words in lower case.
fn split(code: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let bytes = code.as_bytes();
    for (index, &byte) in bytes.iter().enumerate() {
        if !byte.is_ascii_alphanumeric() {
            words.push(String::new());
            continue;
        }
        let before = index.checked_sub(1).map(|index| bytes[index]);
        let after = bytes.get(index + 1);
        let begins = byte.is_ascii_uppercase()
            && (before.is_some_and(|before| before.is_ascii_lowercase())
                || before.is_some_and(|before| before.is_ascii_uppercase())
                    && after.is_some_and(u8::is_ascii_lowercase));
        if begins {
            words.push(String::new());
        }
        words.last_mut().expect("there is a first one").push(byte.to_ascii_lowercase().into());
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Splits a message into sentences. They end at a full stop before white space, at the marks of
/// other scripts, and at the end of a line. The line feed is kept, because a phrase about Google's
/// limit of 0 includes it.
fn sentences(message: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    let mut characters = message.chars().peekable();
    while let Some(character) = characters.next() {
        sentences.last_mut().expect("there is a first one").push(character);
        let blank = characters.peek().is_none_or(|next| next.is_whitespace());
        if matches!(character, '\n' | '。' | '！') || matches!(character, '.' | '!' | '?' | ';') && blank {
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.trim().is_empty());
    sentences
}
