//! Tests of rules: matching, effects and errors.

use super::*;

const CHAT: RequestFacts<'_> = RequestFacts {
    provider: Some(SimulatedService::Groq),
    path: "/groq/openai/v1/chat/completions",
    model: Some("m"),
    key: Some("sk-one"),
    streams: false,
};

fn script(text: &str) -> Script {
    Script::begin(Scenario::parse(text).unwrap())
}

fn name(effect: Option<Effect>) -> Option<&'static str> {
    effect.map(|effect| match effect {
        Effect::Fault(fault) => fault.kind.name(),
        Effect::Respond(_, name) => name,
    })
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    let message = Scenario::parse(text).unwrap_err().to_string();
    assert!(message.contains(expected), "{text}: {message}");
}

#[track_caller]
fn check_match(rule: &str, matches: bool) {
    let effect =
        script(&format!("[[rule]]\n{rule}\nfault = 'stall'")).for_request(&CHAT, Instant::now()).effect;
    assert_eq!(effect.is_some(), matches, "{rule}");
}

#[test]
fn rules_match_provider_path_model_and_key() {
    check_match("", true);
    check_match("provider = 'groq'", true);
    check_match("provider = 'openai'", false);
    check_match("path = '/chat'", true);
    check_match("path = '/models'", false);
    check_match("model = 'm'", true);
    check_match("model = 'n'", false);
    check_match("key_contains = 'one'", true);
    check_match("key_contains = 'two'", false);
}

#[test]
fn first_matching_rule_applies_and_all_count() {
    let mut script = script(
        "[[rule]]\ncalls = { from = 2, to = 3 }\nfault = 'stall'\n\
         [[rule]]\ncalls = { from = 3 }\nfault = 'cut'\n\
         [[rule]]\nmodel = 'other'\nrespond = { status = 418 }",
    );
    let reaction: Vec<_> = (0..5).map(|_| name(script.for_request(&CHAT, Instant::now()).effect)).collect();
    assert_eq!(reaction, [None, Some("stall"), Some("stall"), Some("cut"), Some("cut")]);
}

#[test]
fn stream_faults_ignore_other_requests() {
    let mut script = script("[[rule]]\ncalls = { to = 1 }\nfault = 'stream_stalled'");
    assert_eq!(name(script.for_request(&CHAT, Instant::now()).effect), None);
    let stream = RequestFacts { streams: true, ..CHAT };
    assert_eq!(
        name(script.for_request(&stream, Instant::now()).effect),
        Some("stream_stalled"),
        "not counted"
    );
}

#[test]
fn paces_combine_with_each_other_and_with_faults() {
    let mut script = script(
        "[[rule]]\nprovider = 'groq'\npace = { extra = '80ms' }\n\
         [[rule]]\ncalls = { to = 1 }\nfault = 'stall'\npace = { tokens = 3 }\n\
         [[rule]]\npace = { tokens = 8, first_token = '50ms' }",
    );
    let mut react = || {
        let Reaction { effect, pace } = script.for_request(&CHAT, Instant::now());
        (name(effect), pace.tokens, pace.extra().as_millis(), pace.first_token().as_millis())
    };
    assert_eq!(react(), (Some("stall"), Some(3), 80, 50));
    assert_eq!(react(), (None, Some(8), 80, 50));
}

#[test]
fn rules_apply_during_their_time() {
    let mut script = script("[[rule]]\nafter = '20s'\nuntil = '1m'\nfault = 'stall'");
    let began = script.began;
    let mut at = |seconds| script.for_request(&CHAT, began + Duration::from_secs(seconds)).effect.is_some();
    assert_eq!([at(0), at(19), at(20), at(59), at(60)], [false, false, true, true, false]);
}

#[test]
fn probability_is_reproducible_and_accurate() {
    let run = |seed: u64| {
        let text = format!("seed = {seed}\n[[rule]]\nprobability = 0.2\nfault = 'stall'");
        let mut script = script(&text);
        (0..5000).map(|_| script.for_request(&CHAT, Instant::now()).effect.is_some()).collect::<Vec<_>>()
    };
    let struck = run(1);
    assert_eq!(struck, run(1));
    assert_ne!(struck, run(2));
    let count = struck.iter().filter(|struck| **struck).count();
    assert!((900..1100).contains(&count), "{count} of 5000");
}

#[test]
fn connection_faults_are_separate() {
    let mut script = script("[[rule]]\ncalls = { to = 1 }\nfault = 'slow_handshake'\nms = 3");
    let now = Instant::now();
    assert!(script.for_request(&CHAT, now).effect.is_none());
    assert!(script.for_connection(Kind::ResetHandshake, now).is_none());
    let fault = script.for_connection(Kind::SlowHandshake, now).unwrap();
    assert_eq!(fault.parameters.pause, Some(Duration::from_millis(3)));
    assert!(script.for_connection(Kind::SlowHandshake, now).is_none(), "the first connection only");
}

#[test]
fn errors_name_rule_and_key() {
    check_refused("sed = 1", "unknown field `sed`");
    check_refused("[[rule]]\nfault = 'stall'\nprovidr = 'x'", "unknown field `providr`");
    check_refused("[[rule]]\nfault = 'stall'\n[[rule]]\npath = '/'", "rule 2: needs either fault or respond");
    check_refused("[[rule]]\nfault = 'x'", "rule 1: unknown fault \"x\"");
    check_refused("[[rule]]\nprovider = 'x'\nfault = 'stall'", "rule 1: provider: unknown provider \"x\"");
    check_refused(
        "[[rule]]\nfault = 'stall'\nafter = '20'",
        "rule 1: after: \"20\" is not a number with unit",
    );
    check_refused("[[rule]]\nfault = 'stall'\nafter = '2s'\nuntil = '2s'", "until: must be later than after");
    check_refused("[[rule]]\nfault = 'stall'\ncalls = { from = 0 }", "calls: from must be at least 1");
    check_refused(
        "[[rule]]\nfault = 'stall'\ncalls = { from = 3, to = 2 }",
        "calls: from must be at least 1",
    );
    check_refused("[[rule]]\nfault = 'stall'\nprobability = 1.5", "probability: must be from 0 to 1");
    check_refused("[[rule]]\nfault = 'reset_handshake'\npath = '/x'", "before a request is read");
    check_refused("[[rule]]\nfault = 'reset_handshake'\npace = { tokens = 1 }", "before a request is read");
    check_refused("[[rule]]\npace = { token = '1' }", "rule 1: pace.token: \"1\" is not a number");
    check_refused("[[rule]]\npace = { tokns = 1 }", "unknown field `tokns`");
    check_refused("[[rule]]\nms = 3\npace = { tokens = 1 }", "or a pace alone");
    check_refused("[[rule]]\nrespond = { status = 99 }", "respond.status: must be from 200 to 599");
    check_refused("[[rule]]\nstatus = 3\nrespond = { status = 200 }", "inside its own braces");
    check_refused("[[rule]]\nrespond = { status = 200, headers = { a = \"b\\nc\" } }", "a line break");
    check_refused("[models]\nx = []", "models.x: unknown provider");
    let error = Scenario::default().play(None, b"{}").unwrap_err();
    assert_eq!(error.to_string(), "rule 1: the response has no empty line after the headers");
}

#[test]
fn durations_require_a_unit() {
    assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(parse_duration("6.3525s"), Ok(Duration::from_secs_f64(6.3525)));
    assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
    for wrong in ["", "s", "-1s", "1", "1 s", "1d", "inf s", "1e9h", "1001h"] {
        assert!(parse_duration(wrong).is_err(), "{wrong}");
    }
}
