//! The Gemini developer API.

use serde_json::{Value, json};

#[cfg(test)]
use super::service::SampleChat;
use super::{
    limits,
    service::{Call, Endpoint, Facts, Failure, Service},
    status_page,
    stream::{Events, Finish, Outline, Piece},
};
use crate::simulator::{
    exchange::{Reply, Request},
    fault::Parameters,
};

/// The simulated service.
pub(super) struct Google;

impl Service for Google {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "google",
            prefix: "/google/v1beta",
            status_path: "/status/google/incidents.json",
            models: &["gemini-2.5-flash-lite", "gemini-2.5-flash"],
        }
    }

    fn status_page(&self, incident: Option<&str>) -> Value {
        status_page::google(incident)
    }

    fn key<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.header("x-goog-api-key")
    }

    fn model<'a>(&self, call: &'a Call<'_>) -> Option<&'a str> {
        model(call.path)
    }

    fn max_tokens(&self, body: &Value) -> Option<u64> {
        body.pointer("/generationConfig/maxOutputTokens")?.as_u64()
    }

    fn thinks(&self, call: &Call<'_>) -> bool {
        thinks(call)
    }

    fn streams(&self, call: &Call<'_>) -> bool {
        call.path.ends_with(STREAM)
    }

    fn prompt(&self) -> &'static str {
        "contents"
    }

    fn endpoint(&self, path: &str) -> Option<(&'static str, Endpoint)> {
        match path {
            "/models" => Some(("GET", Endpoint::Models)),
            _ => model(path).map(|_| ("POST", Endpoint::Chat)),
        }
    }

    /// Returns true for a stream without `alt=sse`.
    fn answers_in_array(&self, call: &Call<'_>) -> bool {
        self.streams(call) && call.request.query("alt") != Some("sse")
    }

    fn success(&self, endpoint: Endpoint, call: &Call<'_>) -> Value {
        match endpoint {
            Endpoint::Chat => {
                let texts = call.texts();
                let thought = thinks(call).then(|| json!({"text": THOUGHT, "thought": true}));
                let text = (!texts.is_empty()).then(|| json!({"text": texts.concat()}));
                let parts: Value = thought.into_iter().chain(text).collect();
                let mut body = response(call, &id(call), &parts, Some(call.finish()));
                body["usageMetadata"] = usage(call, texts.len(), call.output_tokens() - texts.len());
                body
            }
            _ => models(call),
        }
    }

    fn failure(&self, what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
        failure(what, call, parameters)
    }

    fn dress(&self, _call: &Call<'_>, reply: Reply) -> Reply {
        reply.with("Server", "scaffolding on HTTPServer2").with("Server-Timing", "gfet4t7; dur=1")
    }

    /// Returns true if the wait is only in the body.
    fn hides_limit(&self, variant: Option<&str>) -> bool {
        matches!(variant, None | Some("fractional"))
    }

    fn wait_header(&self, _variant: Option<&str>) -> Option<&'static str> {
        None
    }

    fn events(&self, call: &Call<'_>, outline: &Outline<'_>) -> Events {
        events(call, outline)
    }

    fn stream_header(&self) -> Option<(&'static str, &'static str)> {
        Some(("Content-Disposition", "attachment"))
    }

    #[cfg(test)]
    fn sample_chat(&self) -> SampleChat {
        SampleChat {
            path: format!("/models/{}:generateContent", self.facts().models[0]),
            headers: "Content-Type: application/json\r\nx-goog-api-key: sk-secret-canary\r\n",
            body: json!({"contents": [{"role": "user", "parts": [{"text": "Type OK"}]}]}),
        }
    }

    #[cfg(test)]
    fn blocks_after_tokens(&self) -> usize {
        0
    }
}

const THOUGHT: &str = "The user wants OK.";

/// Suffix of a model's path for a stream.
const STREAM: &str = ":streamGenerateContent";

/// Returns the model that the path of a generation names.
fn model(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/models/")?;
    rest.strip_suffix(":generateContent").or_else(|| rest.strip_suffix(STREAM))
}

fn id(call: &Call<'_>) -> String {
    format!("simulated{}", call.number)
}

fn response(call: &Call<'_>, id: &str, parts: &Value, finish: Option<Finish>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(match finish {
            Finish::Stop => "STOP",
            Finish::Length => "MAX_TOKENS",
        });
    }
    json!({"candidates": [candidate], "modelVersion": call.answered_model(), "responseId": id})
}

fn usage(call: &Call<'_>, output: usize, thoughts: usize) -> Value {
    let input = call.input_tokens();
    let mut usage = json!({"promptTokenCount": input, "totalTokenCount": input + output + thoughts});
    if output > 0 {
        usage["candidatesTokenCount"] = json!(output);
    }
    if call.cached_tokens > 0 {
        usage["cachedContentTokenCount"] = json!(call.cached_tokens);
    }
    if thoughts > 0 {
        usage["thoughtsTokenCount"] = json!(thoughts);
    }
    usage
}

