//! Long prompts, to measure how latency grows with prompt size. The text for a number of words is
//! always the same.

use std::ops::RangeInclusive;

/// Allowed number of words. Use `prompt` for fewer; more fit into few models.
pub(super) const WORDS: RangeInclusive<u32> = 50..=100_000;

/// The instructions before and after the text. The question is last, because models follow the end
/// of a prompt best.
const BEFORE: &str = "What follows is filler text to be read and ignored.";
const AFTER: &str = "Ignore the text above. Reply with the single word: ok";

/// Plain words of average length, so that the estimate of tokens by bytes holds.
const FILLER: &str = "The river comes down from the hills in spring and passes three small towns before it reaches the \
    lake. In the first town there is a market every week where farmers sell bread, apples, cheese and honey. The \
    second town has an old bridge that was built of stone when trade on the water was more important than the roads. \
    People still meet there in the evening to talk about the weather and the harvest. In the third town a school \
    stands close to the shore, and children watch the boats through its windows while they learn to read and count. \
    Beyond the lake the land is flat and open, with long rows of trees that were planted against the wind.";

/// Returns a prompt of that many words, which asks for an answer of one word.
pub(super) fn prompt(words: u32) -> String {
    let instructions = BEFORE.split_whitespace().count() + AFTER.split_whitespace().count();
    let filler = FILLER.split_whitespace().cycle().take((words as usize).saturating_sub(instructions));
    let mut prompt = String::from(BEFORE);
    prompt.push_str("\n\n");
    for word in filler {
        prompt.push_str(word);
        prompt.push(' ');
    }
    prompt.push_str("\n\n");
    prompt.push_str(AFTER);
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_has_the_configured_number_of_words() {
        for words in [*WORDS.start(), 51, 200, 4000, *WORDS.end()] {
            let prompt = prompt(words);
            assert_eq!(prompt.split_whitespace().count(), words as usize);
            assert!(prompt.ends_with(AFTER));
        }
    }

    #[test]
    fn word_length_matches_the_token_estimate() {
        let bytes = prompt(4000).len() as f64 / 4000.0;
        // English prose has about 4 tokens per 3 words, and 4 bytes per token.
        assert!((5.0..5.6).contains(&bytes), "{bytes}");
    }
}
