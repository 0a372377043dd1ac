//! Tests of kept connections: one that fails is never reused, one that closes in time is replaced,
//! and one after a stream is reused.

use serde_json::{Value, json};

use crate::harness::{
    certificates::http_2,
    host::Host,
    script::{COMPLETION, EVENTS, chunk, end, good, h2_data, h2_goaway, h2_good, h2_head, response},
    table::{Table, verdict_of},
    wait::wait_for,
};

/// A warm probe and its server.
struct Case {
    name: &'static str,
    check: &'static str,
    is_h2: bool,
    /// Scripts of the server's connections; the last one is repeated.
    connections: Value,
    /// Verdict and use of the connection of consecutive runs.
    runs: &'static [(&'static str, &'static str)],
}

const OK: &str = "ok none";
const CUT: &str = "disconnected provider";
const TIMEOUT: &str = "timeout provider";

/// Returns a response whose head, event chunks and end of body are separate writes.
fn stream(pause: f64) -> Value {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let events: String = EVENTS.iter().map(|event| chunk(event)).collect();
    json!([format!("{head}{events}"), { "pause": pause }, "0\r\n\r\n"])
}

fn h1(name: &'static str, connections: Value, runs: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, check: "auth", is_h2: false, connections, runs }
}

fn h2(name: &'static str, connections: Value, runs: &'static [(&'static str, &'static str)]) -> Case {
    Case { is_h2: true, ..h1(name, connections, runs) }
}

const HUNG: &[(&str, &str)] =
    &[(OK, "new"), (OK, "reused"), (TIMEOUT, "reused"), (OK, "new"), (OK, "reused")];
const REPLACED: &[(&str, &str)] = &[(OK, "new"), (OK, "replaced"), (OK, "reused")];
const CUT_SHORT: &[(&str, &str)] = &[(OK, "new"), (CUT, "reused"), (OK, "new")];
const KEPT: &[(&str, &str)] = &[(OK, "new"), (OK, "reused"), (OK, "reused")];

fn once_then(good: &Value, then: Value) -> Value {
    let second = Value::Array(vec![good.clone(), then]);
    json!([second, [good]])
}

/// The beginning of a response that is never completed.
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"obj";

/// Connections that stop answering, and streams.
fn silent_cases() -> Vec<Case> {
    let good_1 = json!([good()]);
    let good_2 = json!(h2_good());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let streamed = |name, answer: Value| Case { check: "stream", ..h1(name, json!([[answer]]), KEPT) };
    vec![
        h2("A2 HTTP/2 stalls", json!([[good_2, good_2, [end("hang")]], [good_2]]), HUNG),
        h1("HTTP/1.1 stalls", json!([[good_1, good_1, [end("hang")]], [good_1]]), HUNG),
        h2(
            "HTTP/2 stalls in the body",
            json!([[good_2, good_2, [h2_head(), h2_data("{", false)]], [good_2]]),
            HUNG,
        ),
        h1("HTTP/1.1 stalls in the body", json!([[good_1, good_1, [HALF]], [good_1]]), HUNG),
        streamed("A5 last chunk apart, at once", stream(0.0)),
        streamed("A5 last chunk apart, 20 ms later", stream(0.02)),
        Case {
            check: "stream",
            ..h1(
                "a stream stalls",
                json!([[stream(0.0), [head, ":\n\n", end("hang")]], [stream(0.0)]]),
                &[(OK, "new"), ("stream_stalled provider", "reused"), (OK, "new"), (OK, "reused")],
            )
        },
    ]
}

