//! The simulated services: one file for each, with its endpoints, checks, errors, headers and
//! streams.
//!
//! To add one, add its file, which implements [`service::Service`], and its lines here.

mod anthropic;
mod chunks;
mod google;
mod groq;
mod langmart;
mod limits;
mod openai;
mod openrouter;
mod service;
mod status_page;
mod stream;

#[cfg(test)]
use self::service::SampleChat;
use self::service::Service;
pub(super) use self::{
    service::{Call, Failure, failure, faulty_stream, success},
    status_page::status_page,
};

/// A simulated service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SimulatedService {
    /// LangMart's gateway.
    Langmart,
    /// `OpenAI`, and Azure, with the key in `api-key`.
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

impl SimulatedService {
    /// All services.
    pub const ALL: [Self; 6] =
        [Self::Langmart, Self::Openai, Self::Anthropic, Self::Groq, Self::Google, Self::Openrouter];

    fn service(self) -> &'static dyn Service {
        match self {
            Self::Langmart => &langmart::Langmart,
            Self::Openai => &openai::Openai,
            Self::Anthropic => &anthropic::Anthropic,
            Self::Groq => &groq::Groq,
            Self::Google => &google::Google,
            Self::Openrouter => &openrouter::Openrouter,
        }
    }

    /// Returns the name in scenarios.
    pub fn name(self) -> &'static str {
        self.service().facts().name
    }

    /// Returns the service of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == name)
    }

    /// Returns the path of the base URL of this service.
    pub fn prefix(self) -> &'static str {
        self.service().facts().prefix
    }

    /// Returns the path of the status page of this service.
    pub fn status_path(self) -> &'static str {
        self.service().facts().status_path
    }

    /// Returns a valid chat of the tests, with their key.
    #[cfg(test)]
    pub(super) fn sample_chat(self) -> SampleChat {
        self.service().sample_chat()
    }

    /// Returns the number of blocks after the last token in a stream of three tokens.
    #[cfg(test)]
    pub(super) fn blocks_after_tokens(self) -> usize {
        self.service().blocks_after_tokens()
    }

    /// Returns the service that a path addresses, and the rest of the path.
    pub(in crate::simulator) fn of_path(path: &str) -> Option<(Self, &str)> {
        let prefixes = Self::ALL.into_iter().map(|provider| (provider, provider.prefix()));
        // Google's SDK addresses the first version by default.
        prefixes.chain([(Self::Google, "/google/v1")]).find_map(|(provider, prefix)| {
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((provider, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_addresses_a_service_by_whole_segments() {
        assert_eq!(
            SimulatedService::of_path("/openai/v1/models"),
            Some((SimulatedService::Openai, "/models"))
        );
        assert_eq!(SimulatedService::of_path("/groq/openai/v1"), Some((SimulatedService::Groq, "")));
        assert_eq!(
            SimulatedService::of_path("/google/v1/models"),
            Some((SimulatedService::Google, "/models"))
        );
        assert_eq!(
            SimulatedService::of_path("/google/v1beta/models"),
            Some((SimulatedService::Google, "/models"))
        );
        assert_eq!(SimulatedService::of_path("/openai/v12/models"), None);
        assert_eq!(SimulatedService::of_path("/"), None);
    }
}
