//! Tests of the pages in a real Chromium: content, refreshes, accessibility, hostile text.

use langmart_prober::simulator::Simulator;
use serde_json::{Value, json};

use crate::harness::{
    browser::{Browser, PARTS},
    daemon::{Daemon, KEY, LISTEN, Place},
    parts,
    simulate::simulator,
    wait::wait_for,
};

/// Markup with visible effects if it is not escaped: a script, an attribute, an entity.
const HOSTILE: &str = r#"<script>document.title='owned'</script><img/src=x/onerror=alert(1)>\"'&amp;"#;

/// Keys, by their codes in `WebDriver`.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

/// Starts a daemon with a probe that succeeds, one that fails, and one in backoff.
fn busy(interval: &str) -> (Simulator, Place, Daemon) {
    let simulator = simulator(
        "[[rule]]\nprovider = \"groq\"\npath = \"/chat\"\nfault = \"rate_limited\"\nretry_after = \"10m\"\n\
         [[rule]]\nprovider = \"langmart\"\npath = \"/chat\"\nfault = \"unavailable\"\n",
    );
    let address = simulator.address();
    let place = Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"{interval}\"\n[defaults.generation]\ninterval = \"{interval}\"\n\
         [provider.langmart]\nbase_url = \"http://{address}/langmart\"\n{KEY}\nchecks = [\"health\", \"auth\"]\n\
         [provider.openai]\nbase_url = \"http://{address}/openai/v1\"\n{KEY}\n\
         [provider.groq]\nbase_url = \"http://{address}/groq/openai/v1\"\n{KEY}\n\
         [[probe]]\nname = \"gateway\"\nprovider = \"langmart\"\ncheck = \"chat\"\nmodel = \"openai/gpt-4o-mini\"\n\
         [[probe]]\nname = \"direct\"\nprovider = \"openai\"\ncheck = \"stream\"\nmodel = \"gpt-4o-mini\"\n\
         [[probe]]\nname = \"waiting\"\nprovider = \"groq\"\ncheck = \"chat\"\nmodel = \"openai/gpt-oss-20b\"\n\
         [[probe]]\nname = \"hostile\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"{HOSTILE}\"\n"
    ));
    let daemon = place.daemon();
    daemon.scrape_until("runs of every probe", |scrape| {
        scrape.values("langmart_probe_runs_total", &[]).iter().all(|runs| *runs >= 1.0)
    });
    (simulator, place, daemon)
}

fn url(daemon: &Daemon, path: &str) -> String {
    format!("http://{}{path}", daemon.address)
}

