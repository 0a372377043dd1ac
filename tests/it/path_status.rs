//! Status pages on a hostile network: a timeout blames the lookup that was not answered, and no
//! flood delays other runs.

use serde_json::{Value, json};

use crate::harness::{
    certificates::{Issued, Subject},
    host::{Ask, Host},
    script::{end, good_listener, listener, response},
    table::Table,
    wait::wait_for,
};

/// Name servers: one that never answers, and one that knows everything but `gone.test`.
const SILENT_SERVER: &str = "127.0.0.52";
const GOOD_SERVER: &str = "127.0.0.53";

const QUIET: &str = r#"{"status":{"indicator":"none"},"components":[]}"#;

/// A status page, the provider's proxy, and the verdict.
struct Case {
    name: &'static str,
    server: &'static str,
    page: String,
    proxy: &'static str,
    verdict: &'static str,
    detail: &'static str,
}

impl Case {
    fn new(name: &'static str, page: impl Into<String>, verdict: &'static str, detail: &'static str) -> Self {
        Self { name, server: GOOD_SERVER, page: page.into(), proxy: "", verdict, detail }
    }

    fn by(self, proxy: &'static str) -> Self {
        Self { proxy, ..self }
    }

    /// Selects the name server that never answers.
    fn unresolved(self) -> Self {
        Self { server: SILENT_SERVER, ..self }
    }
}

fn cases() -> Vec<Case> {
    let (plain, tls) = ("http://page.test:8080/", "https://page.test:8443/");
    let lookup = "the name lookup was not answered within 2s";
    vec![
        Case::new("found", plain, "ok none", ""),
        Case::new("found over TLS", tls, "ok none", ""),
        Case::new("by a proxy", plain, "ok none", "").by("http://proxy.test:3128"),
        Case::new("lookup hangs", plain, "timeout network", lookup).unresolved(),
        Case::new("lookup hangs, https", tls, "timeout network", lookup).unresolved(),
        Case::new("proxy's lookup hangs", plain, "timeout network", lookup)
            .by("http://proxy.test:3128")
            .unresolved(),
        Case::new("lookup hangs after a redirect", "http://page.test:8083/", "timeout network", lookup),
        Case::new("no such name", "http://gone.test:8080/", "dns network", "NXDOMAIN"),
        Case::new("no response", "http://page.test:8081/", "timeout caller", "no response came within 2s"),
        Case::new(
            "half a page",
            "http://page.test:8082/",
            "timeout caller",
            "the response was not complete within 2s",
        ),
    ]
}

