//! Protection against DNS rebinding and CSRF: requests of browsers must be addressed to this
//! listener and come from its pages.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    Version,
    header::{ACCEPT_LANGUAGE, HOST, HeaderMap, HeaderName, ORIGIN, REFERER},
    http::{request, uri::Authority},
};

/// The reason why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Host is missing in HTTP/1.1, repeated, or invalid.
    BadHost,
    /// Host is not one of ours.
    ForeignHost,
    /// Origin is not one of ours.
    ForeignOrigin,
}

/// The addresses and names of the listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServedHosts<'a> {
    /// The bound address.
    pub(super) listen: SocketAddr,
    /// Additional host names, in lower case.
    pub(super) hostnames: &'a [String],
    /// The port of a Host header without one: 80, or 443 with TLS.
    pub(super) default_port: u16,
}

/// Paths that scrapers and load balancers request.
const MACHINE_PATHS: [&str; 3] = ["/metrics", "/-/healthy", "/-/ready"];

/// Headers that browsers add. A page cannot suppress Accept-Language, unlike Referer, and browsers
/// send Sec-Fetch only over TLS and to their own machine.
const BROWSER_HEADERS: [HeaderName; 3] = [ORIGIN, REFERER, ACCEPT_LANGUAGE];

/// Checks that a request is addressed to the listen address or one of the names, and was not sent
/// by a page of another origin. Another Host is accepted with `authenticated`, unless a page sends
/// the request, because DNS rebinding cannot send a password, and from programs other than
/// browsers.
pub(super) fn check_request(
    head: &request::Parts,
    hosts: &ServedHosts<'_>,
    authenticated: bool,
) -> Result<(), Refusal> {
    let any_host = authenticated && !head.headers.contains_key(ORIGIN) || is_from_machine(head);
    let is_accepted = |authority: &Authority| any_host || is_addressable(authority, hosts);
    // A target in absolute form takes precedence over Host (RFC 9112, 3.2.2); here both must be
    // ours.
    if head.uri.authority().is_some_and(|authority| !is_accepted(authority)) {
        return Err(Refusal::ForeignHost);
    }
    let host = match single(&head.headers, HOST) {
        Ok(Some(text)) => Some(authority(text).ok_or(Refusal::BadHost)?),
        // Browsers never omit Host, but health checks of load balancers do.
        Ok(None) if head.version == Version::HTTP_10 => None,
        Ok(None) | Err(Repeated) => return Err(Refusal::BadHost),
    };
    if host.as_ref().is_some_and(|host| !is_accepted(host)) {
        return Err(Refusal::ForeignHost);
    }
    match single(&head.headers, ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if is_own_origin(origin, host.as_ref(), hosts) => Ok(()),
        Ok(Some(_)) | Err(Repeated) => Err(Refusal::ForeignOrigin),
    }
}

/// Returns whether a request for [`MACHINE_PATHS`] has no header that browsers add.
fn is_from_machine(head: &request::Parts) -> bool {
    let is_browsers = |name: &HeaderName| BROWSER_HEADERS.contains(name) || name.as_str().starts_with("sec-");
    MACHINE_PATHS.contains(&head.uri.path()) && !head.headers.keys().any(is_browsers)
}

/// Returns whether browsers send Sec-Fetch-Site with requests like this: they do over TLS and to
/// their own machine (W3C Fetch Metadata, 2; Secure Contexts, 3.1).
pub(super) fn sends_fetch_metadata(head: &request::Parts, secure: bool) -> bool {
    let host = single(&head.headers, HOST).ok().flatten().and_then(authority);
    secure
        || host.is_some_and(|host| {
            literal(&host).map_or(host.host().eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
        })
}

struct Repeated;

/// Returns the only value of a header, or `None` if it is missing. A value that is not text counts
/// as empty.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Repeated> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.to_str().unwrap_or_default())),
        (Some(_), Some(_)) => Err(Repeated),
    }
}

fn authority(text: &str) -> Option<Authority> {
    text.parse().ok().filter(|authority: &Authority| !authority.as_str().contains('@'))
}

/// Returns whether requests may have this authority. A listener on a wildcard address accepts any
/// literal address, which DNS rebinding cannot forge.
fn is_addressable(authority: &Authority, hosts: &ServedHosts<'_>) -> bool {
    let literal_here = literal(authority).is_some() && hosts.listen.ip().is_unspecified();
    is_own(authority, hosts.default_port, hosts)
        || literal_here && authority.port_u16().unwrap_or(hosts.default_port) == hosts.listen.port()
}

