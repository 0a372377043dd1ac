//! Text from the network that may be put into records and labels: codes and names from closed sets,
//! and IDs of a plain form.

use std::{borrow::Cow, time::Duration};

use serde_json::Value;

use crate::outcome::{Api, Fault, OTHER};

/// Documented codes, types and statuses of imitators of `OpenAI`. Those of each API are in its
/// file.
const IMITATORS_CODES: &[&str] = &[
    "AccountOverdueError",
    "Arrearage",
    "NOT_ENOUGH_BALANCE",
    "PRECONDITION_FAILED",
    "budget_exceeded",
    "engine_overloaded",
    "engine_overloaded_error",
    "exceeded_current_quota_error",
    "insufficient_user_quota",
    "key_model_access_denied",
    "model_not_available",
    "request_quota_exceeded",
    "throttling_error",
    "token_quota_exceeded",
    "too_many_requests",
    "too_many_requests_error",
    "unknown_model",
];

/// Areas in LangMart's `GATEWAY1_AREA_001` and `API_AREA_001`.
const AREAS: &[&str] = &[
    "AUTH",
    "BILLING",
    "CONN",
    "INTERNAL",
    "LIMIT",
    "MODEL",
    "POOL",
    "PROVIDER",
    "QUOTA",
    "RATE",
    "ROUTING",
    "TIMEOUT",
    "VALIDATION",
];

/// Spellings of providers behind gateways, in lower case without separators, and the exported name.
/// The names of the [`Api`]s that are providers are known without it.
const PROVIDERS: &[(&str, &str)] = &[
    ("ai21", "ai21"),
    ("alibaba", "alibaba"),
    ("amazonbedrock", "bedrock"),
    ("azure", "azure"),
    ("azureopenai", "azure"),
    ("baseten", "baseten"),
    ("bedrock", "bedrock"),
    ("cerebras", "cerebras"),
    ("cloudflare", "cloudflare"),
    ("cohere", "cohere"),
    ("deepinfra", "deepinfra"),
    ("deepseek", "deepseek"),
    ("fireworks", "fireworks"),
    ("friendli", "friendli"),
    ("gemini", "google"),
    ("googleaistudio", "google"),
    ("googlevertex", "vertex"),
    ("huggingface", "huggingface"),
    ("hyperbolic", "hyperbolic"),
    ("meta", "meta"),
    ("minimax", "minimax"),
    ("mistral", "mistral"),
    ("moonshotai", "moonshot"),
    ("nebius", "nebius"),
    ("novita", "novita"),
    ("novitaai", "novita"),
    ("nvidia", "nvidia"),
    ("ollama", "ollama"),
    ("openrouter", "openrouter"),
    ("perplexity", "perplexity"),
    ("replicate", "replicate"),
    ("sambanova", "sambanova"),
    ("together", "together"),
    ("vertex", "vertex"),
    ("xai", "xai"),
];

/// Returns an error code as records and labels may contain it.
pub(crate) fn error_code(code: &str) -> Cow<'static, str> {
    let documented = Api::ALL.iter().flat_map(|api| api.profile().error_codes);
    if let Some(known) = documented.chain(IMITATORS_CODES).find(|known| **known == code) {
        return Cow::Borrowed(known);
    }
    if langmart_provider(code).is_some_and(|provider| provider != OTHER) || langmart_area(code).is_some() {
        return Cow::Owned(code.to_owned());
    }
    Cow::Borrowed(OTHER)
}

/// Returns the provider in `PROVIDER_<NAME>_<nnn>`, or [`OTHER`] if it is unknown. Returns `None`
/// for any other code.
pub(crate) fn langmart_provider(code: &str) -> Option<&'static str> {
    let (name, _) = provider_and_status(code)?;
    let spelled = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    // Words of one letter and doubled separators would be other spellings of one code.
    let words = name.split('_').all(|word| word.len() > 1);
    if !words || !name.chars().all(spelled) {
        return None;
    }
    Some(provider(name).unwrap_or(OTHER))
}

/// Returns the provider's status in `PROVIDER_<NAME>_<nnn>`. Returns `None` for any other code.
pub(crate) fn langmart_status(code: &str) -> Option<u16> {
    let (_, status) = provider_and_status(code)?;
    status.parse().ok()
}

fn provider_and_status(code: &str) -> Option<(&str, &str)> {
    code.strip_prefix("PROVIDER_")?.rsplit_once('_').filter(|(_, status)| three_digits(status))
}

/// Returns the area in `GATEWAY_<AREA>_<nnn>`, `GATEWAY<digit>_<AREA>_<nnn>` or `API_<AREA>_<nnn>`.
/// Returns `None` if it is unknown.
pub(crate) fn langmart_area(code: &str) -> Option<&'static str> {
    let (plane, rest) = code.split_once('_')?;
    let (area, number) = rest.rsplit_once('_')?;
    let gateway = plane.strip_prefix("GATEWAY").is_some_and(|digit| {
        digit.is_empty() || digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit())
    });
    if !(gateway || plane == "API") || !three_digits(number) {
        return None;
    }
    AREAS.iter().find(|known| **known == area).copied()
}

