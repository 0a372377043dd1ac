//! The services that are simulated.

/// One simulated service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// The gateway.
    Langmart,
    /// `OpenAI`, also as Azure would be addressed: it takes its key in `api-key`, too.
    Openai,
    /// Anthropic's Messages API.
    Anthropic,
    /// Groq.
    Groq,
    /// The Gemini developer API.
    Google,
    /// The `OpenRouter` gateway.
    Openrouter,
}

impl Provider {
    /// Every service.
    pub const ALL: [Self; 6] =
        [Self::Langmart, Self::Openai, Self::Anthropic, Self::Groq, Self::Google, Self::Openrouter];

    /// The name in scenarios.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Langmart => "langmart",
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Groq => "groq",
            Self::Google => "google",
            Self::Openrouter => "openrouter",
        }
    }

    /// The service of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }

    /// What a base URL has behind the address to reach this service.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Langmart => "/langmart",
            Self::Openai => "/openai/v1",
            Self::Anthropic => "/anthropic",
            Self::Groq => "/groq/openai/v1",
            Self::Google => "/google/v1beta",
            Self::Openrouter => "/openrouter/api/v1",
        }
    }

    /// The service that a path addresses, and the rest of the path.
    pub(in crate::simulator) fn of_path(path: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|provider| {
            let rest = path.strip_prefix(provider.prefix())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((provider, rest))
        })
    }

    /// The models that it has without a scenario's help.
    pub(super) const fn models(self) -> &'static [&'static str] {
        match self {
            Self::Langmart => &[
                "openai/gpt-4o-mini",
                "openai/gpt-5.6-luna",
                "anthropic/claude-haiku-4-5-20251001",
                "groq/llama-3.1-8b-instant",
                "google/gemini-2.5-flash-lite",
                "auto",
            ],
            // The last two stand for DeepSeek and Mistral, who speak its dialect with differences.
            Self::Openai => {
                &["gpt-4o-mini", "gpt-4o", "gpt-5.6-luna", "deepseek-reasoner", "magistral-small-latest"]
            }
            Self::Anthropic => &["claude-haiku-4-5-20251001", "claude-haiku-5-5"],
            Self::Groq => &["openai/gpt-oss-20b", "llama-3.1-8b-instant"],
            Self::Google => &["gemini-2.5-flash-lite", "gemini-2.5-flash"],
            Self::Openrouter => &["mistralai/mistral-nemo", "openai/gpt-oss-20b"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_addresses_a_service_by_whole_segments() {
        assert_eq!(Provider::of_path("/openai/v1/models"), Some((Provider::Openai, "/models")));
        assert_eq!(Provider::of_path("/groq/openai/v1"), Some((Provider::Groq, "")));
        assert_eq!(Provider::of_path("/openai/v12/models"), None);
        assert_eq!(Provider::of_path("/"), None);
    }
}
