//! `[[probe]]`.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    budget::price,
    context::{Context, Defaults, Placed, Timing},
    generated::needs,
    http::request,
    manner::Manner,
    provider::{Draft, is_name},
    values::choice,
};
use crate::{
    config::{
        duration, long_prompt,
        model::{Chat, Connection, HttpRequest, MaxTokensParameter, Probe, Provider, Stream, Task},
        problem::{not_one_of, shown},
        raw::Section,
        reasoning,
    },
    outcome::{Api, Check},
};

/// The most characters of a probe's name.
const LONGEST_NAME: usize = 64;

/// The most bytes of a model's name and of a prompt.
const LONGEST_MODEL: usize = 256;
const LONGEST_PROMPT: usize = 16 << 10;

/// The most tokens that one run may ask for: reasoning models need some thousands before they say a word.
const MOST_TOKENS: u32 = 32_768;

/// The most tokens of a run that does not say it: for an answer of a word, and for reasoning before it.
const TOKENS: u32 = 32;
const REASONING_TOKENS: u32 = 2048;

/// With fewer, a model that reasons may not come to its answer.
const LEAST_REASONING_TOKENS: u32 = 1024;

/// How long a stream may be silent.
const STALL_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// What is asked where the operator does not say it: cheap, and answered by every model with visible text.
const PROMPT: &str = "Reply with the single word: ok";

/// Keys that only some checks have.
const OWN_KEYS: [(&str, &[Check]); 14] = [
    ("model", &[Check::Chat, Check::Stream, Check::Models]),
    ("prompt", &[Check::Chat, Check::Stream]),
    ("prompt_words", &[Check::Chat, Check::Stream]),
    ("max_tokens", &[Check::Chat, Check::Stream]),
    ("max_tokens_parameter", &[Check::Chat, Check::Stream]),
    ("price", &[Check::Chat, Check::Stream]),
    ("stall_timeout", &[Check::Stream]),
    ("include_usage", &[Check::Stream]),
    ("method", &[Check::Http]),
    ("path", &[Check::Http]),
    ("body", &[Check::Http]),
    ("headers", &[Check::Http]),
    ("send_key", &[Check::Http]),
    ("expect", &[Check::Http]),
];

/// The probe of a section; `None` where it lacks what a probe is made of, which is reported.
pub(super) fn written(
    mut section: Section<'_>,
    providers: &mut BTreeMap<String, Draft>,
    defaults: &Defaults,
    context: &Context<'_>,
) -> Option<Placed> {
    let title = section.value("name").and_then(|name| name.as_str());
    if let Some(title) = title {
        section = section.called(title);
    }
    let place = section.place().clone();
    let name = section.required("name", name);
    let drafted = drafted(&mut section, providers);
    let provider = drafted.and_then(|draft| draft.provider.as_ref());
    let check = check(&mut section);
    let timing = timing(&mut section, check, defaults);
    if let (Some(check), Some(draft), Some(provider)) = (check, drafted, provider) {
        needs(check, provider, draft.keyed || draft.keyless)
            .unwrap_or_else(|message| section.problem("check", message));
    }
    let model = check.and_then(|check| model(&mut section, check));
    let task = check.and_then(|check| {
        let asked = Asked { provider, model: model.as_deref(), timeout: timing.timeout.min(timing.interval) };
        task(&mut section, check, drafted, &asked, context)
    });
    let manner = Manner::of(&mut section, check, timing, context.report);
    section.pass(&OWN_KEYS.map(|(key, _)| key));
    section.finish();
    Some(Placed { probe: manner.applied_to(probe(name?, provider?, task?, model, timing)), place })
}

/// A probe of these parts; its timeout is lowered to the interval.
pub(super) fn probe(
    name: String,
    provider: &Arc<Provider>,
    task: Task,
    model: Option<String>,
    timing: Timing,
) -> Probe {
    Probe {
        name,
        provider: Arc::clone(provider),
        task,
        model,
        interval: timing.interval,
        timeout: timing.timeout.min(timing.interval),
        connection: Connection::Cold,
        slow_after: None,
        recheck: None,
        comparison: None,
    }
}

