//! Groq: `OpenAI`'s dialect, with daily request limits.

use super::{Dialect, Profile};

/// Facts about the API.
pub(super) const PROFILE: Profile = Profile {
    display_name: "Groq",
    base_url: "https://api.groq.com/openai/v1",
    key_prefixes: &["gsk_"],
    keys_page: Some("https://console.groq.com/keys"),
    limits_page: Some("https://console.groq.com/settings/limits"),
    status_page: Some("https://groqstatus.com"),
    status_data: Some("https://groqstatus.com/api/v2/summary.json"),
    deprecates_max_tokens: true,
    ..Profile::OPENAI
};

/// Dialect of the API.
pub(super) struct Groq;

impl Dialect for Groq {
    fn limits_requests_by_day(&self) -> bool {
        true
    }
}