fn events(call: &Call<'_>, outline: &Outline<'_>) -> Events {
    let thoughts = outline.tokens - outline.texts.len();
    let id = id(call);
    let object = |parts: Value, finish: Option<Finish>, output: usize| {
        let mut body = response(call, &id, &parts, finish);
        if call.pace.usage.unwrap_or(true) {
            body["usageMetadata"] = usage(call, output, thoughts);
        }
        body
    };
    let thought = || Piece::Data(object(json!([{"text": THOUGHT, "thought": true}]), None, 0));
    let content = |(index, text): (usize, &&str)| {
        let finish = outline.finish.filter(|_| index + 1 == outline.texts.len());
        Piece::Data(object(json!([{"text": text}]), finish, index + 1))
    };
    let mut closing = Vec::new();
    if outline.finish.is_some() && outline.texts.is_empty() {
        let mut last = object(Value::Null, outline.finish, 0);
        last["candidates"][0]["content"] = json!({"role": "model"});
        closing.push(Piece::Data(last));
    }
    if outline.finish.is_some() && Google.answers_in_array(call) {
        closing.push(Piece::End);
    }
    Events {
        opening: Vec::new(),
        reasoning: thinks(call).then(thought).into_iter().collect(),
        content: outline.texts.iter().enumerate().map(content).collect(),
        closing,
        error: vec![Piece::Data(failure(Failure::Overloaded, call, outline.parameters).1)],
        further: Piece::Data(object(json!([{"text": " OK"}]), None, outline.texts.len() + 1)),
    }
}

/// Returns whether the model reasons: all but the light ones do, if their budget permits it.
fn thinks(call: &Call<'_>) -> bool {
    let budget =
        call.body.as_ref().and_then(|body| body.pointer("/generationConfig/thinkingConfig/thinkingBudget"));
    call.model().is_some_and(|model| !model.contains("lite")) && budget.and_then(Value::as_u64) != Some(0)
}

/// Returns a page of the list: `pageSize` (50 by default) models from number `pageToken` on.
fn models(call: &Call<'_>) -> Value {
    let models = call.models();
    let number = |name| call.request.query(name).and_then(|value| value.parse::<usize>().ok());
    let from = number("pageToken").unwrap_or(0).min(models.len());
    let to = models.len().min(from.saturating_add(number("pageSize").unwrap_or(50).max(1)));
    let row = |model: &&str| {
        json!({
            "name": format!("models/{model}"), "version": "001", "displayName": model,
            "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        })
    };
    let mut list = json!({"models": models[from..to].iter().map(row).collect::<Vec<_>>()});
    if to < models.len() {
        list["nextPageToken"] = json!(to.to_string());
    }
    list
}

fn failure(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> (u16, Value) {
    let (code, status, message, details) = error(what, call, parameters);
    let mut error = json!({"code": code, "message": message, "status": status});
    if let Some(details) = details {
        error["details"] = details;
    }
    (code, json!({"error": error}))
}

/// Code, status, message and details of an error.
type GoogleError = (u16, &'static str, String, Option<Value>);

fn error(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> GoogleError {
    match what {
        Failure::UnknownPath => (404, "NOT_FOUND", "Requested entity was not found.".to_owned(), None),
        Failure::WrongMethod => (405, "INVALID_ARGUMENT", "Method not allowed.".to_owned(), None),
        Failure::MissingKey => (
            403,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or \
             other form of API consumer identity to call this API."
                .to_owned(),
            None,
        ),
        Failure::InvalidKey | Failure::UpstreamKey => {
            let message = "API key not valid. Please pass a valid API key.";
            (400, "INVALID_ARGUMENT", message.to_owned(), Some(invalid_key_details(message)))
        }
        Failure::UnknownModel(model) => (
            404,
            "NOT_FOUND",
            format!(
                "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call \
                 ModelService.ListModels to see the list of available models and their supported methods."
            ),
            None,
        ),
        Failure::Invalid { message, .. } => {
            let violation = json!({"@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"description": message}]});
            (400, "INVALID_ARGUMENT", message.to_owned(), Some(json!([violation])))
        }
        _ => error_of_service(what, call, parameters),
    }
}

/// Returns an error that is not caused by the request.
fn error_of_service(what: Failure<'_>, call: &Call<'_>, parameters: &Parameters) -> GoogleError {
    let exhausted = "RESOURCE_EXHAUSTED";
    match what {
        Failure::RateLimited => {
            let message = "Resource has been exhausted (e.g. check quota).".to_owned();
            (429, exhausted, message, retry_details(call, parameters))
        }
        Failure::Billing => (
            if parameters.variant.as_deref() == Some("old") { 429 } else { 402 },
            exhausted,
            "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.".to_owned(),
            None,
        ),
        // Its 503 UNAVAILABLE means overload, so this one has a general status.
        Failure::Unavailable => (503, "INTERNAL", "The service is currently unavailable.".to_owned(), None),
        Failure::GatewayTimeout => (
            parameters.status.unwrap_or(504),
            "DEADLINE_EXCEEDED",
            "Deadline expired before operation could complete.".to_owned(),
            None,
        ),
        Failure::Overloaded => {
            (503, "UNAVAILABLE", "The model is overloaded. Please try again later.".to_owned(), None)
        }
        _ => (
            parameters.status.unwrap_or(500),
            "INTERNAL",
            "An internal error has occurred. Please retry or report in \
             https://developers.generativeai.google/guide/troubleshooting"
                .to_owned(),
            None,
        ),
    }
}

fn invalid_key_details(message: &str) -> Value {
    json!([
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com",
         "metadata": {"service": "generativelanguage.googleapis.com"}},
        {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": message},
    ])
}

/// Returns the details with the wait, if any.
fn retry_details(call: &Call<'_>, parameters: &Parameters) -> Option<Value> {
    let wait = match parameters.variant.as_deref() {
        Some("none") => return None,
        Some("fractional") => limits::FRACTIONAL_WAIT,
        _ => limits::wait(parameters),
    };
    let quota = json!({
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global", "model": call.model()},
        "quotaValue": "15",
    });
    Some(json!([
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [quota]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{}s", wait.as_secs_f64())},
    ]))
}
