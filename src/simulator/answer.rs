//! Chooses the reaction to a request: header and scenario select a fault, the simulated service
//! supplies the content.

use std::{
    io::Write as _,
    time::{Duration, Instant, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    api::{Call, Failure, SimulatedService, failure, faulty_stream, status_page, success},
    exchange::{Action, Chunk, Ending, Reply, Request},
    fault::{Fault, Kind, Parameters},
    pace::Pace,
    record::Entry,
    scenario::{Effect, Reaction, RequestFacts, Script},
};
use crate::sync::Mutex;

/// Header that selects fault and pace of one request instead of the scenario: `NAME; key=value`.
const HEADER: &str = "x-simulate";
/// Tokens that `wrong_usage` reports in addition; no request allows so many.
const SURPLUS_TOKENS: usize = 1_000_000;
/// Number of pieces in which `slow_body` sends a body.
const SLOW_PIECES: usize = 4;
/// Size of the body of `oversized`: 80 pieces of 64 KiB, 5 MiB; a prober reads at most 4 MiB.
const OVERSIZED_PIECES: usize = 80;
const OVERSIZED_PIECE: usize = 64 * 1024;
/// Number of headers of `header_flood`, each of half a kilobyte: more in number and size than HTTP
/// clients accept.
const FLOOD_HEADERS: usize = 1000;

/// Decides how to react to a request, and records it.
pub(super) fn answer(request: &Request, script: &Mutex<Script>, entry: &Entry) -> Action {
    entry.describe(request);
    // Decoded as the services do, because a model's name in the path may contain any character.
    let path = percent_decode_str(request.path()).decode_utf8_lossy();
    let addressed = SimulatedService::of_path(&path);
    let mut call = addressed.map(|(provider, rest)| Call::new(provider, rest, request));
    // The scenario counts the request even if the header overrides it.
    let (mut reaction, more_models) = consult(script, &path, call.as_ref());
    match request.header(HEADER).map(parse_header) {
        None => {}
        Some(Ok((fault, pace))) => {
            let streams = call.as_ref().is_some_and(Call::streams);
            let fault = fault.filter(|fault| streams || !fault.kind.is_for_streams());
            reaction = Reaction { effect: fault.map(Effect::Fault), pace: pace.or(&reaction.pace) };
        }
        Some(Err(error)) => return refused(entry, &error),
    }
    let extra = reaction.pace.extra();
    if let Some(call) = &mut call {
        call.more_models = &more_models;
        if matches!(&reaction.effect, Some(Effect::Fault(fault)) if fault.kind == Kind::WrongUsage) {
            call.surplus_tokens = SURPLUS_TOKENS;
        }
        call.pace = reaction.pace;
        read_prompt(script, call);
    }
    let (mut action, fault) = match reaction.effect {
        None => (Action::Reply(with_date(fair(call.as_ref(), &path))), None),
        // A response from the scenario is sent unchanged.
        Some(Effect::Respond(reply, name)) => (Action::Reply(*reply), Some(name)),
        Some(Effect::Fault(fault)) => {
            let action = match apply_fault(&fault, call.as_ref(), &path) {
                Action::Reply(reply) => Action::Reply(with_date(reply)),
                other => other,
            };
            (action, Some(fault.kind.name()))
        }
    };
    if let Action::Reply(reply) = &mut action {
        reply.delay += extra;
    }
    let mut recorded = entry.lock();
    recorded.provider = addressed.map(|(provider, _)| provider);
    recorded.model = call.as_ref().and_then(Call::model).map(|model| model.chars().take(64).collect());
    recorded.fault = fault;
    if let Action::Reply(reply) = &action {
        recorded.status = Some(reply.status);
    }
    action
}

/// Returns the scenario's rule for the request, and its models of the addressed service.
fn consult(script: &Mutex<Script>, path: &str, call: Option<&Call<'_>>) -> (Reaction, Vec<String>) {
    let provider = call.map(|call| call.provider);
    let facts = RequestFacts {
        provider,
        path,
        model: call.and_then(Call::model),
        key: call.and_then(|call| call.key),
        streams: call.is_some_and(Call::streams),
    };
    let mut script = script.lock();
    let reaction = script.for_request(&facts, Instant::now());
    (reaction, provider.map_or_else(Vec::new, |provider| script.scenario().models(provider).to_vec()))
}

/// Takes the time to read the prompt into the pace, less what the prompt cache has of it.
fn read_prompt(script: &Mutex<Script>, call: &mut Call<'_>) {
    let Some((model, prompt)) = call.model().map(str::to_owned).zip(call.prompt()) else { return };
    call.pace.obey(&prompt);
    if call.pace.prefill.is_none() {
        return;
    }
    let mut script = script.lock();
    call.cached_tokens = script.prompts.visit(&model, prompt).min(call.input_tokens());
    call.pace.read_prompt(call.input_tokens() - call.cached_tokens);
}

fn parse_header(text: &str) -> Result<(Option<Fault>, Pace), String> {
    let (fault, pace) = Fault::parse(text)?;
    if fault.as_ref().is_some_and(|fault| fault.kind.is_for_connections()) {
        return Err("the fault applies before a request is read".to_owned());
    }
    Ok((fault, pace))
}

/// Answers an invalid header, in the name of the simulator.
fn refused(entry: &Entry, message: &str) -> Action {
    entry.lock().status = Some(400);
    Action::Reply(Reply::new(400, "text/plain", format!("{HEADER}: {message}\n")))
}

fn with_date(mut reply: Reply) -> Reply {
    reply.headers.insert(0, ("Date".to_owned(), httpdate::fmt_http_date(SystemTime::now())));
    reply
}

fn fair(call: Option<&Call<'_>>, path: &str) -> Reply {
    let not_found = || Reply::new(404, "text/plain", "no simulated service has this path\n");
    call.map(success).or_else(|| status_page(path, None)).unwrap_or_else(not_found)
}

/// Applies a fault to the request.
fn apply_fault(fault: &Fault, call: Option<&Call<'_>>, path: &str) -> Action {
    let Fault { kind, parameters } = fault;
    let pause = parameters.pause.unwrap_or_default();
    let fair = || fair(call, path);
    // Outside of every service's prefix there is no service whose error format could be used.
    let fails = |what| match call {
        Some(call) => failure(what, call, parameters),
        None => Reply::new(503, "text/plain", "no simulated service has this path\n"),
    };
    Action::Reply(match kind {
        Kind::AuthFailed => fails(Failure::InvalidKey),
        Kind::ProviderAuthFailed => fails(Failure::UpstreamKey),
        Kind::RateLimited => fails(Failure::RateLimited),
        Kind::Billing => fails(Failure::Billing),
        Kind::Unavailable => fails(Failure::Unavailable),
        Kind::GatewayTimeout => fails(Failure::GatewayTimeout),
        Kind::Overloaded => fails(Failure::Overloaded),
        Kind::ServerError => fails(Failure::ServerError),
        Kind::SlowHeaders => late(fair(), pause),
        Kind::SlowBody => in_pieces(fair(), pause),
        Kind::Cut => cut(fair(), Ending::CloseAfter),
        Kind::Reset => cut(fair(), Ending::ResetAfter),
        Kind::Html => html(parameters),
        Kind::Redirect => {
            Reply::new(parameters.status.unwrap_or(302), "text/html", "").with("Location", "/elsewhere")
        }
        Kind::Oversized => oversized(fair()),
        Kind::HeaderFlood => flooded(fair()),
        Kind::ErrorIn200 => Reply::json(200, &error_in_200(call, parameters)),
        Kind::Malformed => malformed(fair()),
        Kind::Empty => Reply { body: Vec::new(), ..fair() },
        Kind::Compressed => compressed(fair()),
        Kind::WrongUsage => fair(),
        Kind::Incident => {
            let incident = parameters.variant.as_deref().unwrap_or("major");
            status_page(path, Some(incident)).unwrap_or_else(fair)
        }
        Kind::LowBalance => low_balance(fair()),
        Kind::Stall => return Action::Stall,
        Kind::Garbage => return Action::Garbage,
        Kind::CutBeforeHeaders => return Action::Close { reset: parameters.variant.is_some() },
        Kind::StreamErrorFirst
        | Kind::StreamErrorMid
        | Kind::StreamTruncated
        | Kind::StreamStalled
        | Kind::StreamEndless
        | Kind::StreamAfterDone
        | Kind::StreamEmpty
        | Kind::StreamMultibyte
        | Kind::StreamCommentsOnly => call.map_or_else(&fair, |call| faulty_stream(fault, call)),
        Kind::SlowAccept | Kind::SlowHandshake | Kind::ResetHandshake => {
            unreachable!("scenario and header refuse these for requests")
        }
    })
}

fn late(mut reply: Reply, pause: Duration) -> Reply {
    reply.delay += pause;
    reply
}

fn in_pieces(mut reply: Reply, pause: Duration) -> Reply {
    let content = reply.content();
    let size = content.len().div_ceil(SLOW_PIECES).max(1);
    let pieces = content.chunks(size).map(|piece| Chunk::at_once(content.slice_ref(piece)));
    reply.body = pieces.map(|piece| Chunk { pause, ..piece }).collect();
    reply
}

fn cut(mut reply: Reply, ending: impl Fn(usize) -> Ending) -> Reply {
    reply.ending = ending(reply.content_length() / 2);
    reply
}

/// Returns an HTML page as a proxy or captive portal would send.
fn html(parameters: &Parameters) -> Reply {
    let status = parameters.status.unwrap_or(200);
    Reply::new(
        status,
        "text/html; charset=utf-8",
        "<!DOCTYPE html>\n<html><head><title>Gateway</title></head><body><h1>Please sign in</h1></body></html>\n",
    )
}

/// Compresses each part of the body at its time.
fn compressed(mut reply: Reply) -> Reply {
    const INFALLIBLE: &str = "a Vec takes every byte";
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for chunk in &mut reply.body {
        encoder.write_all(&chunk.bytes).and_then(|()| encoder.flush()).expect(INFALLIBLE);
        chunk.bytes = std::mem::take(encoder.get_mut()).into();
    }
    reply.body.push(Chunk::at_once(encoder.finish().expect(INFALLIBLE)));
    reply.with("Content-Encoding", "gzip")
}

/// Prepends white space to the reply, so that only its size is wrong.
fn oversized(mut reply: Reply) -> Reply {
    let piece = Chunk::at_once(vec![b' '; OVERSIZED_PIECE]);
    let content = Chunk::at_once(reply.content());
    reply.body = std::iter::repeat_n(piece, OVERSIZED_PIECES).chain([content]).collect();
    reply
}

fn flooded(reply: Reply) -> Reply {
    let value = "x".repeat(512);
    (0..FLOOD_HEADERS).fold(reply, |reply, number| reply.with(&format!("x-flood-{number}"), value.clone()))
}

/// Reduces the balance in the reply, if there is one.
fn low_balance(mut reply: Reply) -> Reply {
    let Ok(mut body) = serde_json::from_slice::<Value>(&reply.content()) else { return reply };
    for (pointer, left) in [("/balance", 0.05), ("/data/limit_remaining", 0.0)] {
        if let Some(amount) = body.pointer_mut(pointer) {
            *amount = json!(left);
        }
    }
    reply.body = vec![Chunk::at_once(body.to_string())];
    reply
}

fn malformed(mut reply: Reply) -> Reply {
    let content = reply.content();
    reply.body = vec![Chunk::at_once(content.slice(..content.len() / 2))];
    reply
}

/// Returns an error for a 200 response: `LangMart`'s two flags, or another service's error object.
fn error_in_200(call: Option<&Call<'_>>, parameters: &Parameters) -> Value {
    match call {
        Some(call) if call.provider != SimulatedService::Langmart => {
            serde_json::from_slice(&failure(Failure::ServerError, call, parameters).content())
                .unwrap_or_default()
        }
        _ if parameters.variant.is_some() => json!({"ok": false, "message": "not permitted"}),
        _ => json!({"success": false, "error": "Account not found"}),
    }
}
