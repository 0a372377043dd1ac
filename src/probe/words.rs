//! What the codes and messages of APIs mean, whatever the status: money, capacity, keys, rights, models, lost routes.
//!
//! Services spell the same failure in many ways, so that a list of whole codes is always behind. A code is therefore split
//! into its words (`AccountOverdueError`: account, overdue, error), and a message into its sentences; a table names the
//! words that together carry a meaning. Each table has exclusions, for sentences that use the same words otherwise.
//! English and Chinese are the languages in which the APIs answer.

mod tables;

pub(super) use self::tables::LOST_ROUTE_HEADERS;
use self::tables::{
    BAD_CREDENTIALS, BAD_KEY, CAPACITY, CREDENTIALS, LOST_ROUTE, MONEY, NO_MODEL, NO_PATH, NOT_ALLOWED,
    NOT_CREDENTIALS, RATE, RETIRED, SHUT_OUT, TOO_LARGE, Table,
};
use super::body::ErrorBody;

/// Longest code that is split; longer ones are sentences.
const MAX_CODE_BYTES: usize = 96;

/// Codes of one error that are considered; the rest repeats them.
const MAX_CODES: usize = 64;

/// What an error says, prepared for the tables.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Each code, type or status as its words, in lower case.
    codes: Vec<Vec<String>>,
    /// Sentences of the messages, in lower case.
    sentences: Vec<String>,
    /// Whether Google wrote it, whose words for money are also those of a minute's limit.
    is_google: bool,
}

impl Words {
    /// Prepares an error's codes and messages.
    pub(super) fn of(error: &ErrorBody<'_>) -> Self {
        let messages = error.messages();
        let identifiers = messages.iter().flat_map(|message| identifiers(message));
        let codes = error.codes().into_iter().chain(identifiers);
        let codes = codes.filter(|code| code.len() <= MAX_CODE_BYTES).take(MAX_CODES).map(split).collect();
        let lower: Vec<String> = messages.iter().map(|message| message.to_lowercase()).collect();
        let google =
            ["resource_exhausted", "generativelanguage", "quota exceeded for metric", "geminiexception"];
        let is_google = error.codes().contains(&"RESOURCE_EXHAUSTED")
            || lower.iter().any(|message| google.iter().any(|mark| message.contains(mark)));
        Self { codes, sentences: lower.iter().flat_map(|message| sentences(message)).collect(), is_google }
    }

    /// Prepares codes that are not an error's.
    pub(super) fn of_codes<'a>(codes: impl IntoIterator<Item = &'a str>) -> Self {
        Self { codes: codes.into_iter().take(MAX_CODES).map(split).collect(), ..Self::default() }
    }

    /// Adds what another error says, such as the one that a gateway hands on.
    pub(super) fn join(&mut self, other: Self) {
        self.codes.extend(other.codes);
        self.sentences.extend(other.sentences);
        self.is_google |= other.is_google;
    }

    /// Notes that Google wrote the error.
    pub(super) fn by_google(&mut self) {
        self.is_google = true;
    }

    /// Returns whether a sentence has one of these parts.
    pub(super) fn say(&self, parts: &[&str]) -> bool {
        self.sentences.iter().any(|sentence| has_any(sentence, parts))
    }

    /// Returns whether a code has all of these words.
    pub(super) fn has_code(&self, words: &[&str]) -> bool {
        self.codes.iter().any(|code| has_all(code, words))
    }

    pub(super) fn is_money(&self) -> bool {
        // OpenAI's words for an empty wallet are Google's for any limit.
        self.mean(&MONEY) || !self.is_google && self.say(&["exceeded your current quota"])
    }

    pub(super) fn is_capacity(&self) -> bool {
        self.mean(&CAPACITY)
    }

    /// Returns whether a code alone means capacity.
    pub(super) fn has_capacity_code(&self) -> bool {
        self.codes_mean(&CAPACITY)
    }

    pub(super) fn is_rate(&self) -> bool {
        self.mean(&RATE)
    }

    pub(super) fn is_bad_key(&self) -> bool {
        let credential = |sentence: &String| {
            has_any(sentence, CREDENTIALS)
                && has_any(sentence, BAD_CREDENTIALS)
                && !has_any(sentence, NOT_CREDENTIALS)
        };
        self.mean(&BAD_KEY) || self.sentences.iter().any(credential)
    }

    pub(super) fn is_not_allowed(&self) -> bool {
        self.mean(&NOT_ALLOWED)
    }

    pub(super) fn is_shut_out(&self) -> bool {
        self.mean(&SHUT_OUT)
    }

    pub(super) fn is_no_model(&self) -> bool {
        self.mean(&NO_MODEL)
    }

    pub(super) fn has_no_model_code(&self) -> bool {
        self.codes_mean(&NO_MODEL)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.mean(&RETIRED)
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.mean(&TOO_LARGE)
    }

    pub(super) fn is_no_path(&self) -> bool {
        self.mean(&NO_PATH)
    }

    pub(super) fn is_lost_route(&self) -> bool {
        self.say(LOST_ROUTE)
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

/// Returns whether a text that is no JSON, such as a router's page, says that the application behind it is gone.
pub(super) fn is_lost_route(text: &str) -> bool {
    has_any(&text.to_lowercase(), LOST_ROUTE)
}

fn has_any(sentence: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| sentence.contains(part))
}

/// Whether the words are in the code in this order.
fn has_all(code: &[String], words: &[&str]) -> bool {
    let mut rest = code.iter();
    words.iter().all(|word| rest.any(|found| found == word))
}

/// Words of a message that are written as codes: `litellm.BudgetExceededError`, `"type":"overloaded_error"`.
fn identifiers(message: &str) -> impl Iterator<Item = &str> {
    let words = message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| {
        let camel = || {
            word.as_bytes().windows(2).any(|two| two[0].is_ascii_lowercase() && two[1].is_ascii_uppercase())
        };
        word.contains('_') || camel()
    })
}

/// The words of a code in lower case: `NOT_ENOUGH_BALANCE`, `AccountOverdueError`, `insufficient-quota`.
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

/// Sentences end at a full stop before white space, at the marks of other scripts, and at the end of a line. The limit of
/// 0 in Google's message may stand at the line's end, which is therefore kept.
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
