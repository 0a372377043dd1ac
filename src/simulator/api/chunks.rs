//! Streams of `OpenAI` and of services with variants of its dialect.

use serde_json::{Value, json};

use super::{
    SimulatedService, langmart, openai,
    service::{Call, Failure, request_number, unix_seconds},
    stream::{Events, Outline, Piece},
};

/// `OpenRouter`'s comment while it waits for the provider behind it.
pub(super) const PROCESSING: &str = "OPENROUTER PROCESSING";
/// Number of `OpenRouter`'s comments before the first event; the longest recording has thirty.
const COMMENTS: usize = 3;
const THOUGHT: &str = "User wants OK.";

/// Variant of the dialect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Openai,
    Langmart,
    Groq,
    Openrouter,
    /// At `OpenAI`'s prefix, by the model, as the next.
    Deepseek,
    Mistral,
}

impl Flavour {
    fn of(call: &Call<'_>) -> Self {
        match call.provider {
            SimulatedService::Langmart => Self::Langmart,
            SimulatedService::Groq => Self::Groq,
            SimulatedService::Openrouter => Self::Openrouter,
            _ => match call.model() {
                Some(model) if model.starts_with("deepseek") => Self::Deepseek,
                Some(model) if model.starts_with("magistral") => Self::Mistral,
                _ => Self::Openai,
            },
        }
    }
}

/// Common members of the chunks of a stream.
struct Chunks<'a> {
    call: &'a Call<'a>,
    flavour: Flavour,
    id: String,
    created: u64,
    thinks: bool,
    /// Whether the tokens are reported.
    tells_usage: bool,
}

/// Returns whether the model reasons.
pub(super) fn thinks(call: &Call<'_>) -> bool {
    match Flavour::of(call) {
        Flavour::Deepseek | Flavour::Mistral => true,
        Flavour::Groq | Flavour::Openrouter => call.model().is_some_and(|model| model.contains("gpt-oss")),
        Flavour::Openai | Flavour::Langmart => false,
    }
}

/// Returns the message of an answer in one piece.
pub(super) fn message(call: &Call<'_>) -> Value {
    let text = call.texts().concat();
    let mut message = json!({"role": "assistant", "content": text});
    match Flavour::of(call) {
        Flavour::Openai => {
            message["refusal"] = Value::Null;
            message["annotations"] = json!([]);
        }
        Flavour::Deepseek => message["reasoning_content"] = json!(THOUGHT),
        Flavour::Mistral => {
            message["content"] = json!([mistral_thought(), {"type": "text", "text": text}]);
        }
        Flavour::Groq | Flavour::Openrouter if thinks(call) => message["reasoning"] = json!(THOUGHT),
        Flavour::Langmart | Flavour::Groq | Flavour::Openrouter => {}
    }
    message
}