/// Returns whether an origin is ours: that of the request, or one of our names. On a wildcard
/// address, a literal address may be that of another machine.
fn is_own_origin(origin: &str, host: Option<&Authority>, hosts: &ServedHosts<'_>) -> bool {
    let (authority_text, default_port) =
        match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
            (Some(rest), _) => (rest, 80),
            (None, Some(rest)) => (rest, 443),
            (None, None) => return false,
        };
    authority(authority_text)
        .is_some_and(|origin| host == Some(&origin) || is_own(&origin, default_port, hosts))
}

fn is_own(authority: &Authority, default_port: u16, hosts: &ServedHosts<'_>) -> bool {
    let ServedHosts { listen, hostnames, .. } = hosts;
    let host = authority.host();
    if hostnames.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    if authority.port_u16().unwrap_or(default_port) != listen.port() {
        return false;
    }
    let ip = listen.ip().to_canonical();
    match literal(authority) {
        Some(literal) => literal == ip,
        None => host.eq_ignore_ascii_case("localhost") && (ip.is_loopback() || ip.is_unspecified()),
    }
}

fn literal(authority: &Authority) -> Option<IpAddr> {
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:10429";
    const WILDCARD: &str = "0.0.0.0:10429";

    #[track_caller]
    fn check(listen: &str, headers: &[(&str, &str)], expected: Result<(), Refusal>) {
        check_target(listen, "/", Version::HTTP_11, headers, expected);
    }

    #[track_caller]
    fn check_target(
        listen: &str,
        target: &str,
        version: Version,
        headers: &[(&str, &str)],
        expected: Result<(), Refusal>,
    ) {
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let hostnames = ["prober.example".to_owned()];
        let hosts = ServedHosts { listen: listen.parse().unwrap(), hostnames: &hostnames, default_port: 80 };
        assert_eq!(check_request(&head, &hosts, false), expected, "{listen} {target} {headers:?}");
    }

    #[test]
    fn host_must_be_the_listen_address_or_a_hostname() {
        let foreign = Err(Refusal::ForeignHost);
        check(LOOPBACK, &[("host", "127.0.0.1:10429")], Ok(()));
        check(LOOPBACK, &[("host", "localhost:10429")], Ok(()));
        check(LOOPBACK, &[("host", "LocalHost:10429")], Ok(()));
        check(LOOPBACK, &[("host", "prober.example")], Ok(()));
        check(LOOPBACK, &[("host", "Prober.Example:8443")], Ok(()));
        check(LOOPBACK, &[("host", "127.0.0.1")], foreign);
        check(LOOPBACK, &[("host", "127.0.0.1:80")], foreign);
        check(LOOPBACK, &[("host", "localhost")], foreign);
        check(LOOPBACK, &[("host", "192.0.2.1:10429")], foreign);
        check(LOOPBACK, &[("host", "rebound.example:10429")], foreign);
        check(LOOPBACK, &[("host", "notprober.example")], foreign);
        check(LOOPBACK, &[("host", "prober.example.evil.example")], foreign);
        check(WILDCARD, &[("host", "192.0.2.1:10429")], Ok(()));
        check(WILDCARD, &[("host", "[2001:db8::1]:10429")], Ok(()));
        check(WILDCARD, &[("host", "localhost:10429")], Ok(()));
        check(WILDCARD, &[("host", "192.0.2.1")], foreign);
        check(WILDCARD, &[("host", "rebound.example:10429")], foreign);
        check("[::]:10429", &[("host", "192.0.2.1:10429")], Ok(()));
        check("[::1]:10429", &[("host", "[::1]:10429")], Ok(()));
        check("[::1]:10429", &[("host", "[0:0:0:0:0:0:0:1]:10429")], Ok(()));
        check("192.0.2.1:10429", &[("host", "localhost:10429")], foreign);
        check("127.0.0.1:80", &[("host", "127.0.0.1")], Ok(()));
    }

    #[test]
    fn default_port_with_tls_is_443() {
        let hosts =
            ServedHosts { listen: "192.0.2.1:443".parse().unwrap(), hostnames: &[], default_port: 443 };
        let ask = |origin: &str| {
            let request = Request::builder().header("host", "192.0.2.1").header("origin", origin);
            check_request(&request.body(()).unwrap().into_parts().0, &hosts, false)
        };
        assert_eq!(ask("https://192.0.2.1"), Ok(()));
        assert_eq!(ask("https://192.0.2.1:443"), Ok(()));
        assert_eq!(ask("https://192.0.2.1:8443"), Err(Refusal::ForeignOrigin));
    }

    #[test]
    fn invalid_host_is_rejected() {
        let bad = Err(Refusal::BadHost);
        check(LOOPBACK, &[], bad);
        check(LOOPBACK, &[("host", "")], bad);
        check(LOOPBACK, &[("host", "a b")], bad);
        check(LOOPBACK, &[("host", "::1:10429")], bad);
        check(LOOPBACK, &[("host", "[::1")], bad);
        check(LOOPBACK, &[("host", "127.0.0.1:99999")], Err(Refusal::ForeignHost));
        check(LOOPBACK, &[("host", "127.0.0.1:10429, evil.example")], bad);
        check("[::1]:10429", &[("host", "[::1%25lo]:10429")], Err(Refusal::ForeignHost));
        check(LOOPBACK, &[("host", "x@127.0.0.1:10429")], bad);
        check(LOOPBACK, &[("host", "127.0.0.1:10429"), ("host", "127.0.0.1:10429")], bad);
        check_target(LOOPBACK, "/", Version::HTTP_10, &[], Ok(()));
        check_target(LOOPBACK, "/", Version::HTTP_10, &[("host", "evil.example")], Err(Refusal::ForeignHost));
        let own = [("host", "127.0.0.1:10429")];
        check_target(LOOPBACK, "http://127.0.0.1:10429/", Version::HTTP_11, &own, Ok(()));
        check_target(LOOPBACK, "http://evil.example/", Version::HTTP_11, &own, Err(Refusal::ForeignHost));
    }

    #[test]
    fn scraper_may_use_any_host() {
        let foreign = Err(Refusal::ForeignHost);
        let named = ("host", "scraped.example:9999");
        for (path, expected) in [
            ("/metrics", Ok(())),
            ("/metrics?name=a", Ok(())),
            ("/-/healthy", Ok(())),
            ("/-/ready", Ok(())),
            ("/", foreign),
            ("/-/reload", foreign),
            ("/metrics/", foreign),
            ("/probe?target=a", foreign),
            ("/api/v1/results", foreign),
        ] {
            check_target(LOOPBACK, path, Version::HTTP_11, &[named], expected);
        }
        check_target(LOOPBACK, "http://a.example/metrics", Version::HTTP_11, &[named], Ok(()));
        check_target(LOOPBACK, "/metrics", Version::HTTP_11, &[], Err(Refusal::BadHost));
        for browser in [
            ("origin", "http://scraped.example:9999"),
            ("referer", "http://scraped.example:9999/"),
            ("accept-language", ""),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "navigate"),
            ("sec-ch-ua", "x"),
        ] {
            for path in MACHINE_PATHS {
                check_target(LOOPBACK, path, Version::HTTP_11, &[named, browser], foreign);
            }
        }
    }

    #[test]
    fn authenticated_request_may_use_any_host() {
        let hosts = ServedHosts { listen: LOOPBACK.parse().unwrap(), hostnames: &[], default_port: 80 };
        let ask = |origin: Option<&str>| {
            let mut request = Request::builder().header("host", "a.example").header("referer", "x");
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            check_request(&request.body(()).unwrap().into_parts().0, &hosts, true)
        };
        assert_eq!(ask(None), Ok(()));
        assert_eq!(ask(Some("http://a.example")), Err(Refusal::ForeignHost));
        assert_eq!(ask(Some("http://evil.example")), Err(Refusal::ForeignHost));
    }

    #[test]
    fn foreign_origin_is_rejected() {
        let foreign = Err(Refusal::ForeignOrigin);
        let check = |listen, host, origin, expected| {
            check(listen, &[("host", host), ("origin", origin)], expected);
        };
        check(LOOPBACK, "127.0.0.1:10429", "http://127.0.0.1:10429", Ok(()));
        check(LOOPBACK, "127.0.0.1:10429", "http://localhost:10429", Ok(()));
        check(LOOPBACK, "127.0.0.1:10429", "https://prober.example", Ok(()));
        check(LOOPBACK, "127.0.0.1:10429", "http://localhost:3000", foreign);
        check(LOOPBACK, "127.0.0.1:10429", "http://evil.example", foreign);
        check(LOOPBACK, "127.0.0.1:10429", "null", foreign);
        check(LOOPBACK, "127.0.0.1:10429", "", foreign);
        check(LOOPBACK, "127.0.0.1:10429", "file://", foreign);
        check(LOOPBACK, "127.0.0.1:10429", "http://127.0.0.1:10429@evil.example", foreign);
        check(WILDCARD, "192.0.2.1:10429", "http://192.0.2.1:10429", Ok(()));
        check(WILDCARD, "192.0.2.1:10429", "http://192.0.2.66:10429", foreign);
        check("127.0.0.1:80", "127.0.0.1", "http://127.0.0.1", Ok(()));
        check("127.0.0.1:80", "localhost", "http://127.0.0.1", Ok(()));
        check("127.0.0.1:80", "localhost", "https://127.0.0.1", foreign);
    }
}
