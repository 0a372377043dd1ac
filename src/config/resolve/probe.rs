//! `[[probe]]`.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use toml::de::DeValue;

use super::{
    budget::price,
    completion::{self, SPEED_INTERVAL, SPEED_TOKENS, Workload, question, workload},
    context::{Context, Defaults, Placed, Timing},
    generated::check_requirements,
    http::request,
    provider::{Draft, is_name},
    run_options::RunOptions,
    values::choice,
};
use crate::{
    api::MaxTokensParameter,
    config::{
        duration,
        model::{Chat, Connection, HttpRequest, Probe, Provider, Stream, Task},
        problem::{not_one_of, shown},
        raw::Section,
        reasoning,
    },
    outcome::{Api, Check},
};

/// Maximum length of a probe's name in characters.
const MAX_NAME_CHARS: usize = 64;

/// Maximum size of a model's name, in bytes.
const MAX_MODEL_BYTES: usize = 256;

/// Maximum of `max_tokens`. Reasoning models need thousands of tokens before they answer.
const MAX_TOKENS: u32 = 32_768;

/// Defaults of `max_tokens`: for an answer of one word, and with reasoning before it.
const DEFAULT_TOKENS: u32 = 32;
const DEFAULT_REASONING_TOKENS: u32 = 2048;

/// Below this, a reasoning model may not reach its answer.
const MIN_REASONING_TOKENS: u32 = 1024;

/// Names with which a gateway selects a model itself.
const ROUTER_ALIASES: [&str; 2] = ["auto", "default"];

/// Range and default of the maximum time between two chunks of a stream.
const STALL_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);
const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Keys that only some checks have.
const OWN_KEYS: [(&str, &[Check]); 18] = [
    ("model", &[Check::Chat, Check::Stream, Check::Models]),
    ("models", &[Check::Chat, Check::Stream, Check::Models]),
    ("retires", &[Check::Chat, Check::Stream, Check::Models]),
    ("workload", &[Check::Chat, Check::Stream]),
    ("prompt", &[Check::Chat, Check::Stream]),
    ("prompt_words", &[Check::Chat, Check::Stream]),
    ("prompt_cache", &[Check::Chat, Check::Stream]),
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
    ("expect", &[Check::Chat, Check::Stream, Check::Http]),
];

/// Reads the probes of a section: one, or one for each of `models`. Returns none if a required part
/// is missing, which is reported.
pub(super) fn written(
    mut section: Section<'_>,
    providers: &mut BTreeMap<String, Draft>,
    defaults: &Defaults,
    context: &Context<'_>,
) -> Vec<Placed> {
    let title = section.value("name").and_then(|name| name.as_str());
    if let Some(title) = title {
        section = section.with_name(title);
    }
    let place = section.place().clone();
    let name = section.required("name", name);
    let drafted = drafted(&mut section, providers);
    let provider = drafted.and_then(|draft| draft.provider.as_ref());
    let check = check(&mut section);
    let workload = workload(&mut section);
    let timing = timing(&mut section, check, workload, defaults);
    if let (Some(check), Some(draft), Some(provider)) = (check, drafted, provider) {
        check_requirements(check, provider, draft.keyed || draft.keyless)
            .unwrap_or_else(|message| section.problem("check", message));
    }
    let models = models(&mut section, check, name.as_deref());
    let retires = completion::retires(&mut section);
    let options = RunOptions::from_section(&mut section, check, timing, context.report);
    let timeout = timing.timeout.min(timing.interval);
    let mut probes = Vec::new();
    for (name, model) in models {
        if let (Some(provider), Some(model)) = (provider, &model) {
            check_model(&section, model, provider, context);
        }
        let inputs = TaskInputs { provider, model: model.as_deref(), workload, timeout };
        let task = check.and_then(|check| task(&mut section, check, drafted, &inputs, context));
        if let (Some(name), Some(provider), Some(task)) = (name, provider, task) {
            let probe = Probe { retires, ..probe(name, provider, task, model, timing) };
            probes.push(Placed { probe: options.apply_to(probe), place: place.clone() });
        }
    }
    section.mark_known(&OWN_KEYS.map(|(key, _)| key));
    section.finish();
    probes
}

/// Returns the names of the probes of a section, valid or not.
pub(super) fn names(section: &DeValue<'_>) -> Vec<String> {
    let Some(name) = section.get("name").and_then(|name| name.get_ref().as_str()) else { return Vec::new() };
    let models = section.get("models").and_then(|models| models.get_ref().as_array());
    match models {
        Some(models) => {
            let models = models.iter().filter_map(|model| model.get_ref().as_str());
            models.map(|model| name_with_model(name, model)).collect()
        }
        None => vec![name.to_owned()],
    }
}

/// Returns the name of a probe of `models`: other characters than those of a name become hyphens.
fn name_with_model(name: &str, model: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let model = model.to_ascii_lowercase().replace(|c: char| !fits(c), "-");
    format!("{name}-{model}")
}

