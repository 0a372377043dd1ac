//! LangMart's own account of requests and errors, by its account API, for `report --account`.
//!
//! The answers are the gateway's claims. Only numbers, and codes and IDs that pass the gates, are
//! kept. The documentation is not complete: members are read in the places that it shows, and what
//! is missing is reported.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper::HeaderMap;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde_json::Value;

use super::{
    document::Document,
    path::{self, PrepareError},
    request::{insert_all, insert_key},
    run::NetworkStack,
    tls::Tls,
};
use crate::{
    api::{gate, hints},
    config::Provider,
    outcome::{date, in_record, rfc3339},
};

/// Timeout of each request.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of listed errors.
const MAX_ERRORS: usize = 50;

/// Number of requests on a page of the list, LangMart's maximum.
const PAGE_ROWS: usize = 100;

/// Maximum number of pages for one time.
const MAX_PAGES: usize = 2;

/// Distance between our time of a request and LangMart's, at most: the clocks, and the gateway's
/// timeout of 60 s.
const MAX_DISTANCE: Duration = Duration::from_secs(120);

/// Maximum number of connections that a gateway can plausibly have tried.
const MAX_TRIED: u64 = 10_000;

/// Verdict on an answer of that kind.
const ERROR_IN_SUCCESS: &str = "it reports an error under a success status";

/// The account API of a provider of the API `langmart`.
pub struct AccountApi {
    provider: Arc<Provider>,
    tls: Tls,
    stack: Arc<NetworkStack>,
}

impl fmt::Debug for AccountApi {
    /// Formats the API without the connection settings, which have the proxy's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AccountApi").field(&self.provider.name).finish()
    }
}

/// A row of LangMart's error statistics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccountError {
    /// HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Error code; `other` if it is not a documented one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<Cow<'static, str>>,
    /// Number of occurrences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Time of the last one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub last_occurrence: Option<SystemTime>,
}

/// LangMart's log of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccountRequest {
    /// ID of the request.
    pub request_id: String,
    /// ID of the log, which addresses the details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_id: Option<String>,
    /// LangMart's time of the request.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_record")]
    pub created_at: Option<SystemTime>,
    /// HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Latency in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Time to the first token in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<f64>,
    /// Cost, in the account's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Number of connections that the gateway tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates_tried: Option<u64>,
}

/// Logs of requests as LangMart lists them.
#[derive(Debug, Default)]
pub struct AccountRequests {
    /// The logs.
    pub requests: Vec<AccountRequest>,
    /// Whether these are all. A list is read up to a limit.
    pub is_complete: bool,
}

/// Failure to read the account.
#[derive(Debug, thiserror::Error)]
pub enum AccountFailure {
    /// No connection settings, or no request.
    #[error("{0}")]
    Unprepared(String),
    /// No complete answer.
    #[error("no complete answer: {0}")]
    NoAnswer(String),
    /// The API refused the request, with a remedy if there is one.
    #[error("answered with status {0}{1}")]
    Refused(u16, &'static str),
    /// The answer is not what LangMart documents.
    #[error("answered, but not as documented: {0}")]
    Undocumented(&'static str),
}

impl AccountFailure {
    /// Returns whether any further request would fail in the same way.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Unprepared(_) | Self::NoAnswer(_) => true,
            Self::Refused(status, _) => matches!(status, 401 | 403 | 429),
            Self::Undocumented(_) => false,
        }
    }
}

impl From<PrepareError> for AccountFailure {
    fn from(error: PrepareError) -> Self {
        Self::Unprepared(error.to_string())
    }
}

