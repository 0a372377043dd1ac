//! Speed and length of simulated answers, which can be combined with a fault.

use std::time::Duration;

use serde::Deserialize;

use super::{fault::MAX_PAUSE, scenario::parse_duration};

/// Maximum number of content events of a stream.
const MAX_TOKENS: usize = 10_000;
/// Default number of tokens of an answer.
const DEFAULT_TOKENS: usize = 2;

/// Pace of a request. `None` means the default, which has no pauses.
///
/// The pauses add up from the end of the request: `extra`, `processing`, the response head,
/// `first_token`, the first visible content, then `token` before each further one. An answer in one
/// piece takes the same time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pace {
    /// Delay that a gateway adds to every answer, including errors.
    extra: Option<Duration>,
    processing: Option<Duration>,
    first_token: Option<Duration>,
    token: Option<Duration>,
    /// Number of tokens of the answer.
    pub(super) tokens: Option<usize>,
    /// Whether the service reports token usage. `None` if it does so as usual, or on request.
    pub(super) usage: Option<bool>,
    /// The model that the answer names. `None` for the requested one.
    pub(super) answered_model: Option<String>,
    /// The text of the answer. `None` is "OK", repeated up to the number of tokens.
    text: Option<String>,
    /// Bytes of a stream that a proxy collects before it passes them on; 0 for all of it. `None` if
    /// each at once.
    pub(super) buffer: Option<usize>,
    /// For each thousand tokens of the prompt that the prompt cache does not have, before the first
    /// token. `None` if prompts take no time, and there is no cache.
    pub(super) prefill: Option<Duration>,
}

/// Keys in a scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPace {
    extra: Option<String>,
    processing: Option<String>,
    first_token: Option<String>,
    token: Option<String>,
    tokens: Option<usize>,
    usage: Option<bool>,
    answered_model: Option<String>,
    text: Option<String>,
    buffer: Option<usize>,
    prefill: Option<String>,
}

impl RawPace {
    pub(super) fn check(self) -> Result<Pace, String> {
        let Self {
            extra,
            processing,
            first_token,
            token,
            tokens,
            usage,
            answered_model,
            text,
            buffer,
            prefill,
        } = self;
        let pause = |key: &str, text: Option<String>| text.map(|text| pause(key, &text)).transpose();
        Ok(Pace {
            extra: pause("extra", extra)?,
            processing: pause("processing", processing)?,
            first_token: pause("first_token", first_token)?,
            token: pause("token", token)?,
            tokens: tokens.map(count).transpose()?,
            usage,
            answered_model,
            text: text.map(|text| parse_text(&text)).transpose()?,
            buffer,
            prefill: pause("prefill", prefill)?,
        })
    }
}

