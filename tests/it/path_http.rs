//! Tests of responses over HTTP/1.1 and HTTP/2: compression, folded headers, bad chunks, error
//! codes, errors before a reset, and too many informational responses.

use serde_json::{Value, json};

use crate::harness::{
    certificates::http_2,
    host::{Ask, Host},
    script::{
        COMPLETION, MODELS, chunk, end, good, good_listener, h2_data, h2_early_hints, h2_goaway, h2_good,
        h2_head, h2_reset, listener, response,
    },
    table::Table,
};

/// Actions of the server, and the verdict of a check.
struct Case {
    name: String,
    actions: Value,
    verdict: &'static str,
    detail: &'static str,
}

fn case(name: impl Into<String>, actions: Value, verdict: &'static str, detail: &'static str) -> Case {
    Case { name: name.into(), actions, verdict, detail }
}

/// Maximum seconds until a response is rejected that the client need not wait for.
const PROMPT: f64 = 5.0;

/// Sections of further probes; the provider is `p`.
const CHAT: &str = "[[probe]]\nname = \"chat\"\nprovider = \"p\"\ncheck = \"chat\"\nmodel = \"m\"\n";

/// Runs a check and curl against each case, and returns the records.
fn check(host: &mut Host, cases: &[Case], ask: &Ask<'_>) -> Vec<Value> {
    let port = |number: usize| 9000 + number;
    let plays = |(number, case): (usize, &Case)| {
        let mut listener = listener(&case.name, &format!("127.0.0.1:{}", port(number)), case.actions.clone());
        listener["drain"] = json!(false);
        listener
    };
    host.servers(&cases.iter().enumerate().map(plays).collect());
    let mut table = Table::default();
    let mut records = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let url = format!("http://127.0.0.1:{}/v1", port(number));
        let curl = host.curl(&["--compressed", "-m", "3"], &[], &format!("{url}/models"));
        for record in host.once(&Ask { url: &url, ..*ask }) {
            table.row(&case.name, &record, case.verdict, case.detail, &curl);
            let seconds = record["duration_seconds"].as_f64().unwrap();
            let is_prompt = seconds < PROMPT;
            table.expect(&case.name, is_prompt, format!("it took {seconds} s"));
            records.push(record);
        }
    }
    table.finish();
    records
}

const MODELS_ASK: Ask<'static> =
    Ask { url: "", checks: &["models"], timeout: "10s", provider: "", sections: "", variables: &[] };

#[test]
fn compressed_body_is_named_as_such() {
    let Some(mut host) = Host::new() else { return };
    // No check decodes the bytes: the header is sufficient.
    let body = "\u{1f}\u{8b}\u{8}\u{0}\u{0}\u{0}\u{0}\u{0}";
    let coded = |coding: &str| json!([response("200 OK", &format!("Content-Encoding: {coding}\r\n"), body)]);
    let cases = [
        case("F14 gzip", coded("gzip"), "malformed provider", "compressed (gzip)"),
        case("F14 deflate", coded("deflate"), "malformed provider", "compressed (deflate)"),
        case("br", coded("br"), "malformed provider", "compressed (br)"),
        case("zstd", coded("zstd"), "malformed provider", "compressed (zstd)"),
        case("capitals", coded("GZIP"), "malformed provider", "compressed (gzip)"),
        case("twice", coded("identity, gzip"), "malformed provider", "compressed"),
        case("an unknown coding", coded("canary-coding"), "malformed provider", ""),
        case(
            "identity",
            json!([response("200 OK", "Content-Encoding: identity\r\n", MODELS)]),
            "ok none",
            "",
        ),
        case("an empty coding", json!([response("200 OK", "Content-Encoding: \r\n", MODELS)]), "ok none", ""),
    ];
    check(&mut host, &cases, &MODELS_ASK);
}

