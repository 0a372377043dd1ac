//! The parts of requests that operators configure: URLs, paths, headers and expectations.

use percent_encoding::percent_decode_str;
use regex::bytes::RegexBuilder;
use reqwest::{
    Method,
    header::{self, HeaderName, HeaderValue},
};
use toml::de::DeValue;
use url::Url;
use zeroize::Zeroizing;

use super::{
    context::Context,
    values::{choice, source},
};
use crate::{
    api::is_key_header,
    config::{
        environment::is_loopback,
        model::{Expect, HttpRequest},
        problem::{Place, Report, shown},
        raw::{self, Section, wrong_type},
    },
};

/// Headers of the connection, which the client sets.
const CONNECTION_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Maximum number of headers of a table.
const MAX_HEADERS: usize = 32;

/// Maximum sizes of a path, a pattern or header value, and a body, in bytes.
const MAX_PATH_BYTES: usize = 2_048;
const MAX_PATTERN_BYTES: usize = 4_096;
const MAX_BODY_BYTES: usize = 64 << 10;

/// Maximum size of a compiled pattern, and of the states that a search of it caches, in bytes.
const MAX_COMPILED_PATTERN: usize = 1 << 17;
const MAX_PATTERN_CACHE: usize = 1 << 20;

/// Parses the URL that paths are appended to. The messages omit it, because userinfo and query
/// often contain secrets.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let mut url = web_url(text, &["http", "https"])?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            "must not have a query or fragment; put the query of a request into its path key".to_owned()
        );
    }
    if let Some(call) = ["/chat/completions", "/messages"].iter().find(|call| url.path().ends_with(*call)) {
        return Err(format!("must end before {call}, which is appended for each request"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Parses the URL of a status page's data, with a path and optionally a query. The messages omit
/// it, too.
pub(super) fn status_url(text: &str) -> Result<Url, String> {
    let url = web_url(text, &["http", "https"])?;
    if url.fragment().is_some() {
        return Err("must not have a fragment".to_owned());
    }
    if text.len() > MAX_PATH_BYTES {
        return Err(format!("must have at most {MAX_PATH_BYTES} characters"));
    }
    Ok(url)
}

/// The supported proxy schemes and their default ports. For socks5 the prober resolves the target's
/// name, for socks5h the proxy does.
const PROXY_SCHEMES: [(&str, u16); 4] = [("http", 80), ("https", 443), ("socks5", 1080), ("socks5h", 1080)];

/// The remedy for an invalid proxy.
const PROXY_REMEDY: &str = "use http://HOST:PORT, or \"none\" for no proxy";

/// Parses the proxy of the file: scheme, host and port.
pub(super) fn proxy(text: &str) -> Result<Url, String> {
    let url = proxy_url(text)?;
    if has_userinfo(&url) {
        return Err(format!("{USERINFO}; use proxy_auth; {PROXY_REMEDY}"));
    }
    bare_proxy(&url)
}

/// Parses the proxy of an environment variable, and its `user:password` if the URL has them,
/// percent-decoded. The scheme is optional by convention.
pub(super) fn environment_proxy(text: &str) -> Result<(Url, Option<Zeroizing<String>>), String> {
    let url = if text.contains("://") {
        proxy_url(text)?
    } else {
        proxy_url(&Zeroizing::new(format!("http://{text}")))?
    };
    let auth = has_userinfo(&url).then(|| userinfo(&url)).transpose()?;
    Ok((bare_proxy(&url)?, auth))
}

fn proxy_url(text: &str) -> Result<Url, String> {
    let schemes = PROXY_SCHEMES.map(|(scheme, _)| scheme);
    let url = host_url(text, &schemes).map_err(|message| format!("{message}; {PROXY_REMEDY}"))?;
    if matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none() {
        Ok(url)
    } else {
        Err(format!("must consist of host and port; {PROXY_REMEDY}"))
    }
}

/// Returns the URL without userinfo and with a port.
fn bare_proxy(url: &Url) -> Result<Url, String> {
    let default = PROXY_SCHEMES.iter().find(|(scheme, _)| *scheme == url.scheme()).map(|(_, port)| *port);
    let port = url.port().or(default).unwrap_or_default();
    // The URL standard accepts any host for unknown schemes, so it is validated with a known one.
    let host = Url::parse(&format!("http://{}/", url.host_str().unwrap_or_default()))
        .map_err(|error| format!("is not a URL ({error}); {PROXY_REMEDY}"))?;
    let host = host.host_str().unwrap_or_default();
    Url::parse(&format!("{}://{host}:{port}", url.scheme()))
        .map_err(|error| format!("is not a URL ({error})"))
}

/// Returns the `user:password` of a URL. A missing password is empty.
fn userinfo(url: &Url) -> Result<Zeroizing<String>, String> {
    let decoded = |text| {
        let text = percent_decode_str(text).decode_utf8();
        text.map_err(|_| {
            format!("has a user or password that is not UTF-8; {PROXY_REMEDY}, and set proxy_auth")
        })
    };
    let (user, password) = (decoded(url.username())?, decoded(url.password().unwrap_or_default())?);
    if user.contains(':') {
        return Err("has a user with a colon in its name, which cannot be sent (RFC 7617, 2)".to_owned());
    }
    let auth = Zeroizing::new(format!("{user}:{password}"));
    match credentials(&auth, url.scheme().starts_with("socks")) {
        Ok(()) => Ok(auth),
        Err(message) => Err(format!("user and password: {message}")),
    }
}

/// Returns what is wrong with a proxy's `user:password`, without the text itself.
pub(super) fn credentials(text: &str, socks: bool) -> Result<(), &'static str> {
    // hyper-util writes them into a buffer that also contains the target's name.
    const MAX_SOCKS_BYTES: usize = 128;
    const MAX_BYTES: usize = 4_096;
    match text.split_once(':') {
        None => Err("must be user:password, with the colon"),
        Some(("", _)) if socks => Err("must have a user for a SOCKS proxy (RFC 1929)"),
        Some(_) if text.contains(char::is_control) => {
            Err("has control characters or several lines; store only user:password")
        }
        Some(_) if socks && text.len() > MAX_SOCKS_BYTES => {
            Err("is longer than the 128 bytes that can be sent to a SOCKS proxy")
        }
        Some(_) if text.len() > MAX_BYTES => Err("is longer than 4096 bytes; store only user:password"),
        Some(_) => Ok(()),
    }
}

/// The message for a URL with a user or password.
const USERINFO: &str = "must not contain a user or password";

fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Parses a URL with a host and without credentials.
fn web_url(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let url = host_url(text, schemes)?;
    if has_userinfo(&url) { Err(USERINFO.to_owned()) } else { Ok(url) }
}

/// Parses a URL with a host.
fn host_url(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let written = || format!("must begin with {}://", schemes.join(":// or "));
    // The parser would silently remove or replace these.
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("must not have white space, control characters or backslashes".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); it {}", written()))?;
    if !schemes.contains(&url.scheme()) || !text.contains("://") {
        return Err(written());
    }
    if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
        return Err("must have a host, and no port 0".to_owned());
    }
    Ok(url)
}

/// Returns whether requests to the URL are unencrypted beyond this machine.
pub(super) fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

/// Parses a path that is appended to a base URL and may have a query. The messages omit it, because
/// it may contain a secret.
pub(super) fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        Err("must begin with a slash".to_owned())
    } else if text.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        Err("must be printable ASCII without white space, # and backslash; percent-encode those".to_owned())
    } else if text.len() > MAX_PATH_BYTES {
        Err(format!("must have at most {MAX_PATH_BYTES} characters"))
    } else {
        Ok(text.to_owned())
    }
}

