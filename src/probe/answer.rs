//! A completion's answer against what the probe expects of it: the text, and the model that gave
//! it. Of the text nothing is passed on.

use regex::bytes::Regex;

use super::{expectation::is_searched_within, model_name};
use crate::{
    api::{AnswerText, Completion, gate},
    config::{BYTES_PER_TOKEN, Chat, ExpectedAnswer, ModelPattern, Probe},
    outcome::{Detail, Reason},
};

/// The size of a compiled `expect.answer_regex` times the bytes that it searches, since the search
/// runs on the thread that times probes: some milliseconds.
const MAX_ANSWER_SEARCH: usize = 1 << 27;

/// Bytes of an answer in which "ok" is looked for, since each "o.k" moves the rest of the text.
const MAX_OK_SEARCH: usize = 8 * 1024;

/// Share of the numbers of `workload = "speed"` that may be missing at the end, as a divisor.
const MISSING_SHARE: u32 = 10;

/// Letters beside the numbers of `workload = "speed"`: room for a sentence before and after them.
const MAX_LETTERS: usize = 400;

/// Tokens of a whole answer. A count is `None` if it is not reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tokens {
    pub(super) input: Option<u64>,
    /// Of the input, those that a prompt cache served.
    pub(super) cached: Option<u64>,
    pub(super) output: Option<u64>,
    /// Whether any of them is our estimate.
    pub(super) estimated: bool,
}

impl Tokens {
    /// Takes the answer's own counts, estimated where it has none and there is something to
    /// estimate them from. Returns `None` if no such request can have taken so many.
    pub(super) fn new(chat: &Chat, completion: &Completion) -> Option<Self> {
        let Completion { usage, bytes, .. } = *completion;
        if !is_plausible(chat, usage.input, usage.output) {
            return None;
        }
        // 0 beside an answer is no count.
        let counted = |count: Option<u64>| count.filter(|count| *count > 0 || bytes == 0);
        let (input, output) = (counted(usage.input), counted(usage.output));
        let estimated = bytes > 0 && (input.is_none() || output.is_none());
        Some(Self {
            input: input.or_else(|| estimated.then(|| chat.estimated_input_tokens())),
            cached: usage.cached.filter(|cached| Some(*cached) <= input),
            output: output.or_else(|| estimated.then(|| bytes.div_ceil(BYTES_PER_TOKEN) as u64)),
            estimated,
        })
    }
}

/// Returns whether a request of this chat can have taken so many tokens.
pub(super) fn is_plausible(chat: &Chat, input: Option<u64>, output: Option<u64>) -> bool {
    gate::is_plausible_for(chat.estimated_input_tokens(), chat.max_tokens, input, output)
}

/// The model of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// The model that the response names, gated.
    pub(super) model: Option<Box<str>>,
    /// Whether it is the requested one. `None` if that cannot be decided.
    pub(super) matches: Option<bool>,
}

impl Served {
    /// Compares the name in a response with what the probe asks for. Names of deployments, at other
    /// hosts than the API's own, are compared with `expect.model` alone.
    pub(super) fn new(probe: &Probe, named: Option<&str>) -> Self {
        let Some(named) = named.and_then(model_name::gated) else { return Self::default() };
        let matches = match (expected_model(probe), &probe.model) {
            (Some(pattern), _) => Some(pattern.matches(named)),
            (None, Some(model)) if probe.provider.is_on_own_host() => model_name::is_requested(model, named),
            _ => None,
        };
        Self { model: Some(named.into()), matches }
    }
}

fn expected_model(probe: &Probe) -> Option<&ModelPattern> {
    probe.chat()?.expected_model.as_ref()
}

/// Returns what of the expectation a complete answer does not meet. Returns `None` if it meets all.
pub(super) fn unmet(probe: &Probe, text: &AnswerText, served: &Served) -> Option<(Reason, Detail)> {
    let unmet = |what| Some((Reason::UnmetExpectation, what));
    if expected_model(probe).is_some() {
        match (&served.model, served.matches) {
            (None, _) => return unmet(Detail::NoModelName),
            (_, Some(false)) => return unmet(Detail::ModelDiffers),
            _ => {}
        }
    }
    unmet_text(probe.chat()?, text)
}

fn unmet_text(chat: &Chat, text: &AnswerText) -> Option<(Reason, Detail)> {
    let wrong = |what| Some((Reason::WrongAnswer, what));
    match &chat.expected_answer {
        ExpectedAnswer::Any => None,
        ExpectedAnswer::Ok if says_ok(text.without_thoughts()) => None,
        ExpectedAnswer::Ok => wrong(Detail::NoOk),
        ExpectedAnswer::Count(last) if counts_to(text.without_thoughts(), *last) => None,
        ExpectedAnswer::Count(_) => wrong(Detail::NoCount),
        ExpectedAnswer::Matches(pattern) => unmet_pattern(pattern, text.without_thoughts()),
    }
}

