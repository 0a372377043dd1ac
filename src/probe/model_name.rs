//! Comparison of the model's name in a response with the requested one.
//!
//! Services answer with a name of their own: the snapshot behind an alias, another prefix, another
//! order. Both names are taken apart, and what the answer adds to them without naming another model
//! is removed.

/// Bytes of a name; real ones have some forty.
const MAX_NAME: usize = 128;

/// Names that leave the choice to the service, and names that servers put in place of one.
const OPEN_NAMES: &[&str] = &["auto", "default", "model", "none", "null", "router", "unknown"];

/// Words for the state of a release. An alias that ends in `-latest` may stand for a preview.
const RELEASE_STATES: &[&str] = &["beta", "exp", "experimental", "preview", "rc"];

/// Returns the name of a model as records may carry it. Returns `None` if it has another form than
/// names have.
pub(super) fn gated(name: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    ((1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)).then_some(name)
}

/// Returns whether the answered name means the requested model. Returns `None` if that is
/// undecided.
pub(super) fn is_requested(requested: &str, answered: &str) -> Option<bool> {
    let (requested, answered) = (requested.to_ascii_lowercase(), answered.to_ascii_lowercase());
    if answered.is_empty() || is_open(&answered) {
        return None;
    }
    if requested == answered {
        return Some(true);
    }
    // Collections of LangMart, presets and routers of OpenRouter.
    let is_choice =
        ["collection/", "@preset/", "openrouter/"].iter().any(|begin| requested.starts_with(begin));
    if is_open(&requested) || is_choice {
        return None;
    }
    let (asked, named) = (Name::parse(&requested), Name::parse(&answered));
    let equal = asked.means(&named);
    (equal || !asked.is_preview()).then_some(equal)
}

/// Returns whether a name leaves the choice of a model to the service, or names none.
fn is_open(name: &str) -> bool {
    let bare = name.rsplit('/').next().unwrap_or_default();
    OPEN_NAMES.contains(&bare) || bare.split(['-', '_', ':']).any(|word| matches!(word, "auto" | "router"))
}

/// A name taken apart, in lower case.
#[derive(Debug)]
struct Name {
    /// Words and numbers, without prefix, variant and what follows in the other members.
    parts: Vec<String>,
    date: Option<String>,
    /// `001`, `v2`.
    revision: Option<String>,
    is_latest: bool,
}

impl Name {
    fn parse(name: &str) -> Self {
        // A fine-tuned model is its whole name.
        if name.starts_with("ft:") {
            return Self { parts: vec![name.to_owned()], date: None, revision: None, is_latest: false };
        }
        let bare = without_variant(without_vendor(name.rsplit('/').next().unwrap_or_default()));
        let mut parts: Vec<String> = bare
            .split(['-', '_', '.', ':', '@', ' '])
            .filter(|part| !part.is_empty())
            .flat_map(split)
            .collect();
        let (mut date, mut revision, mut is_latest) = (None, None, false);
        while parts.len() > 1 {
            if parts.last().is_some_and(|part| part == "latest") {
                is_latest = true;
                parts.pop();
            } else if date.is_none()
                && let Some(found) = take(&mut parts, date_parts)
            {
                date = Some(found);
            } else if revision.is_none()
                && let Some(found) = take(&mut parts, revision_parts)
            {
                revision = Some(found);
            } else {
                break;
            }
        }
        Self { parts, date, revision, is_latest }
    }

    fn is_preview(&self) -> bool {
        self.date.is_none() && self.parts.last().is_some_and(|part| part == "preview")
    }

    /// Returns whether an answer's name means this requested one, or what it is an alias of.
    fn means(&self, answered: &Self) -> bool {
        let pinned = |asked: &Option<String>, named: &Option<String>| asked.is_none() || asked == named;
        if !pinned(&self.date, &answered.date) || !pinned(&self.revision, &answered.revision) {
            return false;
        }
        let (asked, named) = (normalized(&self.parts), normalized(&answered.parts));
        if self.is_latest { is_latest_of(&asked, &named) } else { asked == named }
    }
}