/// Parses the name of a header that may carry the key.
pub(super) fn key_header(text: &str) -> Result<HeaderName, String> {
    let name = header_name(text)?;
    if name == header::HOST || CONNECTION_HEADERS.contains(&name.as_str()) {
        return Err(format!("{} cannot carry a key; use one such as \"api-key\"", shown(text)));
    }
    Ok(name)
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    name.map_err(|_| format!("{} is not a header name; allowed: letters, digits and hyphens", shown(text)))
}

/// Reads a table of headers. The values are secrets: they are marked sensitive and omitted from
/// messages.
pub(super) fn headers(section: &Section<'_>, context: &Context<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let report = context.report;
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let entries = section.entries();
    if entries.len() > MAX_HEADERS {
        report.error(
            section.place(),
            format!("{} headers are too many; allowed: {MAX_HEADERS}", entries.len()),
        );
    }
    for entry in entries {
        let name = match header_name(entry.key).and_then(own_header) {
            Ok(name) if headers.iter().any(|(other, _)| *other == name) => {
                report.error(&entry.place, "is a duplicate; header names are case-insensitive");
                continue;
            }
            Ok(name) => name,
            Err(message) => {
                report.error(&entry.place, message);
                continue;
            }
        };
        if let Some(value) = header_value(entry.value, &entry.place, context) {
            headers.push((name, value));
        }
    }
    headers
}

/// Rejects headers that must be configured in another way.
fn own_header(name: HeaderName) -> Result<HeaderName, String> {
    if name == header::HOST {
        Err("is derived from base_url; change that instead".to_owned())
    } else if name == header::PROXY_AUTHORIZATION {
        Err("belongs to the proxy; set proxy_auth to user:password".to_owned())
    } else if is_key_header(name.as_str()) {
        Err("carries a key; use api_key, and key_header for another header than the API's own".to_owned())
    } else if CONNECTION_HEADERS.contains(&name.as_str()) {
        Err("belongs to the connection and cannot be set; remove it".to_owned())
    } else {
        Ok(name)
    }
}

