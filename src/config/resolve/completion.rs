//! Prompt and expected answer of a `chat` or `stream` probe.

use std::time::{Duration, SystemTime};

use jiff::{civil::Date, tz::TimeZone};

use super::{http::pattern, values::choice};
use crate::config::{
    long_prompt,
    model::{ExpectedAnswer, ModelPattern, PROMPT_NONCE},
    problem::shown,
    raw::Section,
};

/// The default prompt: cheap, and answered by every model with visible text.
const PROMPT: &str = "Reply with the single word: ok";

/// The prompt of `workload = "speed"`. The answer has at least 200 tokens in every tokenizer, some
/// 400 in most, and at most 700.
const SPEED_PROMPT: &str =
    "Write the whole numbers from 1 to 200 in order, separated by single spaces. Write nothing else.";
const SPEED_LAST_NUMBER: u32 = 200;

/// Default of `max_tokens` for `workload = "speed"`.
pub(super) const SPEED_TOKENS: u32 = 1024;

/// Default interval of `workload = "speed"`.
pub(super) const SPEED_INTERVAL: Duration = Duration::from_secs(3600);

const MAX_PROMPT_BYTES: usize = 16 << 10;
const MAX_PATTERN_BYTES: usize = 256;

/// Number of words from which a prompt is long: about the shortest prefix that services cache.
const LONG_PROMPT_WORDS: usize = 50;

/// The task that a probe gives to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// Reply with one word.
    Reply,
    /// Write enough text to measure the output speed.
    Speed,
}

/// Reads `workload`.
pub(super) fn workload(section: &mut Section<'_>) -> Workload {
    let choices = [("reply", Workload::Reply), ("speed", Workload::Speed)];
    section.text("workload", |text| choice(text, &choices)).unwrap_or(Workload::Reply)
}

/// A prompt with the expectation of its answer.
pub(super) struct Question {
    pub(super) prompt: String,
    pub(super) answer: ExpectedAnswer,
    pub(super) model: Option<ModelPattern>,
}

/// Reads `prompt`, `prompt_words`, `prompt_cache` and `expect`.
pub(super) fn question(section: &mut Section<'_>, workload: Workload) -> Question {
    let prompt = section.text("prompt", |text| {
        let fits = !text.trim().is_empty() && text.len() <= MAX_PROMPT_BYTES;
        if fits { Ok(text.to_owned()) } else { Err(format!("must have 1 to {MAX_PROMPT_BYTES} bytes")) }
    });
    let words = section.number("prompt_words", &long_prompt::WORDS);
    if section.has("prompt") && section.has("prompt_words") {
        section.problem("prompt_words", "cannot be combined with prompt; remove one of them");
    }
    if workload == Workload::Speed {
        for key in ["prompt", "prompt_words"] {
            if section.has(key) {
                section.problem(
                    key,
                    "is not for workload = \"speed\", which has a prompt of its own; remove it",
                );
            }
        }
    }
    let avoids_cache = section
        .text("prompt_cache", |text| choice(text, &[("avoid", true), ("allow", false)]))
        .unwrap_or(true);
    let (prompt, answer) = match (workload, words, prompt) {
        (Workload::Speed, ..) => (SPEED_PROMPT.to_owned(), ExpectedAnswer::Count(SPEED_LAST_NUMBER)),
        // The nonce is one of the words.
        (_, Some(words), _) => (long_prompt::prompt(words - u32::from(avoids_cache)), ExpectedAnswer::Ok),
        (_, None, Some(prompt)) if prompt != PROMPT => (prompt, ExpectedAnswer::Any),
        _ => (PROMPT.to_owned(), ExpectedAnswer::Ok),
    };
    let is_long = words.is_some() || prompt.split_whitespace().count() >= LONG_PROMPT_WORDS;
    let prompt = if is_long && avoids_cache { format!("{PROMPT_NONCE} {prompt}") } else { prompt };
    let mut expect = section.section("expect");
    let pattern = expect.text("answer_regex", pattern);
    let model = expect.text("model", model_pattern);
    expect.finish();
    Question { prompt, answer: pattern.map_or(answer, ExpectedAnswer::Matches), model }
}

fn model_pattern(text: &str) -> Result<ModelPattern, String> {
    let fits = (1..=MAX_PATTERN_BYTES).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(ModelPattern::new(text))
    } else {
        Err(format!("{} is not a pattern of a model's name, such as \"gpt-4o*\"", shown(text)))
    }
}

/// Reads `retires`, the first moment of a UTC day.
pub(super) fn retires(section: &mut Section<'_>) -> Option<SystemTime> {
    section.text("retires", |text| {
        let day = text.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok());
        day.map(|day| day.timestamp().into()).ok_or_else(|| {
            format!("{} is not a date; write the model's shutdown date as \"2026-12-11\"", shown(text))
        })
    })
}