/// Returns whether an answer adds to an alias of the latest version no more than a version.
fn is_latest_of(asked: &[String], named: &[String]) -> bool {
    let mut added = named.to_vec();
    for part in asked {
        let Some(at) = added.iter().position(|other| other == part) else { return false };
        added.remove(at);
    }
    added.iter().all(|part| part.split('.').all(is_number) || RELEASE_STATES.contains(&part.as_str()))
}

/// Sorts the parts, with the numbers of one version as one part, without a zero at its end.
fn normalized(parts: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if is_number(part) && last.split('.').all(is_number) => {
                last.push('.');
                last.push_str(part);
            }
            _ => joined.push(part.clone()),
        }
    }
    for part in &mut joined {
        if let Some(short) = part.strip_suffix(".0").filter(|short| short.split('.').all(is_number)) {
            *part = short.to_owned();
        }
    }
    joined.sort_unstable();
    joined
}

/// Removes the vendors before a name as Bedrock writes them: `us.anthropic.`.
fn without_vendor(name: &str) -> &str {
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    match name.split_once('.') {
        Some((vendor, rest)) if is_word(vendor) && rest.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            without_vendor(rest)
        }
        _ => name,
    }
}

/// Removes what a gateway appends to choose among offers of a model: `:free`, `:nitro`, Bedrock's
/// `-v1:0`, Vertex' `@default`. A size, as Ollama appends it, stays.
fn without_variant(name: &str) -> &str {
    let name = name.strip_suffix("@default").unwrap_or(name);
    match name.rsplit_once(':') {
        Some((bare, "0")) => match bare.rsplit_once("-v") {
            Some((before, number)) if is_number(number) => before,
            _ => bare,
        },
        Some((bare, variant))
            if variant != "latest" && !variant.bytes().any(|byte| byte.is_ascii_digit()) =>
        {
            bare
        }
        _ => name,
    }
}

/// Splits a word from the number that follows it, so that `llama3` is `llama-3`. A revision stays
/// whole.
fn split(part: &str) -> Vec<String> {
    let letters = part.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (word, rest) = part.split_at(letters);
    if word.is_empty() || rest.is_empty() || word == "v" {
        return vec![part.to_owned()];
    }
    vec![word.to_owned(), rest.to_owned()]
}

/// Takes from the end so many parts as `count` finds there.
fn take(parts: &mut Vec<String>, count: fn(&[String]) -> usize) -> Option<String> {
    let taken = count(parts);
    (taken > 0 && taken < parts.len()).then(|| parts.split_off(parts.len() - taken).concat())
}

/// Returns how many parts at the end are a date: `2024-07-18`, `20250929`, `250115`, `0613`,
/// `2407`, `05-20`, `09-2025`.
fn date_parts(parts: &[String]) -> usize {
    let digits = |part: &str, length: usize| part.len() == length && is_number(part);
    let within = |part: &str, range: std::ops::RangeInclusive<u32>| {
        part.parse().is_ok_and(|number| range.contains(&number))
    };
    let year = |part: &str| digits(part, 4) && within(part, 2020..=2099);
    let month = |part: &str| digits(part, 2) && within(part, 1..=12);
    let day = |part: &str| digits(part, 2) && within(part, 1..=31);
    match parts {
        [.., y, m, d] if year(y) && month(m) && day(d) => 3,
        [.., m, y] if month(m) && year(y) => 2,
        [.., m, d] if month(m) && day(d) => 2,
        [.., one] if digits(one, 8) && year(&one[..4]) && month(&one[4..6]) && day(&one[6..]) => 1,
        [.., one] if digits(one, 6) && within(&one[..2], 20..=99) && month(&one[2..4]) && day(&one[4..]) => 1,
        [.., one] if digits(one, 4) && month(&one[..2]) && day(&one[2..]) => 1,
        [.., one] if digits(one, 4) && within(&one[..2], 23..=39) && month(&one[2..]) => 1,
        _ => 0,
    }
}

/// Returns how many parts at the end are a revision: `001`, `v2`, `v3.1`.
fn revision_parts(parts: &[String]) -> usize {
    let numbers = parts.iter().rev().take_while(|part| is_number(part) && part.len() < 3).count();
    let before = parts.len().checked_sub(numbers + 1).map(|at| parts[at].as_str());
    match parts.last() {
        Some(last) if last.len() == 3 && last.starts_with('0') && is_number(last) => 1,
        _ if before.and_then(|part| part.strip_prefix('v')).is_some_and(is_number) => numbers + 1,
        _ => 0,
    }
}