/// Reads `model` or `models`. Returns each model with the name of its probe, at least one.
fn models(
    section: &mut Section<'_>,
    check: Option<Check>,
    name: Option<&str>,
) -> Vec<(Option<String>, Option<String>)> {
    let own_name = || name.map(str::to_owned);
    if !section.has("models") {
        return vec![(own_name(), check.and_then(|check| model(section, check)))];
    }
    if section.has("model") {
        section.problem("models", "cannot be combined with model; remove one of them");
        section.mark_known(&["model"]);
    }
    let written = section.texts("models", parse_model);
    if section.value("models").and_then(DeValue::as_array).is_some_and(|models| models.is_empty()) {
        section.problem("models", "must have at least one model; add one, or use model");
    }
    let mut models: Vec<(Option<String>, Option<String>)> = Vec::new();
    for (model, place) in written {
        let full = name.map(|name| name_with_model(name, &model));
        if full.is_some() && models.iter().any(|(other, _)| *other == full) {
            section
                .error_at(&place, "results in the name of another entry; write it as a [[probe]] of its own");
        } else if let Some(Err(message)) = full.as_deref().map(self::name) {
            section.error_at(&place, format!("results in the name {message}; shorten name"));
        } else {
            models.push((full, Some(model)));
        }
    }
    if models.is_empty() { vec![(own_name(), None)] } else { models }
}

/// Warns of a model that the service probably does not have.
fn check_model(section: &Section<'_>, model: &str, provider: &Provider, context: &Context<'_>) {
    let key = if section.has("models") { "models" } else { "model" };
    let gateway = provider.api == Api::Langmart && provider.is_on_own_host();
    let message = if model.contains('*') {
        format!(
            "{} has a wildcard, which no service expands; list the models: models = [\"…\", \"…\"]",
            shown(model)
        )
    } else if gateway && !model.contains('/') && !ROUTER_ALIASES.contains(&model) {
        format!("{} has no provider; LangMart's models are named as in \"openai/gpt-4o-mini\"", shown(model))
    } else {
        return;
    };
    context.report.warning(&section.place_of(key), message);
}

/// Returns a probe of these parts. The timeout is limited to the interval.
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
        retires: None,
        interval: timing.interval,
        timeout: timing.timeout.min(timing.interval),
        connection: Connection::Cold,
        slow_after: None,
        recheck: None,
        comparison: None,
    }
}

/// Parses the name of a probe, comparison or pool.
pub(super) fn name(text: &str) -> Result<String, String> {
    if is_name(text, MAX_NAME_CHARS, |c| matches!(c, '.' | '_' | '-')) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} must be 1 to {MAX_NAME_CHARS} characters of a-z, 0-9, dot, underscore and hyphen",
            shown(text)
        ))
    }
}

/// Returns the provider of the probe and marks it as used.
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

/// Reads the check, and reports keys that belong to other checks.
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

/// Joins words to a list for a sentence.
fn listed(words: &[&str]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn timing(
    section: &mut Section<'_>,
    check: Option<Check>,
    workload: Workload,
    defaults: &Defaults,
) -> Timing {
    let inherited = match (check.is_some_and(Check::generates), workload) {
        (true, Workload::Reply) => defaults.generation,
        (true, Workload::Speed) => Timing { interval: SPEED_INTERVAL, ..defaults.generation },
        (false, _) => defaults.plain,
    };
    let own = inherited.overridden_by(section);
    let valid = check.is_some() && section.has("timeout") && !section.is_bad("interval");
    if valid && !section.is_bad("timeout") && own.timeout > own.interval {
        let written = section.value("timeout").and_then(|value| value.as_str()).unwrap_or_default();
        let interval = duration::format(own.interval);
        let message =
            format!("{written:?} is longer than the interval {interval:?}; lower it or raise the interval");
        section.problem("timeout", message);
    }
    own
}

fn parse_model(text: &str) -> Result<String, String> {
    if (1..=MAX_MODEL_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not a model ID; it must be printable ASCII without white space", shown(text)))
    }
}

fn model(section: &mut Section<'_>, check: Check) -> Option<String> {
    match check {
        Check::Chat | Check::Stream => section.required("model", parse_model),
        Check::Models => section.text("model", parse_model),
        Check::Network | Check::Health | Check::Auth | Check::Status | Check::Balance | Check::Http => None,
    }
}

/// The parts of a probe that its task depends on.
struct TaskInputs<'a> {
    /// The provider, or `None` if it is invalid.
    provider: Option<&'a Arc<Provider>>,
    model: Option<&'a str>,
    workload: Workload,
    timeout: Duration,
}

