//! The operator's own expectation of a response.

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use super::{exchange::Response, failure::Failure};
use crate::{
    api::body::{self, MAX_TREE},
    config::{Expect, Task},
    outcome::{Api, Detail, Fault, Reason},
};

/// Maximum of the size of a compiled pattern times the bytes that it searches. The worst patterns
/// take about a second for it.
const MAX_SEARCH: usize = 1 << 33;

/// Returns whether a response is searched for a pattern of the operator.
pub(super) fn searches(task: &Task) -> bool {
    matches!(task, Task::Http(request) if request.expect.body_regex.is_some())
}

/// Returns the verdict on a search that the run's deadline ended. `begun` is true if it had a
/// thread, so that the body took so long.
pub(super) fn late_search(api: Api, begun: bool) -> Failure {
    if begun {
        return Failure::new(Reason::Timeout, api.endpoint(), Detail::SearchTooSlow);
    }
    Failure::new(Reason::Internal, Fault::Prober, Detail::SearchNotStarted)
}

/// Returns what is not met. Returns `None` if all is met.
pub(super) fn unmet(expect: &Expect, response: &Response) -> Option<Detail> {
    if !expect.status.is_empty() && !expect.status.contains(&response.status) {
        return Some(Detail::UnexpectedStatus(response.status));
    }
    if let Some(pattern) = &expect.body_regex {
        if !is_bounded(pattern, &response.body) {
            return Some(Detail::BodyTooLargeForRegex(response.body.len() >> 10));
        }
        if !pattern.is_match(&response.body) {
            return Some(Detail::BodyDiffers);
        }
    }
    unmet_json(expect, response)
}

fn unmet_json(expect: &Expect, response: &Response) -> Option<Detail> {
    if expect.json.is_empty() {
        return None;
    }
    if response.body.len() > MAX_TREE {
        return Some(Detail::BodyTooLargeForJson(MAX_TREE >> 10));
    }
    let Ok(body) = serde_json::from_slice::<Value>(body::text(&response.body)) else {
        return Some(Detail::BodyNotJson);
    };
    for (pointer, value) in &expect.json {
        match body.pointer(pointer) {
            Some(found) if equal(found, value) => {}
            Some(_) => return Some(Detail::JsonDiffers(pointer.as_str().into())),
            None => return Some(Detail::JsonMissing(pointer.as_str().into())),
        }
    }
    None
}

/// Returns whether the search ends soon for any body of this size. Its time grows with the size of
/// the compiled pattern times that of the body. Only the compiler knows the size of a pattern, and
/// refuses one above a given limit.
fn is_bounded(pattern: &Regex, body: &[u8]) -> bool {
    is_searched_within(pattern, body.len(), MAX_SEARCH)
}

/// Returns whether the size of a compiled pattern times the bytes of a text is within a limit.
pub(super) fn is_searched_within(pattern: &Regex, bytes: usize, limit: usize) -> bool {
    const SMALL_TEXT: usize = 1024;
    bytes <= SMALL_TEXT || RegexBuilder::new(pattern.as_str()).size_limit(limit / bytes).build().is_ok()
}

/// Compares JSON values as people do: 1 is 1.0.
fn equal(found: &Value, expected: &Value) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= f64::EPSILON * expected.abs(),
        _ => found == expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_bounded_by_their_size_times_the_body() {
        let bounded =
            |pattern: &str, bytes: usize| is_bounded(&Regex::new(pattern).unwrap(), &vec![b'1'; bytes]);
        for pattern in [
            "openai",
            r#""object"\s*:\s*"list""#,
            "(?i)healthy|ready|ok",
            "^ok$",
            "[0-9]{1,5}",
            r"(?-u)\bok\b",
            "a.*b",
            "[a-z]+@[a-z]+",
            "status.{0,20}up",
            "x|y|z",
        ] {
            assert!(bounded(pattern, 256 << 10), "{pattern}");
        }
        assert!(bounded("openai", 4 << 20));
        for pattern in [
            "1[01]{300}[2-9]",
            "1[01]{2000}[2-9]",
            "(?:a|b){500}c",
            r"\w{50}",
            "[a-z]{1,999}!",
            "(?:[01]{20}){20}2",
            ".{1000}x",
            "(?:(?:a{10}){10}){10}b",
            r"\pL{30}",
            "(?i)[äöü]{300}x",
        ] {
            assert!(!bounded(pattern, 4 << 20), "{pattern}");
            assert!(bounded(pattern, 1024), "{pattern}");
        }
    }
}
