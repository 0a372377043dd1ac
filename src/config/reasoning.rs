//! Which models reason before they answer, as far as their names tell: a small token budget is used up by that alone.
//!
//! A name that is missing here costs a `no_content` with a hint; a name that does not reason costs nothing, since a
//! model stops when it has answered. So in doubt a family is listed.

use crate::outcome::Api;

/// How the names of families begin that reason unless they are told not to.
const FAMILIES: &[&str] = &[
    "o1",
    "o3",
    "o4",
    "gpt-5",
    "gpt-oss",
    "deepseek-reasoner",
    "deepseek-r1",
    "gemini-2.5-pro",
    "gemini-2.5-flash",
    "gemini-3",
    "gemini-pro-latest",
    "gemini-flash-latest",
    "qwen3",
    "qwq",
    "magistral",
    "grok-3-mini",
    "grok-4",
    "glm-4.5",
    "glm-4.6",
    "glm-5",
    "minimax-m",
    "claude-haiku-5",
    "claude-sonnet-5",
    "claude-opus-5",
];

/// Parts of names by which providers mark a variant that does not reason, or whose reasoning is off by default.
const WITHOUT: &[&str] = &["-chat", "instruct", "non-reasoning", "gemini-2.5-flash-lite"];

/// Parts of names by which providers mark a variant that does.
const WITH: &[&str] = &["thinking", "reasoning"];

/// Whether a model uses up tokens for reasoning that nobody sees. The dialects of Anthropic and, for Gemini 2.5 Flash,
/// of Google switch it off; the other APIs have no parameter for it that all their models take.
pub(super) fn reasons(api: Api, model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let is_off = api == Api::Anthropic || is_switched_off_at_google(api, &name);
    let family = FAMILIES.iter().any(|family| name.starts_with(family));
    !is_off && !has(WITHOUT) && (family || has(WITH))
}

fn is_switched_off_at_google(api: Api, name: &str) -> bool {
    api == Api::Google && name == "gemini-2.5-flash"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(api: Api, model: &str, expected: bool) {
        assert_eq!(reasons(api, model), expected, "{model}");
    }

    #[test]
    fn families_that_reason_are_known_by_any_of_their_names() {
        for model in [
            "o3",
            "o4-mini",
            "gpt-5.6-luna",
            "openai/gpt-5-mini",
            "openai/gpt-oss-20b",
            "alice/openai/o3",
            "deepseek-reasoner",
            "deepseek/deepseek-r1:free",
            "accounts/fireworks/models/deepseek-r1",
            "Qwen/Qwen3-32B",
            "google/gemini-2.5-flash",
            "moonshotai/kimi-k2-thinking",
            "magistral-small-latest",
            "anthropic/claude-haiku-5-5",
            "grok-4-fast-reasoning",
        ] {
            check(Api::Openrouter, model, true);
        }
        check(Api::Google, "gemini-2.5-pro", true);
        check(Api::Google, "models/gemini-3-pro-preview", true);
    }

    #[test]
    fn the_others_keep_their_small_budget() {
        for model in [
            "gpt-4o-mini",
            "openai/gpt-4o-mini",
            "omni-moderation",
            "llama-3.1-8b-instant",
            "mistralai/mistral-nemo",
            "gpt-5-chat-latest",
            "qwen/qwen3-235b-a22b-instruct-2507",
            "google/gemini-2.5-flash-lite",
            "anthropic/claude-haiku-4.5",
            "grok-4-fast-non-reasoning",
            "",
        ] {
            check(Api::Langmart, model, false);
        }
        check(Api::Anthropic, "claude-haiku-5-5", false);
        check(Api::Google, "gemini-2.5-flash", false);
        check(Api::Google, "models/gemini-2.5-flash", false);
    }
}