/// Connections that close.
fn ending_cases() -> Vec<Case> {
    let good_1 = json!([good()]);
    let good_2 = json!(h2_good());
    let completion = json!([response("200 OK", "", COMPLETION)]);
    let late = "HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let announced = good().replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let goaway = json!([h2_goaway(1, 0), { "pause": 0.05 }, end("close")]);
    let reset = json!([HALF, { "pause": 0.05 }, end("reset")]);
    let (close, pause) = (json!([end("close")]), json!({ "pause": 0.3 }));
    vec![
        h1("closed as the request arrives", once_then(&good_1, close.clone()), REPLACED),
        Case {
            check: "chat",
            ..h1("POST, closed as it arrives", once_then(&completion, close.clone()), REPLACED)
        },
        h1("reset as the request arrives", once_then(&good_1, json!([end("reset")])), REPLACED),
        h2("HTTP/2 closed as the request arrives", once_then(&good_2, close.clone()), REPLACED),
        h2("GOAWAY as the request arrives", once_then(&good_2, goaway), REPLACED),
        h1("closed while idle", json!([[[good(), pause, end("close")]], [good_1]]), REPLACED),
        h1("408 while idle, then closed", json!([[[good(), pause, late, end("close")]], [good_1]]), REPLACED),
        h1("closed after the first byte", once_then(&good_1, json!(["H", end("close")])), CUT_SHORT),
        h1("reset in the body", once_then(&good_1, reset), CUT_SHORT),
        h1(
            "a new connection is not replaced",
            json!([[close], [good_1]]),
            &[(CUT, "new"), (OK, "new"), (OK, "reused")],
        ),
        h1(
            "a replacement is not replaced",
            json!([[good_1, close], [close], [good_1]]),
            &[(OK, "new"), (CUT, "replaced"), (OK, "new")],
        ),
        h1(
            "announced to be closed",
            json!([[[announced, end("close")]]]),
            &[(OK, "new"), (OK, "new"), (OK, "new")],
        ),
    ]
}

/// Runs the cases concurrently, each with a server of its own, and compares their records.
fn check(cases: &[Case]) -> Option<(Host, Table)> {
    let mut host = Host::new()?;
    let (tls, ca) = http_2(&host);
    let server = |(number, case): (usize, &Case)| {
        let at = format!("127.0.0.1:{}", 9000 + number);
        let mut server =
            json!({ "name": case.name, "at": at, "connections": case.connections, "h2": case.is_h2 });
        if case.is_h2 {
            server["tls"] = tls.clone();
        }
        server
    };
    host.servers(&cases.iter().enumerate().map(server).collect());
    let sections: String =
        cases.iter().enumerate().map(|(number, case)| section(number, case, &ca)).collect();
    let mut daemon = host.daemon(&sections);
    let runs: Vec<Vec<Value>> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| {
            wait_for(&format!("{} runs of {}", case.runs.len(), case.name), || {
                let records = host.results(&format!("w{number}"));
                Some(records).filter(|records| records.len() >= case.runs.len())
            })
        })
        .collect();
    daemon.stop();
    let mut table = Table::default();
    for (case, records) in cases.iter().zip(&runs) {
        for (number, ((verdict, connection), record)) in case.runs.iter().zip(records).enumerate() {
            let used = record["connection"].as_str().unwrap_or_default();
            let name = format!("{}, run {}", case.name, number + 1);
            table.row(&name, record, verdict, "", format!("{used}, expected {connection}"));
            table.expect(
                &name,
                used == *connection,
                format!("{used}, not {connection}: {}", verdict_of(record)),
            );
        }
    }
    Some((host, table))
}

/// Returns the sections of a case's provider and probe.
fn section(number: usize, case: &Case, ca: &str) -> String {
    let scheme = if case.is_h2 { "https" } else { "http" };
    let model = match case.check {
        "stream" => "model = \"m\"\nstall_timeout = \"500ms\"\n",
        "chat" => "model = \"m\"\n",
        _ => "",
    };
    format!(
        "[provider.w{number}]\napi = \"openai\"\nbase_url = \"{scheme}://127.0.0.1:{}/v1\"\nca_file = \"{ca}\"\n\
         api_key = {{ env = \"SIM_KEY\" }}\nallow_plain_http = true\n[[probe]]\nname = \"w{number}\"\n\
         provider = \"w{number}\"\ncheck = \"{}\"\nconnection = \"warm\"\ninterval = \"2s\"\n\
         timeout = \"1500ms\"\n{model}",
        9000 + number,
        case.check
    )
}

#[test]
fn blocked_connection_is_never_reused() {
    if let Some((_, table)) = check(&silent_cases()) {
        table.finish();
    }
}

#[test]
fn connection_closed_in_time_is_replaced_once() {
    let Some((host, mut table)) = check(&ending_cases()) else { return };
    // A request is repeated once, on the connection that replaces a kept one, and never otherwise.
    let requests = host.requests();
    for (name, connection, expected) in [
        ("closed as the request arrives", 0, 2),
        ("a new connection is not replaced", 0, 1),
        ("a replacement is not replaced", 1, 1),
        ("closed after the first byte", 0, 2),
    ] {
        let of = |request: &&Value| request["listener"] == name && request["connection"] == connection;
        let found = requests.iter().filter(of).count();
        let otherwise = format!("{found} requests on connection {connection}, not {expected}");
        table.expect(name, found == expected, otherwise);
    }
    table.finish();
}