fn is_number(text: impl AsRef<str>) -> bool {
    let text = text.as_ref();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAME: Option<bool> = Some(true);
    const OTHER: Option<bool> = Some(false);

    #[track_caller]
    fn check(pairs: &[(&str, &str, Option<bool>)]) {
        for (requested, answered, expected) in pairs {
            assert_eq!(is_requested(requested, answered), *expected, "{requested} answered by {answered}");
        }
    }

    #[test]
    fn snapshot_of_requested_alias_matches() {
        check(&[
            ("gpt-4o", "gpt-4o-2024-08-06", SAME),
            ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", SAME),
            ("gpt-4", "gpt-4-0613", SAME),
            ("gpt-3.5-turbo", "gpt-3.5-turbo-0125", SAME),
            ("gpt-4-turbo", "gpt-4-turbo-2024-04-09", SAME),
            ("o1", "o1-2024-12-17", SAME),
            ("gpt-5.6-luna", "gpt-5.6-luna-2026-09-01", SAME),
            ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", SAME),
            ("claude-sonnet-4-0", "claude-sonnet-4-20250514", SAME),
            ("claude-sonnet-4", "claude-sonnet-4-0", SAME),
            ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022", SAME),
            ("gemini-2.0-flash", "gemini-2.0-flash-001", SAME),
            ("gemini-1.5-pro", "gemini-1.5-pro-002", SAME),
            ("models/gemini-2.5-flash", "gemini-2.5-flash", SAME),
            ("gemini-flash-latest", "gemini-2.5-flash", SAME),
            ("gemini-flash-latest", "gemini-2.5-flash-preview-09-2025", SAME),
            ("mistral-large-latest", "mistral-large-2411", SAME),
            ("magistral-small-latest", "magistral-small-latest", SAME),
            ("grok-4", "grok-4-0709", SAME),
            ("deepseek-r1", "deepseek-r1-0528", SAME),
            ("doubao-1-5-pro-32k", "doubao-1-5-pro-32k-250115", SAME),
            ("deepseek/deepseek-chat", "deepseek/deepseek-chat-v3.1", SAME),
        ]);
    }

    #[test]
    fn other_spelling_of_requested_model_matches() {
        check(&[
            ("openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18", SAME),
            ("gpt-4o-mini", "openai/gpt-4o-mini", SAME),
            ("team/openai/gpt-4o", "gpt-4o-2024-11-20", SAME),
            ("anthropic/claude-sonnet-4.5", "anthropic/claude-4.5-sonnet-20250929", SAME),
            ("anthropic/claude-3.7-sonnet:thinking", "anthropic/claude-3-7-sonnet-20250219", SAME),
            ("meta-llama/llama-3.3-70b-instruct:free", "meta-llama/llama-3.3-70b-instruct", SAME),
            ("mistralai/mistral-nemo:nitro", "mistralai/mistral-nemo", SAME),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5-20250929", SAME),
            ("claude-haiku-4-5@default", "claude-haiku-4-5-20251001", SAME),
            ("claude-sonnet-4-5-20250929", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", SAME),
            ("anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet-20241022", SAME),
            ("claude-3-5-sonnet", "anthropic.claude-3-5-sonnet-20241022-v2:0", SAME),
            ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama-v3p1-8b-instruct", SAME),
            ("llama-3.1-8b-instruct", "meta.llama3-1-8b-instruct-v1:0", SAME),
            ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/llama-3.3-70b-instruct", SAME),
            ("gpt-4o-2024-08-06", "gpt-4o-20240806", SAME),
            ("llama3.2:3b", "llama3.2:3b", SAME),
            ("ft:gpt-4o-mini-2024-07-18:org::id", "ft:gpt-4o-mini-2024-07-18:org::id", SAME),
        ]);
    }

    #[test]
    fn another_model_is_a_mismatch() {
        check(&[
            ("gpt-4o", "gpt-4o-mini", OTHER),
            ("gpt-4o", "gpt-4o-mini-2024-07-18", OTHER),
            ("gpt-4o-mini", "gpt-4o", OTHER),
            ("gpt-5.6", "tiny-cheap-model-q4", OTHER),
            ("gpt-5", "gpt-5.1", OTHER),
            ("gpt-5", "gpt-5-mini", OTHER),
            ("gpt-4", "gpt-4-32k", OTHER),
            ("gpt-4.1", "gpt-4.1-nano-2025-04-14", OTHER),
            ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06", OTHER),
            ("gpt-4-0613", "gpt-4-0314", OTHER),
            ("claude-opus-4-1", "claude-sonnet-4-5-20250929", OTHER),
            ("claude-sonnet-4", "claude-sonnet-4-5-20250929", OTHER),
            ("claude-sonnet-4-5", "claude-sonnet-4-20250514", OTHER),
            ("claude-3-7-sonnet-latest", "claude-3-5-sonnet-20241022", OTHER),
            ("anthropic/claude-sonnet-4.5", "openai/gpt-4o", OTHER),
            ("gemini-2.5-flash", "gemini-2.5-flash-lite", OTHER),
            ("gemini-2.5-pro", "gemini-2.0-pro", OTHER),
            ("gemini-2.0-flash-001", "gemini-2.0-flash-002", OTHER),
            ("gemini-flash-latest", "gemini-2.5-flash-lite", OTHER),
            ("gemini-flash-lite-latest", "gemini-2.5-flash", OTHER),
            ("mistral-large-latest", "mistral-small-2506", OTHER),
            ("llama-3.3-70b-versatile", "llama-3.1-8b-instant", OTHER),
            ("llama3.2:3b", "llama3.2:1b", OTHER),
            ("deepseek-v3", "deepseek-v3.1", OTHER),
            ("deepseek-chat", "deepseek-reasoner", OTHER),
            ("openai/gpt-oss-120b", "openai/gpt-oss-20b", OTHER),
            ("ft:gpt-4o-mini-2024-07-18:org::id", "gpt-4o-mini-2024-07-18", OTHER),
            ("o3", "o3-mini", OTHER),
        ]);
    }

    #[test]
    fn open_requests_and_missing_names_are_undecided() {
        check(&[
            ("openrouter/auto", "anthropic/claude-sonnet-4.5", None),
            ("openrouter/horizon-alpha", "openai/gpt-5", None),
            ("auto", "gpt-4o", None),
            ("collection/fast", "gpt-4o", None),
            ("@preset/mine", "openai/gpt-5", None),
            ("default", "qwen2.5-7b", None),
            ("azure/model-router", "gpt-4.1-nano-2025-04-14", None),
            ("gpt-4o", "", None),
            ("gpt-4o", "default", None),
            ("gpt-4-turbo-preview", "gpt-4-0125-preview", None),
            ("gemini-3-pro-preview", "gemini-3-pro", None),
            ("gemini-3-pro-preview", "gemini-3-pro-preview", SAME),
            ("gemini-2.5-pro-preview", "gemini-2.5-pro-preview-06-05", SAME),
        ]);
    }

    #[test]
    fn names_pass_by_their_form_or_not_at_all() {
        for name in ["gpt-4o", "openai/gpt-4o:free", "claude@20250101", "a+b_c", "llama3.2"] {
            assert_eq!(gated(name), Some(name));
        }
        for name in ["", "a b", "<b>", "a\"b", "ü", "a,b", &"a".repeat(129)] {
            assert_eq!(gated(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_of_any_form_panic_nowhere(one in "[A-Za-z0-9._:/@+-]{0,40}", other in ".{0,40}") {
            is_requested(&one, &other);
            is_requested(&other, &one);
            prop_assert_ne!(is_requested(&one, &one), Some(false));
        }

        #[test]
        fn prefix_variant_and_case_change_nothing(
            name in "[a-z]{3,8}(-[a-z]{2,6}|-[0-9]{1,2}|-[0-9]b){1,3}", vendor in "[a-z]{3,9}", variant in "[a-z]{4,6}",
        ) {
            prop_assume!(!is_open(&name) && !variant.starts_with("latest"));
            let answered = format!("{vendor}/{}:{variant}", name.to_ascii_uppercase());
            prop_assert_eq!(is_requested(&name, &answered), Some(true));
            prop_assert_ne!(is_requested(&name, &format!("{name}-mini")), Some(true));
        }
    }
}
