//! Models that reason before they answer, detected by their names: reasoning alone can exhaust a
//! small token budget.
//!
//! A family that is missing here causes `no_content` with a hint. A model that is listed but does
//! not reason has no disadvantage, because it stops after its answer. In doubt, a family is listed.

use crate::outcome::Api;

/// Prefixes of the names of other services' models that reason by default.
const FAMILIES: &[&str] = &[
    "gpt-oss",
    "deepseek-reasoner",
    "deepseek-r1",
    "qwen3",
    "qwq",
    "magistral",
    "grok-3-mini",
    "grok-4",
    "glm-4.5",
    "glm-4.6",
    "glm-5",
    "minimax-m",
];

/// Parts of names of variants that do not reason, or not by default.
const NON_REASONING_MARKS: &[&str] = &["-chat", "instruct", "non-reasoning", "gemini-2.5-flash-lite"];

/// Parts of names of variants that reason.
const REASONING_MARKS: &[&str] = &["thinking", "reasoning"];

/// Returns whether a model consumes tokens for hidden reasoning. Some dialects disable it; the
/// other APIs have no parameter that all their models accept.
pub(super) fn reasons(api: Api, model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let known = Api::ALL.iter().flat_map(|api| api.profile().reasoning_models);
    let family = known.chain(FAMILIES).any(|family| name.starts_with(family));
    let is_off = (api.profile().disables_reasoning)(&name);
    !is_off && !has(NON_REASONING_MARKS) && (family || has(REASONING_MARKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(api: Api, model: &str, expected: bool) {
        assert_eq!(reasons(api, model), expected, "{model}");
    }

    #[test]
    fn reasoning_families_are_detected() {
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
    fn other_models_are_not_reasoning() {
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