impl AccountApi {
    /// Prepares the API of a provider.
    pub fn new(
        provider: &Arc<Provider>,
        system_roots: &[CertificateDer<'static>],
        stack: &Arc<NetworkStack>,
    ) -> Result<Self, AccountFailure> {
        if provider.key.as_ref().is_none_or(|key| key.value.expose().is_empty()) {
            return Err(AccountFailure::Unprepared("it has no key that can be read".to_owned()));
        }
        let tls = path::tls(provider, system_roots)?;
        Ok(Self { provider: provider.clone(), tls, stack: stack.clone() })
    }

    /// Returns the errors of all requests in the days of a period, as LangMart counts them.
    pub async fn errors(
        &self,
        since: SystemTime,
        until: SystemTime,
    ) -> Result<Vec<AccountError>, AccountFailure> {
        let days = [("start_date", date(since)), ("end_date", date(until))];
        let answer = self.get(&["errors"], &days).await?;
        let rows =
            list(&answer, "errors").ok_or_else(|| undocumented(&answer, "it has no list of errors"))?;
        Ok(rows.iter().filter(|row| row.is_object()).take(MAX_ERRORS).map(error).collect())
    }

    /// Returns the logs of the account's requests around that time.
    pub async fn requests_around(&self, time: SystemTime) -> Result<AccountRequests, AccountFailure> {
        let begin = time.checked_sub(MAX_DISTANCE).unwrap_or(SystemTime::UNIX_EPOCH);
        let end = time.checked_add(MAX_DISTANCE).unwrap_or(time);
        let mut listed = AccountRequests { requests: Vec::new(), is_complete: true };
        for page in 0..MAX_PAGES {
            let query = [
                ("limit", PAGE_ROWS.to_string()),
                ("offset", (page * PAGE_ROWS).to_string()),
                ("start_date", rfc3339(begin)),
                ("end_date", rfc3339(end)),
            ];
            let answer = self.get(&["request-logs"], &query).await?;
            let rows =
                list(&answer, "logs").ok_or_else(|| undocumented(&answer, "it has no list of requests"))?;
            listed.requests.extend(rows.iter().take(PAGE_ROWS).filter_map(request));
            let has_more = answer.pointer("/pagination/hasMore").and_then(Value::as_bool);
            if rows.len() > PAGE_ROWS {
                listed.is_complete = false;
            }
            if rows.is_empty() || !has_more.unwrap_or(rows.len() >= PAGE_ROWS) {
                return Ok(listed);
            }
        }
        listed.is_complete = false;
        Ok(listed)
    }

    /// Adds the number of tried connections, which only the details of a log have. They have none
    /// if the gateway tried nothing else.
    pub async fn add_details(&self, request: &mut AccountRequest) -> Result<(), AccountFailure> {
        let Some(id) = request.log_id.as_deref().filter(|_| request.candidates_tried.is_none()) else {
            return Ok(());
        };
        let answer = self.get(&["request-logs", id, "details"], &[]).await?;
        if !answer.is_object() {
            return Err(AccountFailure::Undocumented("it has no details"));
        }
        let places = [Some(&answer), answer.get("log"), answer.get("data")];
        request.candidates_tried = places.into_iter().flatten().find_map(candidates_tried);
        Ok(())
    }

    /// Sends one request to `/api/account`, with the key. Follows no redirect.
    async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, AccountFailure> {
        let provider = &*self.provider;
        let mut url = provider.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| AccountFailure::Unprepared("its base_url has no path".to_owned()))?
            .pop_if_empty()
            .extend(["api", "account"])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut headers = HeaderMap::new();
        insert_all(&mut headers, &provider.headers);
        insert_key(&mut headers, provider).map_err(|error| AccountFailure::Unprepared(error.to_owned()))?;
        let document = Document::new(provider, url, headers, &self.tls, self.stack.resolver().clone())?;
        let fetched = Arc::new(document).fetch(ACCOUNT_TIMEOUT, None).await;
        if let Some(failure) = fetched.failure {
            return Err(AccountFailure::NoAnswer(format!("{}, {}", failure.reason, failure.detail)));
        }
        let response = fetched.response.ok_or(AccountFailure::Undocumented("it has no response"))?;
        if !(200..300).contains(&response.status) {
            return Err(AccountFailure::Refused(response.status, remedy(response.status)));
        }
        let answer: Value = serde_json::from_slice(&response.body)
            .map_err(|_| AccountFailure::Undocumented("its body is not JSON"))?;
        let denies = |name: &str| answer.get(name) == Some(&Value::Bool(false));
        if denies("success") || denies("ok") {
            return Err(AccountFailure::Undocumented(ERROR_IN_SUCCESS));
        }
        Ok(answer)
    }
}

/// Returns the verdict on an answer that lacks something.
fn undocumented(answer: &Value, missing: &'static str) -> AccountFailure {
    let has_error = answer.get("error").is_some_and(|error| !error.is_null());
    AccountFailure::Undocumented(if has_error { ERROR_IN_SUCCESS } else { missing })
}

