//! The way to a status page, which may redirect: at most three times, never from https to http, without credentials.

use std::{
    mem,
    time::{Duration, Instant},
};

use reqwest::{
    Client, Method, Request, Url,
    header::{HeaderMap, LOCATION},
};

use super::{
    clock,
    exchange::{Exchange, exchange},
    failure::Route,
};
use crate::outcome::Phases;

/// Redirects that are followed in one run.
const MOST: usize = 3;

/// Fetches what `request` asks for and, where the answer is a redirect, what that points to. The exchange is the last
/// one; the phases are those of the ones before it, summed, so that the run's phases still sum to its duration. `timeout`
/// bounds all of it. `request` has no headers of its own, so that none can reach another host.
pub(super) async fn follow(
    client: &Client,
    mut request: Request,
    timeout: Duration,
    route: Route,
) -> (Exchange, Phases) {
    let began = Instant::now();
    let mut before = Phases::default();
    let mut left = timeout;
    let mut followed = 0;
    loop {
        let from = request.url().clone();
        let exchange = exchange(client, request, left, route, None).await;
        let target = location(&exchange, &from).filter(|_| followed < MOST);
        let Some(target) = target else { return (after(exchange, followed), before) };
        before =
            before.plus(clock::phases(&exchange.seen, exchange.started, exchange.headers, exchange.ended));
        request = Request::new(Method::GET, target);
        followed += 1;
        // Whole milliseconds, since a failure's detail names it.
        left = Duration::from_millis(timeout.saturating_sub(began.elapsed()).as_millis() as u64);
    }
}

/// Where a response that came whole redirects to; `None`: it does not, or not to where we go.
fn location(exchange: &Exchange, from: &Url) -> Option<Url> {
    let response = exchange.response.as_ref().filter(|_| exchange.failure.is_none())?;
    matches!(response.status, 301 | 302 | 303 | 307 | 308).then(|| target(from, &response.headers)).flatten()
}

fn target(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let mut target = from.join(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    target.set_fragment(None);
    let secure = target.scheme() == "https" || target.scheme() == from.scheme();
    let bare = target.username().is_empty() && target.password().is_none();
    (secure && bare && target.has_host()).then_some(target)
}

/// Says in a failure how many redirects led to it: the host that fails is not the configured one then.
fn after(mut exchange: Exchange, followed: usize) -> Exchange {
    if let Some(failure) = exchange.failure.as_mut().filter(|_| followed > 0) {
        let detail = mem::take(&mut failure.detail);
        failure.detail = format!("{detail}, after {followed} redirect(s)").into();
    }
    exchange
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: &str, location: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        let found = target(&from.parse().unwrap(), &headers);
        assert_eq!(found.as_ref().map(Url::as_str), expected, "{from} to {location}");
    }

    #[test]
    fn redirects_lead_to_https_or_stay_on_their_scheme() {
        let page = "https://status.example/api/v2/summary.json";
        check(page, "https://new.example/a?b=c#d", Some("https://new.example/a?b=c"));
        check(page, "/incidents.json", Some("https://status.example/incidents.json"));
        check(page, "//new.example/", Some("https://new.example/"));
        check(page, "http://new.example/", None);
        check("http://status.example/", "https://new.example/", Some("https://new.example/"));
        check("http://status.example/", "http://new.example/", Some("http://new.example/"));
    }

    #[test]
    fn redirects_to_elsewhere_are_none() {
        for location in
            ["https://user@new.example/", "https://:pass@new.example/", "ftp://a/", "file:///etc/passwd"]
        {
            check("https://status.example/", location, None);
        }
        for location in ["data:text/plain,a", "javascript:0", "https://", "https://[", "mailto:a@b.example"] {
            check("http://status.example/", location, None);
        }
        assert_eq!(target(&"https://status.example/".parse().unwrap(), &HeaderMap::new()), None);
    }
}
