//! Facts about one API, as data.

use url::Url;

/// Facts about one API.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Profile {
    /// Name for display.
    pub display_name: &'static str,
    /// The default base URL, to which the paths are appended.
    pub base_url: &'static str,
    /// Whether a trailing `/v1` of a base URL is dropped.
    pub drops_version: bool,
    /// Whether other services use the dialect, with accounts and pages of their own.
    pub is_imitated: bool,
    /// Whether such a service may work without a key.
    pub may_be_keyless: bool,
    /// Whether servers at other hosts use the API's own keys.
    pub keys_belong_to_api: bool,
    /// Header of the key, in lower case.
    pub key_header: &'static str,
    /// Text before the key in its header.
    pub key_scheme: &'static str,
    /// Documented prefixes of keys.
    pub key_prefixes: &'static [&'static str],
    /// Remedy for a rejected key. `None` for the remedy of the reason.
    pub key_remedy: Option<&'static str>,
    /// Remedy for a rejected key that a gateway stores for a provider.
    pub stored_key_remedy: &'static str,
    /// Page on which keys are created. `None` if it is in a dashboard without such an address.
    pub keys_page: Option<&'static str>,
    /// Page on which limits are shown and raised. `None` if there is none.
    pub limits_page: Option<&'static str>,
    /// Status page for people. `None` if none is known.
    pub status_page: Option<&'static str>,
    /// Status page as data. `None` if none is known in a supported format.
    pub status_data: Option<&'static str>,
    /// Remedy that points to the errors of other requests. `None` if there is none.
    pub error_log: Option<&'static str>,
    /// Headers of every request.
    pub fixed_headers: &'static [(&'static str, &'static str)],
    /// The paths.
    pub paths: ApiPaths,
    /// Whether it accepts `max_tokens_parameter` and `include_usage`.
    pub takes_openai_parameters: bool,
    /// Whether it deprecates `max_tokens` in favour of `max_completion_tokens`.
    pub deprecates_max_tokens: bool,
    /// Name prefixes of its models that reason unless the request disables it.
    pub reasoning_models: &'static [&'static str],
    /// Returns whether the request disables the reasoning of a model.
    pub disables_reasoning: fn(&str) -> bool,
    /// Documented error codes, types and statuses.
    pub error_codes: &'static [&'static str],
}

impl Profile {
    /// `OpenAI`'s conventions, which most APIs imitate.
    pub(super) const OPENAI: Self = Self {
        display_name: "",
        base_url: "",
        drops_version: false,
        is_imitated: false,
        may_be_keyless: false,
        keys_belong_to_api: false,
        key_header: "authorization",
        key_scheme: "Bearer ",
        key_prefixes: &[],
        key_remedy: None,
        stored_key_remedy: "the provider key stored in the gateway is bad: replace it there",
        keys_page: None,
        limits_page: None,
        status_page: None,
        status_data: None,
        error_log: None,
        fixed_headers: &[],
        paths: ApiPaths::OPENAI,
        takes_openai_parameters: true,
        deprecates_max_tokens: false,
        reasoning_models: &[],
        disables_reasoning: |_| false,
        error_codes: &[],
    };

    /// Returns the default base URL.
    pub fn default_url(&self) -> Url {
        Url::parse(self.base_url).expect("the base URL of a profile is a URL")
    }

    /// Returns whether a host is the API's own.
    pub fn is_at(&self, host: &str) -> bool {
        self.default_url().host_str() == Some(host)
    }
}

/// The paths of an API, appended to the base URL.
#[derive(Clone, Copy, Debug)]
pub struct ApiPaths {
    /// Health check without a key. `None` if there is none.
    pub health: Option<&'static str>,
    /// Check of the key.
    pub auth: &'static str,
    /// Model list.
    pub models: &'static str,
    /// Completion. `MODEL` stands for the model's name.
    pub chat: &'static str,
    /// Streamed completion.
    pub stream: &'static str,
    /// Balance of the account. `None` if there is none.
    pub balance: Option<&'static str>,
}

impl ApiPaths {
    /// `OpenAI`'s paths.
    pub(super) const OPENAI: Self = Self {
        health: None,
        auth: "/models",
        models: "/models",
        chat: "/chat/completions",
        stream: "/chat/completions",
        balance: None,
    };
}

/// Request member that limits the tokens of an answer of an OpenAI-compatible API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokensParameter {
    /// `max_tokens`: the old name, which reasoning models reject.
    MaxTokens,
    /// `max_completion_tokens`: the new name, which other implementations may not know.
    MaxCompletionTokens,
}