fn unmet_pattern(pattern: &Regex, text: &str) -> Option<(Reason, Detail)> {
    let what = if !is_searched_within(pattern, text.len(), MAX_ANSWER_SEARCH) {
        Detail::AnswerTooLargeForRegex(text.len() >> 10)
    } else if pattern.is_match(text.as_bytes()) {
        return None;
    } else {
        Detail::AnswerDiffers
    };
    Some((Reason::UnmetExpectation, what))
}

/// Returns whether a text has the word "ok" or "okay". Case, punctuation and formatting do not
/// count, nor does the alphabet of letters with the same shape.
fn says_ok(text: &str) -> bool {
    let end = (0..=MAX_OK_SEARCH.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    let text = &text[..end.unwrap_or(0)];
    let mut folded: Vec<char> = text.chars().filter(|c| !is_formatting(*c)).map(fold).collect();
    // "O.K." and "O. K." are the word, too.
    for at in (1..folded.len()).rev() {
        if folded[at] == '.' && folded[at - 1] == 'o' {
            let next = folded[at + 1..].iter().position(|c| *c != ' ');
            if next.is_some_and(|next| next <= 1 && folded[at + 1 + next] == 'k') {
                folded.drain(at..=at + next.unwrap_or(0));
            }
        }
    }
    ["ok", "okay"].iter().any(|word| {
        let word: Vec<char> = word.chars().collect();
        folded.windows(word.len()).enumerate().any(|(at, window)| {
            let before = at.checked_sub(1).and_then(|before| folded.get(before));
            let after = folded.get(at + word.len());
            window == word && ![before, after].into_iter().flatten().any(|c| is_of_word(*c))
        })
    }) || text.contains('\u{1f197}')
}

/// Returns whether a character formats the text or is invisible: Markdown's marks, joiners,
/// variation selectors.
fn is_formatting(c: char) -> bool {
    matches!(c, '*' | '_' | '~' | '`' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
}

/// Returns the lower case, and for full-width, Cyrillic, Greek and mathematical letters with the
/// shape of those in "okay", the Latin letters.
fn fold(c: char) -> char {
    let plain = match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{1d400}'..='\u{1d6a3}' => {
            // 13 alphabets of capital and small letters.
            let letter = (u32::from(c) - 0x1d400) % 52;
            char::from_u32(if letter < 26 { 0x41 + letter } else { 0x61 + letter - 26 }).unwrap_or(c)
        }
        _ => c,
    };
    match plain.to_lowercase().next().unwrap_or(plain) {
        '\u{43e}' | '\u{3bf}' => 'o',
        '\u{43a}' | '\u{3ba}' => 'k',
        '\u{430}' | '\u{3b1}' => 'a',
        '\u{443}' | '\u{3c5}' => 'y',
        lower => lower,
    }
}

/// Returns whether a neighbour makes "ok" a part of a longer word. Languages that are written
/// without spaces, or append their endings to foreign words, begin after Cyrillic.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() && c < '\u{530}'
}