#[test]
fn page_shows_failures_and_links_to_details() {
    if !parts::has(PARTS, false) {
        return;
    }
    let (_simulator, _place, daemon) = busy("500ms");
    let browser = Browser::open(1280, 1000);
    browser.go(&url(&daemon, "/"));
    let problems = browser.script("return document.getElementById('problems').innerText");
    for part in ["failing", "unavailable", "the gateway", "limited", "Waiting until", "What to do"] {
        assert!(problems.as_str().unwrap().contains(part), "{part} in {problems}");
    }
    // By keyboard: the first stop skips to the content, further ones reach the probes.
    browser.press(TAB);
    assert_eq!(browser.script("return document.activeElement.className"), "skip");
    browser.script("document.querySelector('#problems a[href=\"/probes/gateway\"]').focus()");
    browser.press(ENTER);
    browser.until("the probe's page", "return location.pathname === '/probes/gateway'");
    let page = browser.script("return document.body.innerText");
    for part in
        ["Phases of the last runs", "Last failures", "curl -sS", "$SIM_KEY", "Configuration as resolved"]
    {
        assert!(page.as_str().unwrap().contains(part), "{part} in {page}");
    }
    assert!(browser.script("return document.querySelectorAll('svg.phases rect').length").as_u64() > Some(0));
    let origin = url(&daemon, "/");
    let requests = browser.requests();
    assert!(requests.iter().any(|url| url.ends_with("/style.css")), "{requests:?}");
    assert_eq!(
        requests.iter().find(|url| !url.starts_with(&origin)),
        None,
        "it asks only where it comes from"
    );
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn page_refreshes_in_place_and_reports_errors() {
    if !parts::has(PARTS, false) {
        return;
    }
    let (_simulator, _place, mut daemon) = busy("200ms");
    let browser = Browser::open(1280, 400);
    browser.go(&url(&daemon, "/probes/gateway"));
    // Chromium adjusts the scroll position if content above grows.
    browser.script(
        "document.documentElement.style.overflowAnchor = 'none'; \
         document.querySelector('details').open = true; document.querySelector('nav.crumbs a').focus(); \
         scrollTo(0, 100); window.before = [document.activeElement, scrollY, document.querySelector('#service')]",
    );
    let bars = "return document.querySelectorAll('svg.phases .mark').length";
    let before = browser.script(bars).as_u64().unwrap();
    // The page refreshes when it becomes visible, so the test need not wait for the timer.
    browser.script("document.dispatchEvent(new Event('visibilitychange'))");
    browser.until("a refresh", "return 'refreshed' in document.documentElement.dataset");
    wait_for("more runs", || {
        browser.script("document.dispatchEvent(new Event('visibilitychange'))");
        (browser.script(bars).as_u64().unwrap() > before).then_some(())
    });
    let same = browser.script(
        "return [document.activeElement === before[0], scrollY === before[1], \
         document.querySelector('#service') === before[2], document.querySelector('details').open]",
    );
    assert_eq!(same, json!([true, true, true, true]), "focus, scroll position, nodes and open details");
    assert_eq!(browser.complaints(), [""; 0]);
    browser.script("document.getElementById('pause').click()");
    assert_eq!(browser.script("return document.getElementById('pause').ariaPressed"), "true");
    daemon.stop();
    browser.script("document.getElementById('pause').click()");
    browser.until("the page to show that it is outdated", "return !document.getElementById('stale').hidden");
}

#[test]
fn page_works_without_scripts() {
    if !parts::has(PARTS, false) {
        return;
    }
    let (_simulator, _place, daemon) = busy("500ms");
    let browser = Browser::open(1280, 1000);
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.go(&url(&daemon, "/"));
    let shown = browser.script("return [document.body.innerText, document.getElementById('pause').hidden]");
    assert!(shown[0].as_str().unwrap().contains("What to do"), "{shown}");
    assert!(shown[0].as_str().unwrap().contains("Reload"), "{shown}");
    assert_eq!(shown[1], true, "there is no button without effect");
}

#[test]
fn page_passes_accessibility_checks() {
    let (true, Some(axe)) = (parts::has(PARTS, false), parts::tool("axe/node_modules/axe-core/axe.min.js"))
    else {
        return;
    };
    let (_simulator, _place, daemon) = busy("500ms");
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light")] {
        let browser = Browser::open(width, 900);
        browser.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
        for path in ["/", "/probes/gateway", "/probes/waiting", "/probes/direct"] {
            browser.go(&url(&daemon, path));
            browser.script("for (const details of document.querySelectorAll('details')) details.open = true");
            browser.script(&axe);
            let found = browser.script_later(
                "const done = arguments[0]; axe.run().then(r => done(r.passes.length < 15 ? ['it checked too little'] : r.violations.map(v => [v.id, v.help, \
                 v.nodes.map(n => n.html + ' ' + n.failureSummary)])), e => done(String(e)))",
            );
            assert_eq!(found, Value::Array(Vec::new()), "{path}, {width} wide, {scheme}: {found:#}");
            let wider = browser.script("return document.documentElement.scrollWidth > innerWidth");
            assert_eq!(wider, false, "{path} is wider than {width}");
            // Not even without a preference for reduced motion.
            assert_eq!(
                browser.script("return document.getAnimations().length"),
                0,
                "nothing moves on {path}"
            );
        }
    }
}

#[test]
fn hostile_text_does_not_change_the_page() {
    if !parts::has(PARTS, false) {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let markup = "<script>document.title=1</script><svg onload=alert(1)>";
            let body = format!(
                "{{\"error\":{{\"message\":\"{markup}\",\"code\":\"{markup}\",\"type\":\"{markup}\",\"provider\":\"{markup}\"}}}}"
            );
            let _ = write!(
                stream,
                "HTTP/1.1 500 {markup}\r\nserver: {markup}\r\nx-request-id: {markup}\r\nx-ratelimit-limit-requests: {markup}\r\n\
                 content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let place = Place::new(&format!(
        "{LISTEN}[defaults]\ninterval = \"100ms\"\n[provider.openai]\nbase_url = \"http://{address}\"\n{KEY}\n\
         checks = [\"auth\"]\n\
         [[probe]]\nname = \"hostile\"\nprovider = \"openai\"\ncheck = \"models\"\nmodel = \"{HOSTILE}\"\n"
    ));
    let daemon = place.daemon();
    daemon.scrape_until("failures", |scrape| {
        scrape.sum("langmart_probe_runs_total") >= 4.0 && scrape.sum("langmart_probe_success") == 0.0
    });
    let browser = Browser::open(1280, 1000);
    for path in ["/", "/probes/hostile", "/probes/openai-auth"] {
        browser.go(&url(&daemon, path));
        let found = browser.script(
            "return [document.scripts.length, document.images.length, document.title.includes('prober'), \
             document.querySelectorAll('[onload],[onerror],[style]').length]",
        );
        assert_eq!(found, json!([1, 0, true, 0]), "{path}");
        let text = daemon.get(path).body;
        assert!(!text.contains("document.title=1"), "{path} shows a provider's text: {text}");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}