fn mistral_thought() -> Value {
    json!({"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]})
}

pub(super) fn events(call: &Call<'_>, outline: &Outline<'_>) -> Events {
    let flavour = Flavour::of(call);
    let asked = call.body.as_ref().and_then(|body| body.pointer("/stream_options/include_usage"));
    // These two report it without a request.
    let habit = matches!(flavour, Flavour::Groq | Flavour::Openrouter) || asked == Some(&Value::Bool(true));
    let chunks = Chunks {
        call,
        flavour,
        id: format!("chatcmpl-sim{}", call.number),
        created: unix_seconds(),
        thinks: thinks(call),
        tells_usage: call.pace.usage.unwrap_or(habit),
    };
    Events {
        opening: chunks.opening(),
        reasoning: chunks.reasoning(),
        content: outline
            .texts
            .iter()
            .enumerate()
            .map(|(number, text)| Piece::Data(chunks.content(number == 0, text)))
            .collect(),
        closing: outline
            .finish
            .map_or_else(Vec::new, |finish| chunks.closing(openai::finish_reason(finish), outline.tokens)),
        error: chunks.error(outline),
        further: Piece::Data(chunks.content(false, " OK")),
    }
}

impl Chunks<'_> {
    fn opening(&self) -> Vec<Piece> {
        let delta = match self.flavour {
            Flavour::Openrouter => return (0..COMMENTS).map(|_| Piece::Comment(PROCESSING)).collect(),
            Flavour::Deepseek => json!({"role": "assistant", "content": null, "reasoning_content": ""}),
            Flavour::Openai => json!({"role": "assistant", "content": "", "refusal": null}),
            Flavour::Langmart | Flavour::Groq | Flavour::Mistral => {
                json!({"role": "assistant", "content": ""})
            }
        };
        let mut first = self.chunk(delta, None);
        if self.flavour == Flavour::Groq {
            first["x_groq"] = json!({"id": self.groq_id()});
        }
        vec![Piece::Data(first)]
    }

    fn reasoning(&self) -> Vec<Piece> {
        if !self.thinks {
            return Vec::new();
        }
        let delta = match self.flavour {
            Flavour::Openrouter => json!({"role": "assistant", "content": "", "reasoning": THOUGHT}),
            Flavour::Deepseek => json!({"content": null, "reasoning_content": THOUGHT}),
            Flavour::Mistral => json!({"content": [mistral_thought()]}),
            Flavour::Openai | Flavour::Langmart | Flavour::Groq => json!({"reasoning": THOUGHT}),
        };
        vec![Piece::Data(self.chunk(delta, None))]
    }

    fn content(&self, is_first: bool, text: &str) -> Value {
        let delta = match self.flavour {
            Flavour::Openrouter if is_first => json!({"role": "assistant", "content": text}),
            Flavour::Deepseek => json!({"content": text, "reasoning_content": null}),
            // It uses both forms.
            Flavour::Mistral if is_first => json!({"content": [{"type": "text", "text": text}]}),
            _ => json!({"content": text}),
        };
        self.chunk(delta, None)
    }

    fn closing(&self, reason: &str, tokens: usize) -> Vec<Piece> {
        let delta = match self.flavour {
            Flavour::Openai | Flavour::Langmart | Flavour::Groq => json!({}),
            Flavour::Openrouter | Flavour::Deepseek | Flavour::Mistral => json!({"content": ""}),
        };
        let mut last = self.chunk(delta, Some(reason));
        let mut pieces = Vec::new();
        if self.tells_usage {
            let usage = openai::usage(self.call, tokens);
            match self.flavour {
                Flavour::Groq => last["x_groq"] = json!({"id": self.groq_id(), "usage": usage}),
                Flavour::Deepseek | Flavour::Mistral => last["usage"] = usage,
                Flavour::Openrouter => {
                    let mut chunk = self.chunk(json!({"role": "assistant", "content": ""}), Some(reason));
                    chunk["usage"] = usage;
                    pieces.push(Piece::Data(chunk));
                }
                Flavour::Openai | Flavour::Langmart => {
                    let mut chunk = self.chunk(json!({}), None);
                    chunk["choices"] = json!([]);
                    chunk["usage"] = usage;
                    pieces.push(Piece::Data(chunk));
                }
            }
        }
        pieces.insert(0, Piece::Data(last));
        pieces.push(Piece::End);
        pieces
    }

    fn error(&self, outline: &Outline<'_>) -> Vec<Piece> {
        let parameters = outline.parameters;
        let variant = parameters.variant.as_deref();
        let mut pieces = match self.flavour {
            Flavour::Openrouter => self.openrouter_error(variant == Some("recorded"), outline.tokens),
            Flavour::Langmart => {
                let what = match parameters.upstream {
                    Some(_) => Failure::Overloaded,
                    None => Failure::GatewayTimeout,
                };
                vec![Piece::Data(langmart::failure(what, self.call, parameters).1)]
            }
            Flavour::Groq if variant == Some("x_groq") => {
                let mut chunk = self.chunk(json!({}), Some("stop"));
                chunk["x_groq"] = json!({"id": self.groq_id(), "error": "over_capacity"});
                vec![Piece::Data(chunk)]
            }
            Flavour::Openai | Flavour::Groq | Flavour::Deepseek | Flavour::Mistral => {
                vec![Piece::Data(self.call.service().failure(Failure::ServerError, self.call, parameters).1)]
            }
        };
        if matches!(variant, Some("done" | "recorded")) {
            pieces.push(Piece::End);
        }
        pieces
    }

    /// Returns a chunk with an error. Recordings differ from the documentation: the answer is
    /// finished before, the code is a number, and the chunk of the error has no finish reason.
    fn openrouter_error(&self, as_recorded: bool, tokens: usize) -> Vec<Piece> {
        let mut chunk = self.chunk(json!({"content": ""}), if as_recorded { None } else { Some("error") });
        if !as_recorded {
            chunk["choices"][0]["native_finish_reason"] = Value::Null;
            chunk["error"] = json!({"code": "server_error", "message": "Provider disconnected"});
            return vec![Piece::Data(chunk)];
        }
        chunk["error"] = json!({"code": 400, "message": "Token limit reached"});
        chunk["usage"] = openai::usage(self.call, tokens);
        let finished =
            self.chunk(json!({"role": "assistant", "content": "", "reasoning": null}), Some("length"));
        vec![Piece::Data(finished), Piece::Data(chunk)]
    }

    fn chunk(&self, delta: Value, finish: Option<&str>) -> Value {
        let mut choice = json!({"finish_reason": finish});
        choice["delta"] = delta;
        match self.flavour {
            Flavour::Openai | Flavour::Groq => choice["logprobs"] = Value::Null,
            Flavour::Openrouter => choice["native_finish_reason"] = json!(finish),
            Flavour::Langmart | Flavour::Deepseek | Flavour::Mistral => {}
        }
        // Several answers come in the same chunks.
        let choices = (0..openai::choices(self.call)).map(|index| {
            let mut choice = choice.clone();
            choice["index"] = json!(index);
            choice
        });
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.call.answered_model(),
            "choices": choices.collect::<Vec<_>>(),
        });
        match self.flavour {
            Flavour::Openai => {
                chunk["service_tier"] = json!("default");
                chunk["system_fingerprint"] = json!("fp_simulated");
                // Its length varies, to obscure the length of the content.
                chunk["obfuscation"] = json!(&"a1b2c3d4e5f6g7h8"[..=request_number() as usize % 15]);
            }
            Flavour::Groq => chunk["system_fingerprint"] = json!("fp_simulated"),
            Flavour::Openrouter => chunk["provider"] = json!("Simulated"),
            Flavour::Langmart | Flavour::Deepseek | Flavour::Mistral => {}
        }
        if self.tells_usage && matches!(self.flavour, Flavour::Openai | Flavour::Langmart) {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn groq_id(&self) -> String {
        format!("req_01{}", self.id)
    }
}