/// The name of a probe, or of what puts probes together.
pub(super) fn name(text: &str) -> Result<String, String> {
    if is_name(text, LONGEST_NAME, |c| matches!(c, '.' | '_' | '-')) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} must be 1 to {LONGEST_NAME} characters of a-z, 0-9, dot, underscore and hyphen",
            shown(text)
        ))
    }
}

/// The provider that the probe names, marked as used.
fn drafted<'p>(section: &mut Section<'_>, providers: &'p mut BTreeMap<String, Draft>) -> Option<&'p Draft> {
    let named = section.required("provider", |text| {
        let names: Vec<_> = providers.keys().map(String::as_str).collect();
        if names.contains(&text) {
            Ok(text.to_owned())
        } else if names.is_empty() {
            Err(format!("{} is not known; add [provider.NAME]", shown(text)))
        } else {
            Err(not_one_of(text, &names))
        }
    })?;
    let draft = providers.get_mut(&named)?;
    draft.used = true;
    Some(draft)
}

/// The check, once it is reported which keys are another's.
fn check(section: &mut Section<'_>) -> Option<Check> {
    let names: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
    let check =
        section.required("check", |text| Check::from_name(text).ok_or_else(|| not_one_of(text, &names)))?;
    for (key, owners) in OWN_KEYS {
        if section.has(key) && !owners.contains(&check) {
            let owners: Vec<_> = owners.iter().map(|owner| owner.name()).collect();
            section.problem(key, format!("belongs to {}, not to {check}; remove it", listed(&owners)));
        }
    }
    Some(check)
}

/// Words as a sentence lists them.
fn listed(words: &[&str]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn timing(section: &mut Section<'_>, check: Option<Check>, defaults: &Defaults) -> Timing {
    let inherited = if check.is_some_and(Check::generates) { defaults.generation } else { defaults.plain };
    let own = inherited.overridden_by(section);
    let judged = check.is_some() && section.has("timeout") && !section.is_bad("interval");
    if judged && !section.is_bad("timeout") && own.timeout > own.interval {
        let written = section.value("timeout").and_then(|value| value.as_str()).unwrap_or_default();
        let interval = duration::format(own.interval);
        let message =
            format!("{written:?} is longer than the interval {interval:?}; lower it or raise the interval");
        section.problem("timeout", message);
    }
    own
}

fn model(section: &mut Section<'_>, check: Check) -> Option<String> {
    let parse = |text: &str| {
        if (1..=LONGEST_MODEL).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(text.to_owned())
        } else {
            Err(format!("{} is not a model; write its id without white space", shown(text)))
        }
    };
    match check {
        Check::Chat | Check::Stream => section.required("model", parse),
        Check::Models => section.text("model", parse),
        Check::Network | Check::Health | Check::Auth | Check::Status | Check::Balance | Check::Http => None,
    }
}

/// What of a probe its task must agree with.
struct Asked<'a> {
    /// `None`: nothing can be said of it.
    provider: Option<&'a Arc<Provider>>,
    model: Option<&'a str>,
    timeout: Duration,
}

/// `None`: the provider lacks what the check needs, which is reported.
fn task(
    section: &mut Section<'_>,
    check: Check,
    draft: Option<&Draft>,
    asked: &Asked<'_>,
    context: &Context<'_>,
) -> Option<Task> {
    Some(match check {
        Check::Network => Task::Network,
        Check::Health => Task::Health,
        Check::Auth => Task::Auth,
        Check::Models => Task::Models,
        Check::Chat => Task::Chat(chat(section, asked, context)),
        Check::Stream => Task::Stream(stream(section, asked, context)),
        Check::Status => Task::Status(asked.provider?.status_source.clone()?),
        Check::Balance => Task::Balance,
        Check::Http => {
            let request = request(section, context);
            if let Some(draft) = draft {
                agree(section, &request, draft);
            }
            Task::Http(Box::new(request))
        }
    })
}