impl Pace {
    /// Sets one key of the header `x-simulate`. Returns false if the key does not belong to a pace.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "extra" => self.extra = Some(pause(key, value)?),
            "processing" => self.processing = Some(pause(key, value)?),
            "first_token" => self.first_token = Some(pause(key, value)?),
            "token" => self.token = Some(pause(key, value)?),
            "tokens" => {
                let number = value.parse().map_err(|_| "tokens is not a number".to_owned())?;
                self.tokens = Some(count(number)?);
            }
            "answered_model" => self.answered_model = Some(value.to_owned()),
            "text" => self.text = Some(parse_text(value)?),
            "buffer" => {
                self.buffer = Some(value.parse().map_err(|_| "buffer is not a number".to_owned())?);
            }
            "prefill" => self.prefill = Some(pause(key, value)?),
            "usage" => {
                self.usage = Some(value.parse().map_err(|_| "usage must be true or false".to_owned())?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Merges two paces; values of this one take precedence.
    pub(super) fn or(self, other: &Self) -> Self {
        Self {
            extra: self.extra.or(other.extra),
            processing: self.processing.or(other.processing),
            first_token: self.first_token.or(other.first_token),
            token: self.token.or(other.token),
            tokens: self.tokens.or(other.tokens),
            usage: self.usage.or(other.usage),
            answered_model: self.answered_model.or_else(|| other.answered_model.clone()),
            text: self.text.or_else(|| other.text.clone()),
            buffer: self.buffer.or(other.buffer),
            prefill: self.prefill.or(other.prefill),
        }
    }

    pub(super) fn extra(&self) -> Duration {
        self.extra.unwrap_or_default()
    }

    pub(super) fn processing(&self) -> Duration {
        self.processing.unwrap_or_default()
    }

    pub(super) fn first_token(&self) -> Duration {
        self.first_token.unwrap_or_default()
    }

    /// Returns the pause between tokens. Returns `None` if it is not scripted.
    pub(super) fn token(&self) -> Option<Duration> {
        self.token
    }

    /// Has the model do what the prompt asks for, where nothing else is scripted: count to a
    /// number.
    pub(super) fn obey(&mut self, prompt: &str) {
        let asked = prompt.split_once("numbers from 1 to ").map(|(_, rest)| rest);
        let last = asked.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        if self.text.is_none() && self.tokens.is_none() {
            self.text = last.and_then(|last| parse_text(&format!("count {last}")).ok());
        }
    }

    /// Puts the time that reading so many tokens takes before the first token.
    pub(super) fn read_prompt(&mut self, tokens: usize) {
        let Some(prefill) = self.prefill else { return };
        let reading = prefill.mul_f64(tokens as f64 / 1000.0);
        self.first_token = Some(self.first_token().saturating_add(reading));
    }

    /// Returns the time from the request to an answer of that many tokens in one piece.
    pub(super) fn generation(&self, tokens: usize) -> Duration {
        let after_first = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        let further = self.token.unwrap_or_default().saturating_mul(after_first);
        self.processing().saturating_add(self.first_token()).saturating_add(further)
    }

    /// Returns the content, token by token.
    pub(super) fn texts(&self) -> Vec<&str> {
        if let Some(text) = &self.text {
            let words: Vec<&str> = text.split_inclusive(' ').collect();
            return words.into_iter().take(self.tokens.unwrap_or(MAX_TOKENS)).collect();
        }
        let tokens = self.tokens.unwrap_or(DEFAULT_TOKENS);
        if tokens == 1 {
            return vec!["OK"];
        }
        ["O", "K"].into_iter().chain(std::iter::repeat(" OK")).take(tokens).collect()
    }
}

fn pause(key: &str, text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(pause) if pause <= MAX_PAUSE => Ok(pause),
        Ok(_) => Err(format!("{key}: must be at most an hour")),
        Err(error) => Err(format!("{key}: {error}")),
    }
}

/// Parses the text of an answer. `count` and a number are the numbers from 1 to that one.
fn parse_text(text: &str) -> Result<String, String> {
    let numbers = text.strip_prefix("count ").and_then(|last| last.parse::<usize>().ok());
    match numbers {
        Some(last) => {
            let numbers: Vec<String> = (1..=count(last)?).map(|number| number.to_string()).collect();
            Ok(numbers.join(" "))
        }
        None if text.len() <= MAX_TOKENS => Ok(text.to_owned()),
        None => Err(format!("text: has at most {MAX_TOKENS} bytes")),
    }
}

fn count(tokens: usize) -> Result<usize, String> {
    if tokens <= MAX_TOKENS { Ok(tokens) } else { Err(format!("tokens: must be at most {MAX_TOKENS}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(pairs: &[(&str, &str)]) -> Pace {
        let mut pace = Pace::default();
        for (key, value) in pairs {
            assert_eq!(pace.set(key, value), Ok(true), "{key}");
        }
        pace
    }

    #[test]
    fn unset_keys_come_from_the_other_pace() {
        let gateway = pace(&[("extra", "80ms"), ("tokens", "3")]);
        let all = pace(&[("first_token", "50ms"), ("token", "10ms"), ("tokens", "8"), ("usage", "false")]);
        let both = gateway.or(&all);
        assert_eq!((both.extra(), both.tokens), (Duration::from_millis(80), Some(3)));
        assert_eq!((both.generation(3), both.usage), (Duration::from_millis(70), Some(false)));
    }

    #[test]
    fn any_number_of_tokens_spells_ok() {
        let text = |tokens: &str| pace(&[("tokens", tokens)]).texts().concat();
        assert_eq!([text("0"), text("1"), text("2"), text("4")], ["", "OK", "OK", "OK OK OK"]);
        assert_eq!(Pace::default().texts(), ["O", "K"]);
        assert_eq!(pace(&[("token", "1h")]).generation(0), Duration::ZERO);
    }

    #[test]
    fn scripted_text_arrives_word_by_word() {
        assert_eq!(pace(&[("text", "not at all")]).texts(), ["not ", "at ", "all"]);
        assert_eq!(pace(&[("text", "count 3")]).texts().concat(), "1 2 3");
        let mut obedient = Pace::default();
        obedient.obey("Write the whole numbers from 1 to 12 in order.");
        assert_eq!(obedient.texts().len(), 12);
        let mut busy = pace(&[("tokens", "4")]);
        busy.obey("Write the whole numbers from 1 to 12 in order.");
        assert_eq!(busy.texts().len(), 4);
    }

    #[test]
    fn prompt_takes_its_time_before_the_first_token() {
        let mut reading = pace(&[("prefill", "100ms"), ("first_token", "50ms")]);
        reading.read_prompt(2500);
        assert_eq!(reading.first_token(), Duration::from_millis(300));
    }

    #[test]
    fn invalid_pace_is_rejected() {
        #[track_caller]
        fn check(key: &str, value: &str, expected: &str) {
            assert_eq!(Pace::default().set(key, value).unwrap_err(), expected);
        }
        check("token", "61m", "token: must be at most an hour");
        check("extra", "80", "extra: \"80\" is not a number with unit ms, s, m or h");
        check("tokens", "10001", "tokens: must be at most 10000");
        check("tokens", "-1", "tokens is not a number");
        check("usage", "on", "usage must be true or false");
        assert_eq!(Pace::default().set("ms", "1"), Ok(false));
    }
}
