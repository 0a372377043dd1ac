//! A prompt cache as providers have it: what a prompt has in common with an earlier one, from its
//! beginning, costs no time.

use std::collections::VecDeque;

/// Prompts that are remembered; older ones are forgotten.
const MAX_PROMPTS: usize = 64;
/// Cached tokens come in blocks of this size.
const BLOCK_TOKENS: usize = 64;
/// Bytes of a token, as the simulated services count them.
const BYTES_PER_TOKEN: usize = 4;

/// The prompts of earlier calls, with the model of each.
#[derive(Debug, Default)]
pub(super) struct PromptCache(VecDeque<(String, String)>);

impl PromptCache {
    /// Returns how many tokens of a prompt the cache has, and remembers the prompt.
    pub(super) fn visit(&mut self, model: &str, prompt: String) -> usize {
        let earlier = self.0.iter().filter(|(known, _)| known == model);
        let common = earlier.map(|(_, known)| common_bytes(known, &prompt)).max().unwrap_or(0);
        self.0.push_back((model.to_owned(), prompt));
        if self.0.len() > MAX_PROMPTS {
            self.0.pop_front();
        }
        common / BYTES_PER_TOKEN / BLOCK_TOKENS * BLOCK_TOKENS
    }
}

fn common_bytes(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_those_of_the_common_beginning() {
        let mut cache = PromptCache::default();
        let long = "word ".repeat(400);
        assert_eq!(cache.visit("m", long.clone()), 0);
        assert_eq!(cache.visit("m", long.clone()), 448);
        assert_eq!(cache.visit("m", format!("{}{long}", &long[..1000])), 448);
        assert_eq!(cache.visit("m", format!("x {long}")), 0);
        assert_eq!(cache.visit("other", long.clone()), 0);
        for number in 0..MAX_PROMPTS {
            cache.visit("m", number.to_string());
        }
        assert_eq!(cache.visit("m", long), 0);
    }
}