/// Returns the exported name of a provider, by a gateway's spelling. Returns `None` if it is
/// unknown.
pub(crate) fn provider(spelled: &str) -> Option<&'static str> {
    const MAX_NAME_BYTES: usize = 32;
    if spelled.len() > MAX_NAME_BYTES {
        return None;
    }
    let plain: String =
        spelled.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let direct = Api::ALL.iter().filter(|api| api.endpoint() == Fault::Provider);
    let ours = direct.map(|api| api.name()).find(|name| *name == plain);
    ours.or_else(|| PROVIDERS.iter().find(|(known, _)| *known == plain).map(|(_, name)| *name))
}

/// Returns a request ID of 1 to 128 plain characters. Returns `None` for any other text.
pub(crate) fn request_id(id: &str) -> Option<String> {
    is_plain_name(id).then(|| id.to_owned())
}

/// Returns whether a text is a name of 1 to 128 plain characters.
pub(crate) fn is_plain_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
}

/// Returns a reported number of tokens of any size; [`is_plausible_for`] keeps hostile ones out of
/// sums. A number that is not a count becomes the maximum, so that it is refused as well.
pub(crate) fn tokens(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    let whole = number >= 0.0 && number.fract() == 0.0 && number < 1e15;
    Some(value.as_u64().unwrap_or(if whole { number as u64 } else { u64::MAX }))
}

/// Returns whether a request with this prompt and limit can have consumed so many tokens. There is
/// room for roles, marks and reasoning, which services count differently.
pub(crate) fn is_plausible_for(
    prompt_tokens: u64,
    max_tokens: u32,
    input: Option<u64>,
    output: Option<u64>,
) -> bool {
    const ROOM: u64 = 4096;
    let most_input = 8 * prompt_tokens + ROOM;
    let most_output = 4 * u64::from(max_tokens) + ROOM;
    input.is_none_or(|tokens| tokens <= most_input) && output.is_none_or(|tokens| tokens <= most_output)
}

/// Returns a processing time if it is plausible.
pub(crate) fn processing(seconds: f64) -> Option<Duration> {
    const MAX_SECONDS: f64 = 86_400.0;
    (0.0..=MAX_SECONDS).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// Returns an amount of money if it is plausible, in any currency. A debt is negative.
pub(crate) fn money(value: &Value) -> Option<f64> {
    const MAX_AMOUNT: f64 = 1e9;
    value.as_f64().filter(|amount| amount.abs() <= MAX_AMOUNT)
}

fn three_digits(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_code(code: &str, expected: &str) {
        assert_eq!(error_code(code), expected, "{code}");
    }

    #[test]
    fn codes_pass_by_name_or_pattern_only() {
        for known in ["invalid_api_key", "overloaded_error", "RESOURCE_EXHAUSTED", "tokens"] {
            check_code(known, known);
        }
        for patterned in
            ["GATEWAY1_AUTH_001", "GATEWAY_TIMEOUT_001", "GATEWAY3_CONN_999", "API_VALIDATION_001"]
        {
            check_code(patterned, patterned);
        }
        check_code("PROVIDER_OPENAI_429", "PROVIDER_OPENAI_429");
        check_code("PROVIDER_GOOGLE_401", "PROVIDER_GOOGLE_401");
        for foreign in [
            "",
            "sk-live-1234",
            "INVALID_API_KEY",
            "PROVIDER_EVIL_429",
            "PROVIDER_OPENAI_42",
            "PROVIDER_OPENAI_4290",
            "PROVIDER_openai_429",
            "PROVIDER__429",
            "GATEWAY12_AUTH_001",
            "GATEWAYX_AUTH_001",
            "GATEWAY1_EVIL_001",
            "GATEWAY1_AUTH_0x1",
            "API__001",
            "<script>",
        ] {
            check_code(foreign, OTHER);
        }
    }

    #[test]
    fn providers_are_known_in_any_spelling() {
        assert_eq!(provider("OpenAI"), Some("openai"));
        assert_eq!(provider("Google AI Studio"), Some("google"));
        assert_eq!(provider("Amazon Bedrock"), Some("bedrock"));
        assert_eq!(provider("Example"), None);
        assert_eq!(provider("LangMart"), None);
        for api in Api::ALL.iter().filter(|api| **api != Api::Langmart) {
            assert_eq!(provider(api.name()), Some(api.name()));
        }
        assert_eq!(provider(&"openai".repeat(100)), None);
        assert_eq!(langmart_provider("PROVIDER_ANTHROPIC_401"), Some("anthropic"));
        assert_eq!(langmart_provider("PROVIDER_NEWCOMER_500"), Some(OTHER));
        assert_eq!(langmart_provider("GATEWAY1_AUTH_001"), None);
    }

    #[test]
    fn implausible_money_is_refused() {
        let money = |text: &str| money(&serde_json::from_str(text).unwrap());
        assert_eq!(money("12.5"), Some(12.5));
        assert_eq!(money("-0.05"), Some(-0.05));
        assert_eq!(money("0"), Some(0.0));
        for foreign in ["1e10", "-1e300", "\"12.5\"", "null", "[1]", "true"] {
            assert_eq!(money(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn request_ids_have_a_plain_form() {
        assert_eq!(request_id("req_011CF.x:y-z").as_deref(), Some("req_011CF.x:y-z"));
        assert_eq!(request_id(&"a".repeat(128)).map(|id| id.len()), Some(128));
        for foreign in ["", "a b", "a\"b", "a<b", "ü", &"a".repeat(129)] {
            assert_eq!(request_id(foreign), None, "{foreign}");
        }
    }
}