/// Returns the list in an answer: its member of that name or a usual one, or the answer itself.
fn list<'a>(answer: &'a Value, name: &str) -> Option<&'a Vec<Value>> {
    let members = [name, "data", "items"];
    let member = members.into_iter().find_map(|member| answer.get(member)?.as_array());
    member.or_else(|| answer.as_array())
}

/// Returns what to do about a refusal, behind a colon; empty if there is nothing special.
fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => ": check that the key is an API key of this account; OAuth tokens are refused",
        404 => ": there is no such log or no such API",
        429 => ": wait and repeat",
        _ => "",
    }
}

fn error(row: &Value) -> AccountError {
    AccountError {
        status_code: status(row),
        error_code: row.get("error_code").and_then(Value::as_str).map(gate::error_code),
        count: row.get("count").and_then(Value::as_u64),
        last_occurrence: time(row, "last_occurrence"),
    }
}

/// Reads a row of the list. Returns `None` if it has no ID.
fn request(row: &Value) -> Option<AccountRequest> {
    let log_id = id(row, "id");
    Some(AccountRequest {
        request_id: id(row, "request_id").or_else(|| log_id.clone())?,
        log_id,
        created_at: time(row, "created_at"),
        status_code: status(row),
        latency_ms: milliseconds(row, "latency_ms"),
        time_to_first_token_ms: milliseconds(row, "time_to_first_token_ms"),
        cost: ["cost", "total_cost"].into_iter().find_map(|name| gate::money(row.get(name)?)),
        candidates_tried: candidates_tried(row),
    })
}

fn id(row: &Value, name: &str) -> Option<String> {
    match row.get(name)? {
        Value::String(id) => gate::request_id(id),
        Value::Number(id) => gate::request_id(&id.to_string()),
        _ => None,
    }
}

fn time(row: &Value, name: &str) -> Option<SystemTime> {
    hints::date(row.get(name)?.as_str()?)
}

fn status(row: &Value) -> Option<u16> {
    let status = ["status_code", "response_status"].into_iter().find_map(|name| row.get(name)?.as_u64())?;
    (100..600).contains(&status).then_some(status as u16)
}

fn milliseconds(row: &Value, name: &str) -> Option<f64> {
    let plausible = gate::processing(row.get(name)?.as_f64()? / 1e3)?;
    Some((plausible.as_secs_f64() * 1e6).round() / 1e3)
}

fn candidates_tried(log: &Value) -> Option<u64> {
    let tried = log.pointer("/resolution_attempts/summary/totalCandidatesTried")?.as_u64()?;
    (tried <= MAX_TRIED).then_some(tried)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_keep_plausible_values_only() {
        let row = json!({
            "id": 7, "request_id": "req_1 <b>", "status_code": 999, "latency_ms": -1, "cost": 1e300,
            "created_at": "soon", "time_to_first_token_ms": 1e300,
            "resolution_attempts": {"summary": {"totalCandidatesTried": u64::MAX}},
        });
        let expected = AccountRequest {
            request_id: "7".to_owned(),
            log_id: Some("7".to_owned()),
            created_at: None,
            status_code: None,
            latency_ms: None,
            time_to_first_token_ms: None,
            cost: None,
            candidates_tried: None,
        };
        assert_eq!(request(&row), Some(expected));
        for nameless in [json!({}), json!([]), json!("req_1"), json!({"id": "a b"}), json!({"id": null})] {
            assert_eq!(request(&nameless), None, "{nameless}");
        }
    }

    #[test]
    fn members_are_read_in_both_documented_forms() {
        let listed = json!({"id": "log_1", "request_id": "req_1", "status_code": 503, "cost": 0.5});
        let enhanced = json!({"id": "req_1", "response_status": 503, "total_cost": 0.5});
        let [listed, enhanced] = [listed, enhanced].map(|row| request(&row).unwrap());
        assert_eq!((listed.request_id.as_str(), listed.log_id.as_deref()), ("req_1", Some("log_1")));
        assert_eq!(enhanced.request_id, "req_1");
        for request in [listed, enhanced] {
            assert_eq!((request.status_code, request.cost), (Some(503), Some(0.5)));
        }
    }
}
