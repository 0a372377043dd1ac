//! The parts of requests that an operator writes: URLs, paths, headers and expectations.

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
use crate::config::{
    model::{Expect, HttpRequest},
    problem::{Place, Report, shown},
    raw::{self, Section, wrong_type},
    surroundings::is_loopback,
};

/// Headers that carry a key, which has ways of its own.
const KEY_HEADERS: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// Headers that belong to the connection and are the client's to set.
const CONNECTION_HEADERS: [&str; 8] =
    ["connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// The most headers of one table.
const MOST_HEADERS: usize = 32;

/// The most bytes of a path, a pattern or a body.
const LONGEST_PATH: usize = 2_048;
const LONGEST_PATTERN: usize = 4_096;
const LONGEST_BODY: usize = 64 << 10;

/// Maximum size of a compiled pattern, and of the states that a search of it caches, in bytes.
const LARGEST_PATTERN: usize = 1 << 17;
const LARGEST_PATTERN_CACHE: usize = 1 << 20;

/// The URL that paths are appended to. It is never repeated, since userinfo and query often hold secrets.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let mut url = web_url(text, &["http", "https"])?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or fragment; what belongs to one request goes into its path key"
            .to_owned());
    }
    if let Some(call) = ["/chat/completions", "/messages"].iter().find(|call| url.path().ends_with(*call)) {
        return Err(format!("must end before {call}, which is appended for each request"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// The URL of a status page's data, with its path and perhaps a query; it is never repeated either.
pub(super) fn status_url(text: &str) -> Result<Url, String> {
    let url = web_url(text, &["http", "https"])?;
    if url.fragment().is_some() {
        return Err("must not have a fragment".to_owned());
    }
    if text.len() > LONGEST_PATH {
        return Err(format!("must have at most {LONGEST_PATH} characters"));
    }
    Ok(url)
}

/// The kinds of proxies, and the port of one that is written without. For socks5 the prober looks the target's name up,
/// for socks5h the proxy does.
const PROXY_SCHEMES: [(&str, u16); 4] = [("http", 80), ("https", 443), ("socks5", 1080), ("socks5h", 1080)];

/// What to write where a proxy is not understood.
const PROXY_REMEDY: &str = "write http://HOST:PORT, or \"none\" for no proxy";

/// The proxy of the file, by scheme, host and port alone.
pub(super) fn proxy(text: &str) -> Result<Url, String> {
    let url = proxy_url(text)?;
    if has_userinfo(&url) {
        return Err(format!("{USERINFO}; give those by proxy_auth; {PROXY_REMEDY}"));
    }
    bare_proxy(&url)
}

/// The proxy of an environment variable, and its `user:password` where the URL has them, percent-decoded. By convention
/// the scheme may be left out.
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
        Err(format!("must be host and port alone; {PROXY_REMEDY}"))
    }
}

/// The same without userinfo, and with a port.
fn bare_proxy(url: &Url) -> Result<Url, String> {
    let default = PROXY_SCHEMES.iter().find(|(scheme, _)| *scheme == url.scheme()).map(|(_, port)| *port);
    let port = url.port().or(default).unwrap_or_default();
    // The URL standard takes any text for the host of a scheme that it does not know: so by one that it does.
    let host = Url::parse(&format!("http://{}/", url.host_str().unwrap_or_default()))
        .map_err(|error| format!("is not a URL ({error}); {PROXY_REMEDY}"))?;
    let host = host.host_str().unwrap_or_default();
    Url::parse(&format!("{}://{host}:{port}", url.scheme()))
        .map_err(|error| format!("is not a URL ({error})"))
}

/// The `user:password` of a URL; the password is empty where there is none.
fn userinfo(url: &Url) -> Result<Zeroizing<String>, String> {
    let decoded = |text| {
        let text = percent_decode_str(text).decode_utf8();
        text.map_err(|_| format!("has a user or password that is not UTF-8; {PROXY_REMEDY}, and proxy_auth"))
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

/// What is wrong with a proxy's `user:password`; nothing of the text itself.
pub(super) fn credentials(text: &str, socks: bool) -> Result<(), &'static str> {
    // hyper-util writes them into a buffer that has to hold the target's name as well.
    const LONGEST_FOR_SOCKS: usize = 128;
    const LONGEST: usize = 4_096;
    match text.split_once(':') {
        None => Err("must be user:password; store it so, with the colon"),
        Some(("", _)) if socks => Err("must have a user for a SOCKS proxy (RFC 1929)"),
        Some(_) if text.contains(char::is_control) => {
            Err("has control characters or several lines; store user:password alone")
        }
        Some(_) if socks && text.len() > LONGEST_FOR_SOCKS => {
            Err("is longer than the 128 bytes that can be sent to a SOCKS proxy")
        }
        Some(_) if text.len() > LONGEST => Err("is longer than 4096 bytes; store user:password alone"),
        Some(_) => Ok(()),
    }
}

/// What is wrong with a URL that has a user or password.
const USERINFO: &str = "must not have a user or password in it";

fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// A URL with a host and without credentials.
fn web_url(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let url = host_url(text, schemes)?;
    if has_userinfo(&url) { Err(USERINFO.to_owned()) } else { Ok(url) }
}

/// A URL with a host.
fn host_url(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let written = || format!("must begin with {}://", schemes.join(":// or "));
    // The parser would silently drop or turn these.
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

/// Whether what is sent there can be read on the way.
pub(super) fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

/// A path to append to a base URL; it may carry a query, and is not repeated for the secret that could be in there.
pub(super) fn path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        Err("must begin with a slash".to_owned())
    } else if text.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        Err("must be printable ASCII without white space, # and backslash; percent-encode those".to_owned())
    } else if text.len() > LONGEST_PATH {
        Err(format!("must have at most {LONGEST_PATH} characters"))
    } else {
        Ok(text.to_owned())
    }
}