#[test]
fn compressed_body_is_named_for_every_check() {
    let Some(mut host) = Host::new() else { return };
    let body = "\u{1f}\u{8b}\u{8}\u{0}\u{0}\u{0}\u{0}\u{0}";
    let gzip = |status: &str| json!([response(status, "Content-Encoding: gzip\r\n", body)]);
    let named = |name| case(name, gzip("200 OK"), "", "compressed (gzip)");
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk(body)
    );
    let http = "[[probe]]\nname = \"http\"\nprovider = \"p\"\ncheck = \"http\"\npath = \"/\"\n\
                expect = { body_regex = \"data\" }\n";
    let stream = "[[probe]]\nname = \"stream\"\nprovider = \"p\"\ncheck = \"stream\"\nmodel = \"m\"\n";
    let asks = [
        ("F14 http with body_regex", "", http),
        ("F14 http, coding asked for", "headers = { \"accept-encoding\" = \"gzip\" }", http),
        ("chat", "", CHAT),
        (
            "models with a model",
            "",
            "[[probe]]\nname = \"has\"\nprovider = \"p\"\ncheck = \"models\"\nmodel = \"m\"\n",
        ),
    ];
    for (name, provider, sections) in asks {
        check(&mut host, &[named(name)], &Ask { checks: &[], provider, sections, ..MODELS_ASK });
    }
    let chunked = case("stream", json!([chunked]), "", "compressed (gzip)");
    check(&mut host, &[chunked], &Ask { checks: &[], sections: stream, ..MODELS_ASK });
    // Decided by the status alone.
    let errors = [
        case("503", gzip("503 Service Unavailable"), "unavailable provider", ""),
        case("401", gzip("401 Unauthorized"), "auth_failed caller", ""),
    ];
    check(&mut host, &errors, &MODELS_ASK);
}

#[test]
fn requests_ask_for_identity_encoding() {
    let Some(mut host) = Host::new() else { return };
    let mut models = good_listener("models", "127.0.0.1:8080");
    models["connections"] = json!([[[response("200 OK", "", MODELS)]]]);
    host.servers(&json!([
        models,
        listener("chat", "127.0.0.1:8081", json!([response("200 OK", "", COMPLETION)]))
    ]));
    let stream = "[[probe]]\nname = \"stream\"\nprovider = \"p\"\ncheck = \"stream\"\nmodel = \"m\"\n\
                  [[probe]]\nname = \"http\"\nprovider = \"p\"\ncheck = \"http\"\npath = \"/\"\n";
    host.once(&Ask { url: "http://127.0.0.1:8080/v1", checks: &["auth", "models"], ..MODELS_ASK });
    host.once(&Ask {
        url: "http://127.0.0.1:8081/v1",
        checks: &[],
        sections: &format!("{CHAT}{stream}"),
        ..MODELS_ASK
    });
    let requests = host.requests();
    assert_eq!(requests.len(), 5, "{requests:#?}");
    for request in requests {
        let head = request["head"].as_str().unwrap().to_ascii_lowercase();
        let codings: Vec<&str> =
            head.lines().filter_map(|line| line.strip_prefix("accept-encoding:")).map(str::trim).collect();
        println!("F14 {}: accept-encoding {codings:?}", head.lines().next().unwrap());
        assert_eq!(codings, ["identity"], "{head}");
    }
}

#[test]
fn folded_header_is_accepted() {
    let Some(mut host) = Host::new() else { return };
    let folded = |lines: &str| json!([response("200 OK", lines, MODELS)]);
    let kind = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json;\r\n charset=utf-8\r\nContent-Length: {}\r\n\r\n{MODELS}",
        MODELS.len()
    );
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After:\r\n 7\r\nContent-Length: 2\r\n\r\n{}";
    let cases = [
        case("folded by a space", folded("X-Note: a\r\n b\r\n"), "ok none", ""),
        case("folded by a tab", folded("X-Note: a\r\n\tb\r\n"), "ok none", ""),
        case("folded twice", folded("X-Note: a\r\n b\r\n   c\r\nX-Other: d\r\n"), "ok none", ""),
        case("folded from its beginning", folded("X-Note:\r\n a\r\n"), "ok none", ""),
        case("folded to an empty line", folded("X-Note: a\r\n \r\nX-Other: b\r\n"), "ok none", ""),
        case("Content-Type", json!([kind]), "ok none", ""),
        case("Retry-After", json!([busy]), "rate_limited caller", ""),
    ];
    let records = check(&mut host, &cases, &MODELS_ASK);
    let wait = &records.last().unwrap()["retry_after_seconds"];
    assert_eq!(wait.as_f64(), Some(7.0), "{wait}");
}