/// A machine with the servers of [`cases`], and the path of the authority of its pages.
fn host() -> Option<(Host, String)> {
    let mut host = Host::new()?;
    let here = json!({ "A": ["127.0.0.1"] });
    let known =
        json!({ "page.test": here, "proxy.test": here, "hanging.test": { "A": "silent", "AAAA": "silent" } });
    host.name_servers(&json!({
        SILENT_SERVER: { "default": "silent" },
        GOOD_SERVER: { "names": known },
    }));
    let root = Issued::self_signed(&Subject::authority("root"));
    let tls = root.issue(&Subject::new(&["page.test"])).served(&host, "page", &[]);
    let page = || json!([response("200 OK", "", QUIET)]);
    let mut secure = listener("secure", "127.0.0.1:8443", page());
    secure["tls"] = tls;
    let redirect =
        |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 99\r\n\r\nhalf");
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{";
    host.servers(&json!([
        listener("page", "127.0.0.1:8080", page()),
        secure,
        listener("proxy", "127.0.0.1:3128", page()),
        listener("no response", "127.0.0.1:8081", json!([end("hang")])),
        listener("half", "127.0.0.1:8082", json!([half, end("hang")])),
        listener("away", "127.0.0.1:8083", json!([redirect("http://hanging.test:8080/")])),
    ]));
    let ca = host.write("ca.pem", &root.pem());
    Some((host, ca))
}

#[test]
fn status_page_timeout_blames_an_unanswered_lookup() {
    let Some((host, ca)) = host() else { return };
    let mut table = Table::default();
    for case in cases() {
        host.etc("resolv.conf", &format!("nameserver {}\noptions timeout:30\n", case.server));
        let proxy =
            if case.proxy.is_empty() { String::new() } else { format!("proxy = \"{}\"\n", case.proxy) };
        let provider = format!("ca_file = \"{ca}\"\n{proxy}status_url = \"{}\"", case.page);
        let ask = Ask { checks: &["status"], provider: &provider, timeout: "2s", ..Ask::default() };
        for record in host.once(&ask) {
            table.row(case.name, &record, case.verdict, case.detail, "");
            let seconds = record["duration_seconds"].as_f64().unwrap_or_default();
            table.expect(case.name, seconds < 4.0, format!("{seconds} s are beyond the timeout"));
        }
    }
    table.finish();
}

/// Floods: name, beginning, repeated text, and whether a proxy sends it instead of the page's server.
const FLOODS: [(&str, &str, &str, bool); 9] = [
    ("continues", "", "HTTP/1.1 100 Continue\r\n\r\n", false),
    ("hints", "", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n", false),
    ("header-lines", "HTTP/1.1 200 OK\r\n", "x: y\r\n", false),
    ("header-value", "HTTP/1.1 200 OK\r\nx: ", "yyyyyyyy", false),
    ("body", "HTTP/1.1 200 OK\r\n\r\n", "[],[],[],", false),
    ("connect-continues", "", "HTTP/1.1 100 Continue\r\n\r\n", true),
    ("connect-hints", "", "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n", true),
    ("connect-header-lines", "HTTP/1.1 200 OK\r\n", "x: y\r\n", true),
    // After the answer to CONNECT: in the place of the target's handshake.
    ("connect-tunnel", "HTTP/1.1 200 OK\r\n\r\n", "\u{16}\u{3}\u{3}\u{0}\u{0}", true),
];

/// Probes of a good server beside the floods.
const VICTIMS: usize = 4;

fn flood_section(number: usize, name: &str, by_proxy: bool) -> String {
    let port = 9000 + number;
    let (base, how) = if by_proxy {
        ("https://127.0.0.9:1/v1".to_owned(), format!("proxy = \"http://127.0.0.1:{port}\"\n"))
    } else {
        let url = format!("http://127.0.0.1:{port}");
        (format!("{url}/v1"), format!("status_url = \"{url}/\"\n"))
    };
    let check = if by_proxy { "auth" } else { "status" };
    format!(
        "[provider.{name}]\napi = \"openai\"\nbase_url = \"{base}\"\napi_key = {{ env = \"SIM_KEY\" }}\nchecks = []\n\
         allow_plain_http = true\n{how}[[probe]]\nname = \"{name}\"\nprovider = \"{name}\"\ncheck = \"{check}\"\n\
         interval = \"2s\"\ntimeout = \"2s\"\n"
    )
}

#[test]
fn floods_of_pages_and_proxies_fail_no_other_run() {
    let Some(mut host) = Host::new() else { return };
    let server = |(number, (name, first, text, _)): (usize, &(&str, &str, &str, bool))| {
        let at = format!("127.0.0.1:{}", 9000 + number);
        listener(name, &at, json!([first, { "repeat": text, "times": null }]))
    };
    let mut servers: Vec<Value> = FLOODS.iter().enumerate().map(server).collect();
    servers.push(good_listener("victim", "127.0.0.1:8080"));
    host.servers(&Value::Array(servers));
    let section = |(number, (name, _, _, by_proxy)): (usize, &(&str, &str, &str, bool))| {
        flood_section(number, name, *by_proxy)
    };
    let floods: String = FLOODS.iter().enumerate().map(section).collect();
    let victim = |number: usize| {
        format!(
            "[[probe]]\nname = \"victim{number}\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"2s\"\n\
             timeout = \"2s\"\n"
        )
    };
    let victims: String = (0..VICTIMS).map(victim).collect();
    let sections = format!("{victims}{floods}");
    let ask = Ask { url: "http://127.0.0.1:8080/v1", checks: &[], sections: &sections, ..Ask::default() };
    let mut daemon = host.daemon(&ask.config());
    let results = || -> Vec<Value> {
        (0..VICTIMS).flat_map(|number| host.results(&format!("victim{number}"))).collect()
    };
    let victims = wait_for("six runs of each beside the floods", || {
        Some(results()).filter(|records| records.len() >= 6 * VICTIMS)
    });
    daemon.stop();
    let mut table = Table::default();
    for (name, _, _, by_proxy) in FLOODS {
        let runs = host.results(name);
        table.expect(name, !runs.is_empty(), "it never ran");
        let verdict = match name {
            // Of a connection through the tunnel, not of the proxy.
            "connect-tunnel" => "tls network",
            _ if by_proxy => "proxy network",
            // Malformed or a timeout: the client has its own bounds.
            _ => {
                let failed = runs.iter().all(|record| record["fault"] == "caller");
                table.expect(name, failed, format!("{runs:?}"));
                continue;
            }
        };
        for record in runs.iter().take(1) {
            table.row(name, record, verdict, "", "");
        }
    }
    for record in victims.iter().filter(|record| record["success"] != true) {
        table.row("beside the floods", record, "ok none", "", "");
    }
    table.finish();
}
