//! `[server]`: the listen address, host names and access control.

use std::{collections::BTreeMap, net::SocketAddr};

use bcrypt::HashParts;
use url::Host;

use super::{context::Context, values::absolute};
use crate::config::{
    environment::Keys,
    environment::exposure,
    listener_certificate::{CertificateFiles, read_chain},
    model::{KeySource, Server, ServerTls},
    problem::shown,
    raw::{Section, wrong_type},
    secret::Secret,
    service::Usage,
};

/// Range of the cost of a bcrypt hash: lower values protect little, higher ones take seconds per
/// password.
const MIN_COST: u32 = 5;
const MAX_COST: u32 = 14;

/// Maximum number of users, and maximum length of a user name in bytes.
const MAX_USERS: usize = 64;
const MAX_USER_BYTES: usize = 64;

pub(super) fn server(mut section: Section<'_>, context: &Context<'_>) -> Server {
    let listen = section.text("listen", |text| {
        text.parse::<SocketAddr>().map_err(|_| {
            format!(
                "{} is not a listen address; use one such as \"127.0.0.1:10429\" or \"[::1]:10429\"",
                shown(text)
            )
        })
    });
    let listen = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 10_429)));
    context.check_listen(listen, &section.place_of("listen"));
    let hostnames = section.texts("hostnames", hostname).into_iter().map(|(name, _)| name).collect();
    let tls = section.has("tls").then(|| tls(section.section("tls"), context)).flatten();
    section.mark_known(&["tls"]);
    let protected = section.has("basic_auth");
    let basic_auth = section.section("basic_auth");
    let users = users(&basic_auth, context);
    if protected && basic_auth.entries().is_empty() && !section.is_bad("basic_auth") {
        section.problem("basic_auth", "has no user; use { USER = \"BCRYPT HASH\" }, or remove it");
    }
    // An invalid value is reported; it counts as true here, so that it causes no second error.
    let allowed = section.flag("allow_unauthenticated").unwrap_or(section.has("allow_unauthenticated"));
    let remote = !listen.ip().to_canonical().is_loopback();
    if remote && !protected && !allowed {
        let message = format!(
            "\"{listen}\" is not a loopback address: other machines could read the state and reload; \
             listen on 127.0.0.1, set server.basic_auth, or set server.allow_unauthenticated = true"
        );
        section.problem("listen", message);
    }
    if remote && protected && !section.has("tls") {
        let message = "passwords are sent unencrypted to an address that is not loopback; set server.tls, \
                       or use a reverse proxy with TLS";
        context.report.warning(&section.place_of("basic_auth"), message);
    }
    let probe_generation = section.flag("probe_generation").unwrap_or(false);
    section.finish();
    Server { listen, hostnames, tls, users, allow_unauthenticated: allowed, probe_generation }
}

/// Parses a name or an address as in a Host header, without a port.
fn hostname(text: &str) -> Result<String, String> {
    let message =
        || format!("{} is not a host name; omit scheme and port, as in \"prober.example\"", shown(text));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    let name = match text.parse() {
        Ok(address) => Host::<&str>::Ipv6(address).to_string(),
        Err(_) => text.to_ascii_lowercase(),
    };
    // Browsers normalize hosts such as 127.1, so that only the normalized form can match.
    let same = Host::parse(&name).is_ok_and(|host| host.to_string() == name);
    if same && name.chars().all(plain) && name.len() <= 253 && !name.ends_with('.') {
        Ok(name)
    } else {
        Err(message())
    }
}

/// Reads certificate and key. The key is read only if keys are needed.
fn tls(mut section: Section<'_>, context: &Context<'_>) -> Option<ServerTls> {
    let certificate = section.required("cert_file", absolute);
    let key = section.required("key_file", absolute);
    let [certificate_place, key_place] = ["cert_file", "key_file"].map(|key| section.place_of(key));
    section.finish();
    let files = CertificateFiles { certificate: certificate?, key: key? };
    let stamp = files.stamp();
    context.check_readable(&files.certificate, Usage::Configuration, &certificate_place);
    if let Err(message) = read_chain(&files.certificate) {
        context.report.error(&certificate_place, message);
        return None;
    }
    if matches!(context.keys, Keys::Skipped | Keys::ReportedOf(_)) {
        return Some(ServerTls { files, stamp, certified: None });
    }
    if let Some(message) = exposure(&KeySource::File(files.key.clone()), context.service_group()) {
        context.report.error(&key_place, message);
        return None;
    }
    context.check_readable(&files.key, Usage::Key, &key_place);
    let certified = match files.read() {
        Ok(certified) => Some(certified),
        Err(message) if matches!(context.keys, Keys::Required | Keys::Strict) => {
            context.report.error(&key_place, message);
            None
        }
        Err(message) => {
            context.report.warning(&key_place, message);
            None
        }
    };
    Some(ServerTls { files, stamp, certified })
}

fn users(section: &Section<'_>, context: &Context<'_>) -> BTreeMap<String, Secret> {
    let mut users = BTreeMap::new();
    for entry in section.entries() {
        let hash = entry.value.as_str().ok_or_else(|| wrong_type("a string, a bcrypt hash", entry.value));
        match hash.and_then(|hash| user(entry.key, hash)) {
            Ok(hash) => drop(users.insert(entry.key.to_owned(), hash)),
            Err(message) => context.report.error(&entry.place, message),
        }
    }
    if users.len() > MAX_USERS {
        let message = format!("{} users are too many; allowed: {MAX_USERS}", users.len());
        context.report.error(section.place(), message);
    }
    users
}

/// Parses the hash of a user's password. The messages omit it, because users often write the
/// password itself.
fn user(name: &str, hash: &str) -> Result<Secret, String> {
    // The user name ends at the first colon (RFC 7617, 2).
    if name.is_empty() || name.len() > MAX_USER_BYTES || name.contains(|c: char| c == ':' || c.is_control()) {
        return Err("is not a user name; it must have 1 to 64 bytes, without colons and control characters"
            .to_owned());
    }
    let parts: HashParts = hash.parse().map_err(|_| {
        "must be a bcrypt hash, which begins with $2y$; `htpasswd -nBC 10 USER` prints it after the colon"
            .to_owned()
    })?;
    let cost = parts.get_cost();
    if (MIN_COST..=MAX_COST).contains(&cost) {
        Ok(Secret::new(hash.to_owned()))
    } else {
        Err(format!("has a cost of {cost}; allowed: {MIN_COST} to {MAX_COST}, and 10 is usual"))
    }
}