/// Reads the task. Returns `None` if the provider lacks what the check requires, which is reported.
fn task(
    section: &mut Section<'_>,
    check: Check,
    draft: Option<&Draft>,
    inputs: &TaskInputs<'_>,
    context: &Context<'_>,
) -> Option<Task> {
    Some(match check {
        Check::Network => Task::Network,
        Check::Health => Task::Health,
        Check::Auth => Task::Auth,
        Check::Models => Task::Models,
        Check::Chat => Task::Chat(chat(section, inputs, context)),
        Check::Stream => Task::Stream(stream(section, inputs, context)),
        Check::Status => Task::Status(inputs.provider?.status_source.clone()?),
        Check::Balance => Task::Balance,
        Check::Http => {
            let request = request(section, context);
            if let Some(draft) = draft {
                check_request(section, &request, draft);
            }
            Task::Http(Box::new(request))
        }
    })
}

fn stream(section: &mut Section<'_>, inputs: &TaskInputs<'_>, context: &Context<'_>) -> Stream {
    let stall_timeout = section.duration("stall_timeout", &STALL_TIMEOUTS);
    if stall_timeout.is_some_and(|stall_timeout| stall_timeout >= inputs.timeout) {
        let message =
            format!("has no effect: it is not below the timeout of {:?}", duration::format(inputs.timeout));
        context.report.warning(&section.place_of("stall_timeout"), message);
    }
    let include_usage = section.flag("include_usage");
    if let Some(provider) = inputs.provider
        && !provider.api.profile().takes_openai_parameters
        && section.has("include_usage")
    {
        section.problem("include_usage", format!("{} always counts tokens; remove the key", provider.api));
    }
    // Mistral rejects unknown parameters, and reports token counts without being asked.
    let supported = inputs.provider.is_none_or(|provider| provider.host() != "api.mistral.ai");
    Stream {
        chat: chat(section, inputs, context),
        stall_timeout: stall_timeout.unwrap_or(DEFAULT_STALL_TIMEOUT),
        include_usage: include_usage.unwrap_or(supported),
    }
}

fn chat(section: &mut Section<'_>, inputs: &TaskInputs<'_>, context: &Context<'_>) -> Chat {
    let question = question(section, inputs.workload);
    let parameters = [
        ("max_tokens", MaxTokensParameter::MaxTokens),
        ("max_completion_tokens", MaxTokensParameter::MaxCompletionTokens),
    ];
    let parameter = section.text("max_tokens_parameter", |text| choice(text, &parameters));
    let api = inputs.provider.map(|provider| provider.api);
    if let Some(api) = api.filter(|api| !api.profile().takes_openai_parameters)
        && section.has("max_tokens_parameter")
    {
        section.problem("max_tokens_parameter", format!("{api} has only one parameter name; remove the key"));
    }
    let reasons = reasoning::reasons(api.unwrap_or(Api::Openai), inputs.model.unwrap_or_default());
    let max_tokens = section.number("max_tokens", &(1..=MAX_TOKENS));
    if reasons && max_tokens.is_some_and(|max_tokens| max_tokens < MIN_REASONING_TOKENS) {
        let message = format!(
            "this model may consume all of it for reasoning before any visible content; remove it, or allow \
             {MIN_REASONING_TOKENS} or more"
        );
        context.report.warning(&section.place_of("max_tokens"), message);
    }
    if inputs.workload == Workload::Speed && max_tokens.is_some_and(|max_tokens| max_tokens < SPEED_TOKENS) {
        let message = format!(
            "may cut off the answer of workload = \"speed\"; leave it out, or allow {SPEED_TOKENS} or more"
        );
        context.report.warning(&section.place_of("max_tokens"), message);
    }
    let usual_tokens = match (inputs.workload, reasons) {
        (Workload::Reply, false) => DEFAULT_TOKENS,
        (Workload::Reply, true) => DEFAULT_REASONING_TOKENS,
        (Workload::Speed, false) => SPEED_TOKENS,
        (Workload::Speed, true) => DEFAULT_REASONING_TOKENS + SPEED_TOKENS,
    };
    Chat {
        prompt: question.prompt,
        max_tokens: max_tokens.unwrap_or(usual_tokens),
        max_tokens_parameter: parameter,
        price: price(section),
        expected_answer: question.answer,
        expected_model: question.model,
    }
}

/// Reports conflicts between the request of an `http` probe and its provider.
fn check_request(section: &Section<'_>, request: &HttpRequest, draft: &Draft) {
    let Some(provider) = &draft.provider else { return };
    if request.send_key && !draft.keyed {
        section
            .problem("send_key", format!("there is no key to send; set provider.{}.api_key", provider.name));
    }
    for (name, _) in &request.headers {
        let taken = provider.headers.iter().any(|(other, _)| other == name);
        if taken || provider.key_header.as_ref() == Some(name) {
            section
                .problem("headers", format!("{name} is also set by provider.{}; remove one", provider.name));
        }
    }
}
