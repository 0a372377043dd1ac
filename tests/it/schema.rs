//! Tests that records match their published schema, and that the schema is complete and stable.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use langmart_prober::outcome::{
    AddressFailure, Balance, Check, Clock, Compared, ComponentStatus, ConnectionUse, Detail, DnsServer,
    FailedAddress, Fault, Indicator, LimitedBy, LookupFailure, Maintenance, Measure, Network, Outcome, Pair,
    PairVerdict, Phases, RateLimit, Reason, Record, Resource, Side, StatusPage, StreamShape, Subject, Tls,
};
use regex::Regex;
use serde_json::{Map, Value, json};

/// The members of version 1. A later version of the program may add some, but must not remove any.
const VERSION_1: &str = "time probe provider check model success reason fault detail hint http_status http_version \
    error_code upstream request_id retry_after_seconds limited_by reported_processing_seconds model_shutdown \
    answered_model model_match duration_seconds phases remote_address ratelimit tls dns failed_addresses clock \
    dns_servers clock_offset_seconds time_to_first_token_seconds time_to_first_reasoning_seconds \
    time_per_output_token_seconds stream buffered input_tokens cached_input_tokens output_tokens tokens_estimated \
    estimated_cost_usd status_page balance recheck connection slow offline comparison side verdict";

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/reference/record.v1.schema.json")).unwrap()
}

/// Returns the first contradiction of a value to a schema. Members that the schema does not have
/// are contradictions as well. Panics at keywords that it does not know.
fn contradiction(schema: &Value, value: &Value, root: &Value) -> Option<String> {
    let keywords = schema.as_object().expect("a schema is an object");
    let rejects = |(keyword, rule): (&String, &Value)| match keyword.as_str() {
        "$schema" | "$id" | "$defs" | "title" | "description" => None,
        "$ref" => {
            let target =
                root.pointer(rule.as_str()?.strip_prefix('#')?).expect("a reference leads somewhere");
            contradiction(target, value, root)
        }
        "type" => (!has_type(value, rule.as_str()?)).then(|| format!("{value} is no {rule}")),
        "enum" => (!rule.as_array()?.contains(value)).then(|| format!("{value} is not among {rule}")),
        "minimum" => (value.as_f64()? < rule.as_f64()?).then(|| format!("{value} is below {rule}")),
        "pattern" => (!Regex::new(rule.as_str()?).unwrap().is_match(value.as_str()?))
            .then(|| format!("{value}: {rule}")),
        "items" => value.as_array()?.iter().find_map(|item| contradiction(rule, item, root)),
        "required" => {
            let missing = rule.as_array()?.iter().find(|name| value.get(name.as_str().unwrap()).is_none());
            missing.map(|name| format!("{name} is missing"))
        }
        "properties" => members(value).find_map(|(name, member)| match rule.get(name) {
            Some(schema) => contradiction(schema, member, root),
            None => Some(format!("{name} is unknown")),
        }),
        "additionalProperties" => members(value).find_map(|(_, member)| contradiction(rule, member, root)),
        unknown => panic!("the test does not know {unknown}"),
    };
    keywords.iter().find_map(rejects)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("the test does not know {unknown}"),
    }
}

/// Returns a run in which every member has a value. A new member does not compile until it is here.
fn full() -> Outcome {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_334_460_123);
    let second = Duration::from_secs(1);
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let measure =
        Measure { fault: Fault::None, duration: second, first_token: None, is_of_another_model: false };
    let server = |answer| DnsServer { server: "system".to_owned(), answer, duration: second };
    Outcome {
        time: now,
        reason: Reason::RateLimited,
        fault: Fault::Caller,
        detail: Some(Detail::JsonDiffers("/d".into())),
        hint: "wait as asked".into(),
        http_status: Some(429),
        http_version: Some("1.1"),
        error_code: Some("rate_limit_exceeded".into()),
        upstream: Some("openai"),
        request_id: Some("req_1".to_owned()),
        retry_after: Some(1.5),
        limited_by: Some(LimitedBy::Tokens),
        reported_processing: Some(second),
        model_shutdown: Some(now),
        answered_model: Some("gpt-4o".into()),
        model_match: Some(true),
        duration: second,
        phases: Phases::default(),
        remote_address: Some((address, 443).into()),
        ratelimit: vec![rate_limit(now)],
        tls: Some(tls(now)),
        dns: vec![address],
        failed_addresses: vec![FailedAddress { address, error: AddressFailure::Refused }],
        clock: Some(Clock::Kernel),
        network: Some(Box::new(Network {
            dns_servers: vec![server(Ok(vec![address])), server(Err(LookupFailure::NoAnswer))],
        })),
        clock_offset: Some(-0.5),
        time_to_first_token: Some(second),
        time_to_first_reasoning: Some(second),
        time_per_output_token: Some(second),
        stream: Some(Box::new(StreamShape { pieces: 80, bursts: 78, longest_gap: second })),
        buffered: Some(false),
        input_tokens: Some(10),
        cached_input_tokens: Some(0),
        output_tokens: Some(80),
        tokens_estimated: true,
        estimated_cost_usd: Some(0.001),
        status_page: Some(status_page(now)),
        balance: Some(Balance { usd: -1.0, minimum_usd: Some(0.1) }),
        recheck: Some(1),
        connection: Some(ConnectionUse::Replaced),
        slow: true,
        offline: true,
        compared: Some(Box::new(Compared {
            comparison: "langmart".to_owned(),
            side: Side::Gateway,
            pair: Some(Pair { gateway: measure, direct: measure }),
        })),
    }
}