fn stream(section: &mut Section<'_>, asked: &Asked<'_>, context: &Context<'_>) -> Stream {
    let stall_timeout = section.duration("stall_timeout", &STALL_TIMEOUTS);
    if stall_timeout.is_some_and(|stall_timeout| stall_timeout >= asked.timeout) {
        let message = format!(
            "never comes about: the whole run may take no longer than {:?}",
            duration::format(asked.timeout)
        );
        context.report.warning(&section.place_of("stall_timeout"), message);
    }
    let include_usage = section.flag("include_usage");
    if let Some(provider) = asked.provider
        && matches!(provider.api, Api::Anthropic | Api::Google)
        && section.has("include_usage")
    {
        section.problem("include_usage", format!("{} always counts tokens; remove the key", provider.api));
    }
    // Mistral refuses parameters that it does not know, and counts unasked.
    let knows_it = asked.provider.is_none_or(|provider| provider.host() != "api.mistral.ai");
    Stream {
        chat: chat(section, asked, context),
        stall_timeout: stall_timeout.unwrap_or(STALL_TIMEOUT),
        include_usage: include_usage.unwrap_or(knows_it),
    }
}

fn chat(section: &mut Section<'_>, asked: &Asked<'_>, context: &Context<'_>) -> Chat {
    let prompt = section.text("prompt", |text| {
        let fits = !text.trim().is_empty() && text.len() <= LONGEST_PROMPT;
        if fits { Ok(text.to_owned()) } else { Err(format!("must have 1 to {LONGEST_PROMPT} bytes")) }
    });
    let words = section.number("prompt_words", &long_prompt::WORDS);
    if section.has("prompt") && section.has("prompt_words") {
        section.problem("prompt_words", "is in place of prompt, which is here too; remove one of them");
    }
    let parameters = [
        ("max_tokens", MaxTokensParameter::MaxTokens),
        ("max_completion_tokens", MaxTokensParameter::MaxCompletionTokens),
    ];
    let parameter = section.text("max_tokens_parameter", |text| choice(text, &parameters));
    let api = asked.provider.map(|provider| provider.api);
    if let Some(api @ (Api::Anthropic | Api::Google)) = api
        && section.has("max_tokens_parameter")
    {
        section.problem("max_tokens_parameter", format!("{api} has but one name for it; remove the key"));
    }
    let reasons = reasoning::reasons(api.unwrap_or(Api::Openai), asked.model.unwrap_or_default());
    let max_tokens = section.number("max_tokens", &(1..=MOST_TOKENS));
    if reasons && max_tokens.is_some_and(|max_tokens| max_tokens < LEAST_REASONING_TOKENS) {
        let message = format!(
            "this model may use all of it up for reasoning before any visible content; leave it out, or allow \
             {LEAST_REASONING_TOKENS} or more"
        );
        context.report.warning(&section.place_of("max_tokens"), message);
    }
    Chat {
        prompt: words.map(long_prompt::prompt).or(prompt).unwrap_or_else(|| PROMPT.to_owned()),
        max_tokens: max_tokens.unwrap_or(if reasons { REASONING_TOKENS } else { TOKENS }),
        max_tokens_parameter: parameter,
        price: price(section),
    }
}

/// Reports what the request of an `http` probe wants and its provider has not, or has already.
fn agree(section: &Section<'_>, request: &HttpRequest, draft: &Draft) {
    let Some(provider) = &draft.provider else { return };
    if request.send_key && !draft.keyed {
        section.problem(
            "send_key",
            format!("there is no key to send; give provider.{} an api_key", provider.name),
        );
    }
    for (name, _) in &request.headers {
        let taken = provider.headers.iter().any(|(other, _)| other == name);
        if taken || provider.key_header.as_ref() == Some(name) {
            section.problem(
                "headers",
                format!("{name} is set by provider.{} already; remove one", provider.name),
            );
        }
    }
}