/// The name of a header that may carry the bare key.
pub(super) fn key_header(text: &str) -> Result<HeaderName, String> {
    let name = header_name(text)?;
    if name == header::HOST || CONNECTION_HEADERS.contains(&name.as_str()) {
        return Err(format!("{} cannot carry a key; write one such as \"api-key\"", shown(text)));
    }
    Ok(name)
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    name.map_err(|_| format!("{} is not a header name; allowed are letters, digits and hyphens", shown(text)))
}

/// A table of headers. The values are secrets: marked so, and never repeated.
pub(super) fn headers(section: &Section<'_>, context: &Context<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let report = context.report;
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let entries = section.entries();
    if entries.len() > MOST_HEADERS {
        report.error(
            section.place(),
            format!("{} headers are too many; allowed are {MOST_HEADERS}", entries.len()),
        );
    }
    for entry in entries {
        let name = match header_name(entry.key).and_then(own_header) {
            Ok(name) if headers.iter().any(|(other, _)| *other == name) => {
                report.error(&entry.place, "is written twice; the case of a header's name does not matter");
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

/// Refuses the headers that are not the operator's to set this way, with the way.
fn own_header(name: HeaderName) -> Result<HeaderName, String> {
    if name == header::HOST {
        Err("follows from base_url; change that instead".to_owned())
    } else if name == header::PROXY_AUTHORIZATION {
        Err("belongs to the proxy; give user:password by proxy_auth".to_owned())
    } else if KEY_HEADERS.contains(&name.as_str()) {
        Err("carries a key; give that by api_key, and by key_header the header that is not the API's own"
            .to_owned())
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
            let source = source(Section::of(value, place.clone(), context.report), context.report)?;
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
        Err("the value is empty; leave the header out")
    } else if text.trim() != text {
        Err("the value has white space around it; write it without")
    } else if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        Err("the value has control or non-ASCII characters inside; a header cannot carry them")
    } else if text.len() > LONGEST_PATTERN {
        Err("the value is longer than 4096 characters")
    } else {
        Ok(())
    }
}

/// The request and the expectation of an `http` probe.
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
        let fits = text.len() <= LONGEST_BODY;
        if fits { Ok(text.to_owned()) } else { Err(format!("must have at most {LONGEST_BODY} bytes")) }
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

fn pattern(text: &str) -> Result<regex::bytes::Regex, String> {
    if text.len() > LONGEST_PATTERN {
        return Err(format!("must have at most {LONGEST_PATTERN} bytes"));
    }
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(LARGEST_PATTERN).dfa_size_limit(LARGEST_PATTERN_CACHE);
    builder.build().map_err(|error| match error {
        // The error draws the pattern over several lines; the last says what is wrong with it.
        regex::Error::Syntax(message) => {
            let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{} is not a regular expression: {reason}", shown(text))
        }
        _ => format!("{} is too large a regular expression; make its repetitions smaller", shown(text)),
    })
}

fn json_members(section: &Section<'_>, report: &Report) -> Vec<(String, serde_json::Value)> {
    let mut members = Vec::new();
    for entry in section.entries() {
        let escapes = entry.key.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !(entry.key.is_empty() || entry.key.starts_with('/')) || !escapes {
            let message =
                "is not a JSON pointer (RFC 6901); write \"/member\" or \"/list/0\", ~1 for a slash inside";
            report.error(&entry.place, message);
        } else if let Some(value) = json(entry.value) {
            members.push((entry.key.to_owned(), value));
        } else {
            report.error(
                &entry.place,
                "is no JSON value; allowed are strings, finite numbers, booleans, arrays, tables",
            );
        }
    }
    members
}

/// The JSON that a TOML value stands for; `None` for dates, infinities, and integers beyond 64 bits.
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
