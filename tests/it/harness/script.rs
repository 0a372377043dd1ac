//! Parts of scripts for tests/lab/play.py: responses, frames of HTTP/2, listeners.

use serde_json::{Value, json};

/// A model list that every check of an `OpenAI` server without a model accepts.
pub const MODELS: &str = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;

/// A completion that meets the built-in expectation.
pub const COMPLETION: &str = concat!(
    r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop","#,
    r#""message":{"role":"assistant","content":"ok"}}],"#,
    r#""usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#
);

/// Events of the same completion as a stream, without the end of the body.
pub const EVENTS: [&str; 3] = [
    concat!(
        r#"data: {"id":"c","object":"chat.completion.chunk","model":"m","#,
        r#""choices":[{"index":0,"delta":{"role":"assistant","content":"ok"}}]}"#,
        "\n\n"
    ),
    concat!(
        r#"data: {"id":"c","object":"chat.completion.chunk","model":"m","#,
        r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        "\n\n"
    ),
    "data: [DONE]\n\n",
];

/// Returns a response of HTTP/1.1 with its length; `headers` are whole lines, and each character is a byte.
pub fn response(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.chars().count()
    )
}

/// Returns a good model list as a response.
pub fn good() -> String {
    response("200 OK", "", MODELS)
}

/// Returns a piece of a chunked body, in which each character is a byte.
pub fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.chars().count())
}

/// Returns a listener that plays the same actions for every request.
pub fn listener(name: &str, at: &str, actions: Value) -> Value {
    let script = Value::Array(vec![Value::Array(vec![actions])]);
    json!({ "name": name, "at": at, "connections": script })
}

/// Returns a listener that answers every request with a good model list.
pub fn good_listener(name: &str, at: &str) -> Value {
    listener(name, at, json!([good()]))
}

/// Returns a frame of HTTP/2 on the stream of the request.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Value {
    json!({ "frame": [kind, flags, "this", hexadecimal(payload)] })
}

/// Returns the head of a response with status 200.
pub fn h2_head() -> Value {
    frame(1, 4, &[0x88])
}

/// Returns a whole response with status 200, in two frames.
pub fn h2_good() -> [Value; 2] {
    [h2_head(), h2_data(MODELS, true)]
}

/// Returns a piece of a body.
pub fn h2_data(text: &str, is_last: bool) -> Value {
    frame(0, u8::from(is_last), text.as_bytes())
}

/// Returns an informational head with status 103, which is not in the static table.
pub fn h2_early_hints() -> Value {
    frame(1, 4, b"\x08\x03103")
}

/// Returns a priority of the request's stream, which changes nothing.
pub fn h2_priority() -> Value {
    frame(2, 0, &[0, 0, 0, 0, 16])
}

/// Returns the end of a stream with an error code.
pub fn h2_reset(code: u32) -> Value {
    frame(3, 0, &code.to_be_bytes())
}

/// Returns the end of a connection with the last stream that was served, and an error code.
pub fn h2_goaway(last: u32, code: u32) -> Value {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    json!({ "frame": [7, 0, 0, hexadecimal(&payload)] })
}

/// Returns an action that ends the connection: close, reset or hang.
pub fn end(how: &str) -> Value {
    json!({ "end": how })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