fn rate_limit(reset: SystemTime) -> RateLimit {
    RateLimit { resource: Resource::Tokens, limit: Some(10), remaining: Some(0), reset: Some(reset) }
}

fn tls(not_after: SystemTime) -> Tls {
    Tls { version: Some("1.3"), cipher: Some("TLS13_AES_128_GCM_SHA256"), not_after: Some(not_after) }
}

fn status_page(now: SystemTime) -> StatusPage {
    StatusPage {
        indicator: Indicator::Minor,
        open_incidents: Some(1),
        components: vec![("API".to_owned(), ComponentStatus::PartialOutage)],
        maintenance: Some(Maintenance { start: Some(now), end: Some(now), in_progress: true }),
    }
}

fn record(outcome: &Outcome, model: Option<&str>) -> Value {
    let subject = Subject { probe: "p", provider: "langmart", check: Check::Chat, model };
    serde_json::to_value(Record { subject, outcome }).unwrap()
}

#[test]
fn every_record_matches_the_schema() {
    let schema = schema();
    let least = Outcome::new(SystemTime::UNIX_EPOCH, Reason::Ok, Fault::None);
    for record in [record(&full(), Some("gpt-4o")), record(&least, None)] {
        assert_eq!(contradiction(&schema, &record, &schema), None, "{record:#}");
    }
}

#[test]
fn schema_has_exactly_the_members_of_records() {
    /// Adds the paths of all members.
    fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        for (name, member) in members(value) {
            let path = format!("{path}/{name}");
            paths(member, &path, found);
            found.insert(path);
        }
        value.as_array().into_iter().flatten().for_each(|item| paths(item, path, found));
    }
    fn described(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        let items = schema.get("items").unwrap_or(schema);
        for (name, member) in items.get("properties").into_iter().flat_map(members) {
            let path = format!("{path}/{name}");
            described(member, &path, found);
            found.insert(path);
        }
    }
    let (mut written, mut documented) = (BTreeSet::new(), BTreeSet::new());
    paths(&record(&full(), Some("gpt-4o")), "", &mut written);
    described(&schema(), "", &mut documented);
    // The names of components are from the configuration.
    written.remove("/status_page/components/API");
    assert_eq!(written, documented);
    let members: BTreeSet<String> = VERSION_1.split_whitespace().map(|name| format!("/{name}")).collect();
    let missing: Vec<_> = members.difference(&documented).collect();
    assert_eq!(missing, [""; 0], "removed from version 1");
}

#[test]
fn schema_has_every_value_of_closed_sets() {
    let schema = schema();
    let check = |pointer: &str, names: Vec<&str>| {
        let listed = schema.pointer(&format!("/properties/{pointer}/enum"));
        assert_eq!(listed, Some(&json!(names)), "{pointer}");
    };
    macro_rules! check {
        ($($pointer:literal: $name:ident,)+) => {
            $(check($pointer, $name::ALL.iter().map(|value| value.name()).collect());)+
        };
    }
    check! {
        "check": Check,
        "reason": Reason,
        "fault": Fault,
        "limited_by": LimitedBy,
        "clock": Clock,
        "connection": ConnectionUse,
        "side": Side,
        "verdict": PairVerdict,
        "ratelimit/items/properties/resource": Resource,
        "failed_addresses/items/properties/error": AddressFailure,
        "dns_servers/items/properties/error": LookupFailure,
        "status_page/properties/indicator": Indicator,
        "status_page/properties/components/additionalProperties": ComponentStatus,
    }
}

#[test]
fn wrong_record_contradicts_the_schema() {
    let schema = schema();
    let good = record(&full(), Some("gpt-4o"));
    for (pointer, wrong) in [
        ("/reason", json!("unheard_of")),
        ("/time", json!("yesterday")),
        ("/http_status", json!("429")),
        ("/duration_seconds", json!(-1)),
        ("/ratelimit/0/resource", json!(1)),
        ("/status_page/components/API", json!("fine")),
        ("/phases", json!({})),
        ("/tls", json!({"key": "secret"})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = wrong;
        assert!(contradiction(&schema, &bad, &schema).is_some(), "{pointer}");
    }
}