#[test]
fn bad_chunk_is_malformed() {
    let Some(mut host) = Host::new() else { return };
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = |chunks: &str| json!([format!("{head}{chunks}")]);
    let (verdict, whole) = ("malformed provider", chunk(MODELS));
    let cases = [
        case("F20 a size that is no number", body("zz\r\nhello\r\n0\r\n\r\n"), verdict, ""),
        case("a negative size", body("-5\r\nhello\r\n0\r\n\r\n"), verdict, ""),
        case("a size above 64 bits", body("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), verdict, ""),
        case("no end after the data", body("5\r\nhelloXX0\r\n\r\n"), verdict, ""),
        case("an empty size", body("\r\nhello\r\n0\r\n\r\n"), verdict, ""),
        case("a bad size after a good chunk", body(&format!("{whole}xyz\r\n")), verdict, ""),
        case("a size with a space in it", body("5 5\r\nhello\r\n0\r\n\r\n"), verdict, ""),
        case(
            "closed within a chunk",
            json!([format!("{head}ff\r\nhello"), end("close")]),
            "disconnected provider",
            "",
        ),
        case(
            "closed before the last chunk",
            json!([format!("{head}{whole}"), end("close")]),
            "disconnected provider",
            "",
        ),
        case(
            "an extension",
            body(&format!("{:x};a=b\r\n{MODELS}\r\n0\r\n\r\n", MODELS.len())),
            "ok none",
            "",
        ),
        case("a trailer", body(&format!("{whole}0\r\nX-Sum: 1\r\n\r\n")), "ok none", ""),
    ];
    check(&mut host, &cases, &MODELS_ASK);
}

#[test]
fn error_status_before_a_reset_decides() {
    let Some(mut host) = Host::new() else { return };
    let cut = |status: &str, how: &str| {
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: 1000\r\n\r\n{{\"er"
        );
        json!([text, { "pause": 0.1 }, end(how)])
    };
    let chunked = "HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    let cases = [
        case("401, reset in the body", cut("401 Unauthorized", "reset"), "auth_failed caller", ""),
        case("403, reset in the body", cut("403 Forbidden", "reset"), "permission caller", ""),
        case("429, reset in the body", cut("429 Too Many Requests", "reset"), "rate_limited caller", ""),
        case(
            "500, reset in the body",
            cut("500 Internal Server Error", "reset"),
            "server_error provider",
            "",
        ),
        case("503, reset in the body", cut("503 Service Unavailable", "reset"), "unavailable provider", ""),
        case("504, closed in the body", cut("504 Gateway Timeout", "close"), "gateway_timeout provider", ""),
        case(
            "502, reset in a chunk",
            json!([chunked, { "pause": 0.1 }, end("reset")]),
            "server_error provider",
            "",
        ),
        case(
            "503 without a body, reset at once",
            json!(["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", end("reset")]),
            "unavailable provider",
            "",
        ),
        case("200, reset in the body", cut("200 OK", "reset"), "disconnected provider", "reset"),
        case(
            "reset in the head",
            json!(["HTTP/1.1 503 Busy\r\nX-A", { "pause": 0.1 }, end("reset")]),
            "disconnected provider",
            "reset",
        ),
    ];
    let records = check(&mut host, &cases, &MODELS_ASK);
    assert_eq!(records[2]["retry_after_seconds"].as_f64(), Some(7.0), "{:#}", records[2]);
}

#[test]
fn error_status_before_the_request_is_read_decides() {
    let Some(mut host) = Host::new() else { return };
    let early = |status: &str| {
        json!([response(status, "Retry-After: 7\r\nConnection: close\r\n", "{}"), end("close")])
    };
    let cases = [
        case("P11 401", early("401 Unauthorized"), "auth_failed caller", ""),
        case("P11 413", early("413 Content Too Large"), "invalid_request caller", ""),
        case("P11 429", early("429 Too Many Requests"), "rate_limited caller", ""),
        case("503", early("503 Service Unavailable"), "unavailable provider", ""),
    ];
    // About 600 KB, of which the server reads only what arrives with the head.
    let sections = format!("{CHAT}prompt_words = 100000\n");
    check(&mut host, &cases, &Ask { checks: &[], sections: &sections, ..MODELS_ASK });
}

#[test]
fn informational_responses_are_bounded() {
    let Some(mut host) = Host::new() else { return };
    let forever = |text: &str| json!([{ "repeat": text, "times": null }]);
    let then_good = |text: &str, times: usize| json!([{ "repeat": text, "times": times }, good()]);
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let long = format!("HTTP/1.1 103 Early Hints\r\nX-Long: {}\r\n\r\n", "x".repeat(8000));
    let verdict = "malformed provider";
    let cases = [
        case("endless 100", forever("HTTP/1.1 100 Continue\r\n\r\n"), verdict, ""),
        case("endless 103", forever(hints), verdict, ""),
        case("endless 102", forever("HTTP/1.1 102 Processing\r\n\r\n"), verdict, ""),
        case(
            "an endless header",
            json!(["HTTP/1.1 200 OK\r\nX-A: ", { "repeat": "x", "times": null }]),
            verdict,
            "",
        ),
        case(
            "headers without end",
            json!(["HTTP/1.1 200 OK\r\n", { "repeat": "X-A: b\r\n", "times": null }]),
            verdict,
            "",
        ),
        case(
            "a status line without end",
            json!(["HTTP/1.1 200 ", { "repeat": "O", "times": null }]),
            verdict,
            "",
        ),
        case("above 64 KiB before the final head", then_good(&long, 12), verdict, ""),
        case("one 100", then_good("HTTP/1.1 100 Continue\r\n\r\n", 1), "ok none", ""),
        case("one 103", then_good(hints, 1), "ok none", ""),
        case("three 103", then_good(hints, 3), "ok none", ""),
    ];
    check(&mut host, &cases, &MODELS_ASK);
}

/// Endings of an exchange over HTTP/2, good and bad.
fn http_2_cases() -> Vec<Case> {
    let cut = "disconnected provider";
    let reset = |code| json!([h2_reset(code)]);
    let goaway = |code| json!([h2_goaway(0, code), { "pause": 0.1 }, end("close")]);
    let hints = |times: Value| {
        let mut frame = h2_early_hints();
        frame["times"] = times;
        frame
    };
    vec![
        case("F20 RST_STREAM HTTP_1_1_REQUIRED", reset(13), cut, "HTTP_1_1_REQUIRED"),
        case("F20 RST_STREAM REFUSED_STREAM", reset(7), cut, "REFUSED_STREAM"),
        case("F20 GOAWAY ENHANCE_YOUR_CALM", goaway(11), cut, "ENHANCE_YOUR_CALM"),
        case("RST_STREAM INTERNAL_ERROR", reset(2), cut, "INTERNAL_ERROR"),
        case("RST_STREAM PROTOCOL_ERROR", reset(1), cut, "PROTOCOL_ERROR"),
        case("RST_STREAM CANCEL", reset(8), cut, "CANCEL"),
        case("RST_STREAM FLOW_CONTROL_ERROR", reset(3), cut, "FLOW_CONTROL_ERROR"),
        case("RST_STREAM INADEQUATE_SECURITY", reset(12), cut, "INADEQUATE_SECURITY"),
        case("RST_STREAM of an unknown code", reset(0x77), cut, ""),
        case("GOAWAY INTERNAL_ERROR", goaway(2), cut, "INTERNAL_ERROR"),
        case("GOAWAY HTTP_1_1_REQUIRED", goaway(13), cut, "HTTP_1_1_REQUIRED"),
        case(
            "RST_STREAM in the body",
            json!([h2_head(), h2_data("{\"da", false), h2_reset(2)]),
            cut,
            "INTERNAL_ERROR",
        ),
        case("F17 closed without a word", json!([end("close")]), cut, "closed before the response"),
        case("three 103", json!([hints(json!(3)), h2_good()[0], h2_good()[1]]), "ok none", ""),
        case("endless 103", json!([hints(Value::Null)]), "malformed provider", ""),
        case("a good response", json!(h2_good()), "ok none", ""),
    ]
}

#[test]
fn error_code_of_http_2_is_in_the_detail() {
    let Some(mut host) = Host::new() else { return };
    let (tls, ca) = http_2(&host);
    let cases = http_2_cases();
    let plays = |(number, case): (usize, &Case)| {
        let mut listener =
            listener(&case.name, &format!("127.0.0.1:{}", 9000 + number), case.actions.clone());
        listener["tls"] = tls.clone();
        listener["h2"] = json!(true);
        listener
    };
    host.servers(&cases.iter().enumerate().map(plays).collect());
    let provider = format!("ca_file = \"{ca}\"");
    let mut table = Table::default();
    for (number, case) in cases.iter().enumerate() {
        let url = format!("https://127.0.0.1:{}/v1", 9000 + number);
        let curl = host.curl(&["--cacert", &ca, "-m", "3"], &[], &url);
        for record in host.once(&Ask { url: &url, provider: &provider, ..MODELS_ASK }) {
            table.row(&case.name, &record, case.verdict, case.detail, &curl);
            let seconds = record["duration_seconds"].as_f64().unwrap();
            table.expect(&case.name, seconds < PROMPT, format!("it took {seconds} s"));
        }
    }
    table.finish();
}

#[test]
fn record_names_the_clock_of_arrival_times() {
    let Some(mut host) = Host::new() else { return };
    host.servers(&json!([good_listener("here", "127.0.0.1:8080")]));
    let ask = Ask { url: "http://127.0.0.1:8080/v1", checks: &["auth", "models"], ..MODELS_ASK };
    let mut table = Table::default();
    for record in host.once(&ask) {
        table.row("clock", &record, "ok none", "", format!("clock: {}", record["clock"]));
        let known = ["kernel", "process"].iter().any(|clock| record["clock"] == *clock);
        table.expect("clock", known, &record["clock"]);
    }
    table.finish();
}
