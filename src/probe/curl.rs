//! The `curl` command of a probe's request. Keys and other possible secrets are expressions of the
//! shell.

use std::fmt::Write;

use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue, USER_AGENT};

use super::request::{self, Prepared};
use crate::config::{Key, KeySource, Probe, Task, quoted};

/// Length above which a body is left to a file.
const MAX_SHOWN_BODY_BYTES: usize = 2000;

/// Returns one line for a POSIX shell. The key is read from its file or environment variable, else
/// from one named after the provider.
pub fn curl(probe: &Probe) -> String {
    let mut line = format!("curl -sS --max-time {}", probe.timeout.as_secs_f64());
    if let Some(proxy) = &probe.provider.proxy {
        let _ = write!(line, " --proxy {}", quoted(proxy.as_str()));
        if probe.provider.proxy_auth.is_some() {
            line.push_str(" --proxy-user \"$PROXY_AUTH\"");
        }
    } else if probe.provider.ignores_environment_proxy {
        line.push_str(" --noproxy '*'");
    }
    if let Some(path) = &probe.provider.ca_file {
        let _ = write!(line, " --cacert {}", quoted(&path.to_string_lossy()));
    }
    if let Ok(Some(request)) = request::request(probe) {
        write_request(&mut line, probe, &request);
    } else {
        // The network check goes as far as the handshake, and this shows how long that takes.
        let times = "dns %{time_namelookup} tcp %{time_connect} tls %{time_appconnect}\\n";
        let _ = write!(line, " -o /dev/null -w '{times}' {}", quoted(probe.provider.base_url.as_str()));
    }
    line
}

fn write_request(line: &mut String, probe: &Probe, request: &Prepared) {
    let is_head = request.method == "HEAD";
    line.push_str(match probe.task {
        Task::Stream(_) => " -N",
        // With -X HEAD, curl would wait for a body.
        _ if is_head => " -I",
        _ => " -i",
    });
    if request.method != "GET" && !is_head {
        let _ = write!(line, " -X {}", request.method);
    }
    let provider = &*probe.provider;
    let (key_header, prefix) = request::key_header(provider);
    // curl has its own, and the coding makes no difference to a person.
    let own = [ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, USER_AGENT];
    for (name, value) in request.headers.iter().filter(|(name, _)| !own.contains(name)) {
        let operators = provider.headers.iter().any(|(other, _)| other == name);
        if name == key_header && !operators {
            let key = provider.key.as_ref().map_or_else(String::new, |key| key_in_shell(key, &provider.name));
            let _ = write!(line, " -H \"{name}: {prefix}{key}\"");
        } else if value.is_sensitive() {
            let _ = write!(line, " -H \"{name}: ${}\"", upper(name.as_str()));
        } else {
            let _ = write!(line, " -H {}", quoted(&format!("{name}: {}", plain(value))));
        }
    }
    let body = Some(&request.body).filter(|body| !body.is_empty());
    match (&probe.task, body) {
        (_, None) => {}
        // It may hold credentials.
        (Task::Http(_), Some(_)) => line.push_str(" --data \"$BODY\""),
        (_, Some(body)) if body.len() <= MAX_SHOWN_BODY_BYTES => {
            let _ = write!(line, " --data {}", quoted(&String::from_utf8_lossy(body)));
        }
        (_, Some(_)) => line.push_str(" --data @body.json"),
    }
    let _ = write!(line, " {}", address(probe, request));
}

/// Returns the URL. A configured query may contain a secret.
fn address(probe: &Probe, request: &Prepared) -> String {
    let paths = &probe.provider.paths;
    let written = match &probe.task {
        Task::Http(_) | Task::Status(_) => true,
        Task::Health => paths.health.is_some(),
        Task::Auth => paths.auth.is_some(),
        Task::Models => paths.models.is_some(),
        Task::Chat(_) | Task::Stream(_) => paths.chat.is_some(),
        Task::Balance => paths.balance.is_some(),
        Task::Network => false,
    };
    let mut url = request.url.clone();
    if written && url.query().is_some() {
        url.set_query(None);
        return format!("{}\"?$QUERY\"", quoted(url.as_str()));
    }
    quoted(url.as_str())
}

/// Returns the expression by which a shell reads the key.
fn key_in_shell(key: &Key, provider: &str) -> String {
    match &key.source {
        KeySource::Env(name) if is_name(name) => format!("${name}"),
        KeySource::File(path) => format!("$(cat {})", quoted(&path.to_string_lossy())),
        KeySource::Env(_) | KeySource::Credential(_) => format!("${}_API_KEY", upper(provider)),
    }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Returns the name as that of a variable, which does not begin with a digit.
fn upper(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let mark = name.starts_with(|c: char| c.is_ascii_digit()).then_some('_');
    mark.into_iter().chain(name.chars().map(letter)).collect()
}

fn plain(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}