/// Returns whether a text has the numbers from 1 on in their order, nearly up to the last, and
/// little else.
fn counts_to(text: &str, last: u32) -> bool {
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    let (mut next, mut others) = (1, 0);
    for number in numbers {
        if number.parse::<u32>() == Ok(next) {
            next += 1;
        } else {
            others += 1;
        }
    }
    letters <= MAX_LETTERS && others <= last / MISSING_SHARE && next > last - last / MISSING_SHARE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(text: &str) -> AnswerText {
        std::iter::once(text.to_owned()).collect()
    }

    /// Words before the answer.
    const INTRODUCTIONS: &[&str] = &[
        "",
        "Sure! ",
        "Of course: ",
        "Certainly, here you go: ",
        "Here is the word you asked for:\n\n",
        "Natürlich: ",
        "Gerne! ",
        "D'accord : ",
        "Bien sûr ! ",
        "Por supuesto: ",
        "¡Claro! ",
        "Certo! ",
        "Claro, ",
        "好的，",
        "当然：",
        "はい、",
        "もちろんです。",
        "물론입니다. ",
        "Конечно: ",
        "Хорошо, ",
        "بالتأكيد: ",
        "निश्चित रूप से: ",
        "แน่นอน ",
        "Tabii, ",
        "Oczywiście: ",
        "<think>\nOne word.\n</think>\n\n",
    ];

    /// Text before and after the word.
    const MARKS: &[(&str, &str)] = &[
        ("", ""),
        ("", "."),
        ("", "!"),
        ("", "\n"),
        ("**", "**"),
        ("*", "*"),
        ("_", "_"),
        ("`", "`"),
        ("```\n", "\n```"),
        ("\"", "\""),
        ("'", "'"),
        ("“", "”"),
        ("«", "»"),
        ("「", "」"),
        ("> ", ""),
        ("# ", ""),
        ("- ", ""),
        ("<b>", "</b>"),
        ("\\boxed{", "}"),
        ("\\text{", "}"),
        ("(", ")"),
        ("", " 👍"),
        ("{\"answer\": \"", "\"}"),
        ("", "。"),
        ("~~", "~~"),
        ("__", "__"),
        ("  ", "  "),
        ("", ", master"),
    ];

    /// Returns answers that a model may give to the built-in prompt.
    fn good_answers() -> Vec<String> {
        let words = ["ok", "OK", "Ok", "oK", "okay", "Okay", "OKAY", "O.K.", "o.k.", "O. K."];
        let mut answers = Vec::new();
        for word in words {
            for introduction in INTRODUCTIONS {
                for (before, after) in MARKS {
                    answers.push(format!("{introduction}{before}{word}{after}"));
                }
            }
        }
        answers
    }

    #[test]
    fn plausible_good_answers_are_accepted() {
        let answers = good_answers();
        assert!(answers.len() >= 1000);
        let refused: Vec<&String> =
            answers.iter().filter(|answer| !says_ok(kept(answer).without_thoughts())).collect();
        assert!(refused.is_empty(), "{} of {}: {refused:#?}", refused.len(), answers.len());
    }

    #[test]
    fn ok_in_other_letters_and_scripts_is_accepted() {
        for answer in [
            "ＯＫ",
            "ok。",
            "OKです",
            "はい、OKです。",
            "OK입니다",
            "okครับ",
            "ОК",
            "Ок.",
            "ок",
            "окay",
            "ΟΚ",
            "🆗",
            "𝐨𝐤",
            "𝗢𝗞",
            "o\u{200b}k",
            "\u{feff}ok",
            "ok\u{fe0f}",
            "**O**K",
            "OK/okay",
            "ok-",
            "ok…",
            "ok\u{2014}done",
            "The answer is ok",
            "OK, OK, OK",
            "ok'dur",
            "\u{202a}ok\u{202c}",
            "[ok]",
            "ok\0",
        ] {
            assert!(says_ok(answer), "{answer:?}");
        }
    }

    #[test]
    fn garbage_and_other_words_are_refused() {
        for answer in [
            "",
            " ",
            "o",
            "k",
            "o k",
            "K O",
            "no",
            "yes",
            "Yes.",
            "zxqv 12 !!",
            "book",
            "token",
            "broken",
            "okapi",
            "okays",
            "Tokyo",
            "ok1",
            "2ok",
            "ookk",
            "ko",
            "oké",
            "okey",
            "smoke",
            "joke",
            "Bangkok",
            "OKLAHOMA",
            "好的",
            "はい",
            "d'accord",
            "хорошо",
            "okok",
            "окно",
            "срок",
            "урок",
            "Παροκ",
            "The capital of France is Paris.",
            "I'm sorry, but I can't help with that.",
            "{\"error\":\"overloaded\"}",
            "<html></html>",
            "สวัสดี",
            "��",
            "<think>The user wants the word ok.</think>\n\nzxqv",
            "mo.k.",
            "0K",
            "0k.",
            "O,K",
            "ol",
            "oK3",
        ] {
            assert!(!says_ok(kept(answer).without_thoughts()), "{answer:?}");
        }
    }

    fn numbers(range: std::ops::RangeInclusive<u32>, separator: &str) -> String {
        range.map(|number| number.to_string()).collect::<Vec<_>>().join(separator)
    }

    #[test]
    fn numbers_in_their_order_are_accepted() {
        for separator in [" ", ", ", "\n", ",", " - ", "、"] {
            assert!(counts_to(&numbers(1..=200, separator), 200), "{separator:?}");
        }
        let answer = format!("Sure! Here are the numbers from 1 to 200:\n\n{}", numbers(1..=200, " "));
        assert!(counts_to(&answer, 200));
        assert!(counts_to(&format!("```\n{}\n```\nDone.", numbers(1..=200, "\n")), 200));
        // A model that stops a little early has counted; one that leaves numbers out has not.
        assert!(counts_to(&numbers(1..=190, " "), 200));
    }

    #[test]
    fn other_numbers_are_refused() {
        let shuffled =
            numbers(1..=100, " ") + " " + &numbers(150..=200, " ") + " " + &numbers(101..=149, " ");
        let prose = "word ".repeat(200) + &numbers(1..=200, " ");
        let doubled = numbers(1..=200, " 7 ");
        let glued = numbers(1..=200, "");
        for answer in [
            "",
            "1, 2, 3, …, 200",
            "ok",
            &numbers(1..=100, " "),
            &numbers(2..=200, " "),
            &shuffled,
            &prose,
            &doubled,
            &glued,
        ] {
            assert!(!counts_to(answer, 200), "{answer}");
        }
    }

    proptest! {
        #[test]
        fn random_words_without_ok_are_refused(words in "([a-jl-z]{1,9}[ .,!?]{1,2}){0,40}") {
            prop_assert!(!says_ok(&words));
        }

        #[test]
        fn random_text_panics_nowhere(text in ".{0,200}", last in 1..500_u32) {
            says_ok(kept(&text).without_thoughts());
            counts_to(&text, last);
        }
    }
}