fn header_value(value: &DeValue<'_>, place: &Place, context: &Context<'_>) -> Option<HeaderValue> {
    let text = match value {
        DeValue::String(text) => {
            if let Err(message) = check_header_value(text) {
                context.report.error(place, message);
                return None;
            }
            Zeroizing::new(text.to_string())
        }
        DeValue::Table(_) => {
            let source = source(Section::from_value(value, place.clone(), context.report), context.report)?;
            context.secret(&source, place, check_header_value)?
        }
        _ => {
            context.report.error(place, wrong_type("a string or a table of env, file or credential", value));
            return None;
        }
    };
    let mut value = HeaderValue::from_str(&text).expect("printable ASCII is a header value");
    value.set_sensitive(true);
    Some(value)
}

fn check_header_value(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        Err("the value is empty; remove the header")
    } else if text.trim() != text {
        Err("the value is surrounded by white space; remove it")
    } else if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        Err("the value contains control or non-ASCII characters, which are not allowed in headers")
    } else if text.len() > MAX_PATTERN_BYTES {
        Err("the value is longer than 4096 characters")
    } else {
        Ok(())
    }
}

/// Reads the request and the expectation of an `http` probe.
pub(super) fn request(section: &mut Section<'_>, context: &Context<'_>) -> HttpRequest {
    let methods = [
        ("GET", Method::GET),
        ("HEAD", Method::HEAD),
        ("POST", Method::POST),
        ("PUT", Method::PUT),
        ("PATCH", Method::PATCH),
        ("DELETE", Method::DELETE),
        ("OPTIONS", Method::OPTIONS),
    ];
    let by_reference = methods.each_ref().map(|(name, method)| (*name, method));
    let method = section.text("method", |text| choice(text, &by_reference)).unwrap_or(&Method::GET).clone();
    let body = section.text("body", |text| {
        let fits = text.len() <= MAX_BODY_BYTES;
        if fits { Ok(text.to_owned()) } else { Err(format!("must have at most {MAX_BODY_BYTES} bytes")) }
    });
    if body.is_some() && [Method::GET, Method::HEAD].contains(&method) {
        section.problem("body", format!("{method} has no body; set method = \"POST\", or remove the body"));
    }
    let expect = expect(section.section("expect"), &method, context.report);
    HttpRequest {
        path: section.required("path", path).unwrap_or_default(),
        body,
        headers: headers(&section.section("headers"), context),
        send_key: section.flag("send_key").unwrap_or(false),
        expect,
        method,
    }
}

fn expect(mut section: Section<'_>, method: &Method, report: &Report) -> Expect {
    let mut status = Vec::new();
    for (value, place) in section.elements("status", "an array of whole numbers") {
        match raw::number(value, &(100..=599)) {
            Ok(number) => status.push(number as u16),
            Err(message) => report.error(&place, message),
        }
    }
    let expect = Expect {
        status,
        body_regex: section.text("body_regex", pattern),
        json: json_members(&section.section("json"), report),
    };
    for key in ["body_regex", "json"] {
        if method == Method::HEAD && section.has(key) {
            section.problem(key, "a response to HEAD has no body; use GET");
        }
    }
    section.finish();
    expect
}

/// Reads a regular expression, bounded in its compiled size.
pub(super) fn pattern(text: &str) -> Result<regex::bytes::Regex, String> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(format!("must have at most {MAX_PATTERN_BYTES} bytes"));
    }
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(MAX_COMPILED_PATTERN).dfa_size_limit(MAX_PATTERN_CACHE);
    builder.build().map_err(|error| match error {
        // The error shows the pattern in several lines; the last one has the reason.
        regex::Error::Syntax(message) => {
            let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{} is not a regular expression: {reason}", shown(text))
        }
        _ => format!("{} is too large; reduce the repetitions of the regular expression", shown(text)),
    })
}

fn json_members(section: &Section<'_>, report: &Report) -> Vec<(String, serde_json::Value)> {
    let mut members = Vec::new();
    for entry in section.entries() {
        let escapes = entry.key.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !(entry.key.is_empty() || entry.key.starts_with('/')) || !escapes {
            let message = "is not a JSON pointer (RFC 6901); use \"/member\" or \"/list/0\", and ~1 for a slash in a name";
            report.error(&entry.place, message);
        } else if let Some(value) = json(entry.value) {
            members.push((entry.key.to_owned(), value));
        } else {
            report.error(
                &entry.place,
                "is not a JSON value; allowed: strings, finite numbers, booleans, arrays, tables",
            );
        }
    }
    members
}

/// Converts a TOML value to JSON. Returns `None` for dates, infinities, and integers beyond 64
/// bits.
fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
        DeValue::Float(number) => serde_json::Number::from_f64(number.as_str().parse().ok()?)?.into(),
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Array(array) => {
            array.iter().map(|item| json(item.get_ref())).collect::<Option<Vec<_>>>()?.into()
        }
        DeValue::Table(table) => {
            let member =
                |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
                    Some((key.get_ref().to_string(), json(value.get_ref())?))
                };
            table.iter().map(member).collect::<Option<serde_json::Map<_, _>>>()?.into()
        }
        DeValue::Datetime(_) => return None,
    })
}
