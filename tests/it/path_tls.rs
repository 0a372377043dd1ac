//! Tests of certificates and handshakes: trust by `ca_file`, incomplete chains, and servers that
//! require a client certificate.

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};

use crate::harness::{
    certificates::{Issued, Subject},
    host::{Ask, Host},
    script::{good, h2_good, listener},
    table::Table,
};

const NAME: &str = "api.corp.test";
const DEEPER_NAME: &str = "a.api.corp.test";

/// A server, the client's trust, and the verdict.
struct Case {
    name: &'static str,
    tls: Value,
    /// Text of `ca_file`.
    trusted: String,
    host: &'static str,
    verdict: &'static str,
    detail: &'static str,
    /// Whether curl accepts it.
    is_good: bool,
}

impl Case {
    /// Returns a case that is valid, for curl as well.
    fn good(name: &'static str, tls: Value, trusted: String) -> Self {
        Self { name, tls, trusted, host: NAME, verdict: "ok none", detail: "", is_good: true }
    }

    fn bad(
        name: &'static str,
        tls: Value,
        trusted: String,
        verdict: &'static str,
        detail: &'static str,
    ) -> Self {
        Self { verdict, detail, is_good: false, ..Self::good(name, tls, trusted) }
    }

    fn at(self, host: &'static str) -> Self {
        Self { host, ..self }
    }
}

/// Runs the cases, each with a server of its own, and compares them with curl.
fn check(host: &mut Host, cases: &[Case]) {
    let here = json!({ "A": ["127.0.0.1"] });
    host.name_servers(&json!({ "127.0.0.53": { "names": { NAME: here, DEEPER_NAME: here } } }));
    let with_tls = |(number, case): (usize, &Case)| {
        let is_h2 = case.tls.get("alpn").is_some();
        let actions = if is_h2 { json!(h2_good()) } else { json!([good()]) };
        let mut listener = listener(case.name, &format!("127.0.0.1:{}", 9000 + number), actions);
        listener["tls"] = case.tls.clone();
        listener["h2"] = json!(is_h2);
        listener
    };
    host.servers(&cases.iter().enumerate().map(with_tls).collect());
    let mut table = Table::default();
    for (number, case) in cases.iter().enumerate() {
        let url = format!("https://{}:{}/v1", case.host, 9000 + number);
        let ca = host.write(&format!("{number}.ca"), &case.trusted);
        let curl = host.curl(&["--cacert", &ca], &[], &url);
        let provider = if case.trusted.is_empty() { String::new() } else { format!("ca_file = \"{ca}\"") };
        let ask = Ask { url: &url, checks: &["network", "auth"], provider: &provider, ..Ask::default() };
        for record in host.once(&ask) {
            table.row(case.name, &record, case.verdict, case.detail, &curl);
        }
        table.expect(
            case.name,
            (curl.exit == 0) == case.is_good,
            format!("curl disagrees with the case: {curl}"),
        );
    }
    table.finish();
}

/// Returns a self-signed certificate for the server, and for `ca_file`.
fn own(host: &Host, file: &str, subject: &Subject) -> (Value, String) {
    let issued = Issued::self_signed(subject);
    (issued.served(host, file, &[]), issued.pem())
}

#[test]
fn self_signed_certificate_in_ca_file_is_trusted() {
    let Some(mut host) = Host::new() else { return };
    let subject = || Subject::new(&[NAME]);
    let good = |name: &'static str, file: &str, subject: Subject| {
        let (tls, trusted) = own(&host, file, &subject);
        Case::good(name, tls, trusted)
    };
    let mut cases = vec![
        good("F12 CA:TRUE", "true", subject().ca(true)),
        good("CA:FALSE", "false", subject().ca(false)),
        good("no basic constraints", "none", subject()),
        good("CA:TRUE, for every purpose", "every", subject().ca(true).purposes(Vec::new())),
        good("CA:TRUE, a wildcard", "wild", Subject::new(&["*.corp.test"]).ca(true)),
        good("CA:TRUE, an IPv4 address", "four", Subject::new(&["127.0.0.1"]).ca(true)).at("127.0.0.1"),
        good("CA:TRUE, several names", "several", Subject::new(&["x.test", "y.test", NAME]).ca(true)),
    ];
    let (tls, trusted) = own(&host, "second", &subject().ca(true));
    let stranger = Issued::self_signed(&Subject::authority("stranger"));
    cases.push(Case::good("CA:TRUE, the second of ca_file", tls, stranger.pem() + &trusted));
    let (tls, trusted) = own(&host, "text", &subject().ca(true));
    cases.push(Case::good(
        "CA:TRUE, with text around it",
        tls,
        format!("Certificate:\n  Data\n{trusted}\nend\n"),
    ));
    let leaf = stranger.issue(&subject());
    cases.push(Case::good(
        "of an unknown issuer, itself in ca_file",
        leaf.served(&host, "leaf", &[]),
        leaf.pem(),
    ));
    check(&mut host, &cases);
}

#[test]
fn self_signed_certificate_is_still_checked() {
    let Some(mut host) = Host::new() else { return };
    let mut cases = Vec::new();
    for (is_ca, files) in [(true, ["a", "b", "c", "d"]), (false, ["e", "f", "g", "h"])] {
        let other = || Subject::new(&["other.test"]).ca(is_ca);
        let own_name = || Subject::new(&[NAME]).ca(is_ca);
        let (tls, trusted) = own(&host, files[0], &other());
        cases.push(Case::bad("another name", tls, trusted, "tls provider", "wrong name"));
        let (tls, trusted) = own(&host, files[1], &own_name().valid(2019, 2020));
        cases.push(Case::bad("expired", tls, trusted, "tls provider", "expired"));
        let (tls, trusted) = own(&host, files[2], &own_name().valid(2040, 2050));
        cases.push(Case::bad("not yet valid", tls, trusted, "tls network", "not yet valid"));
        // The same subject with another key.
        let (tls, _) = own(&host, files[3], &own_name());
        let (_, trusted) = own(&host, "twin", &own_name());
        cases.push(Case::bad("a twin with another key", tls, trusted, "tls network", "untrusted issuer"));
    }
    let (tls, _) = own(&host, "unknown", &Subject::new(&[NAME]).ca(true));
    cases.push(Case::bad("not in ca_file", tls, String::new(), "tls network", "untrusted issuer"));
    let (tls, _) = own(&host, "ended", &Subject::new(&[NAME]).valid(2019, 2020));
    let (_, trusted) = own(&host, "another", &Subject::authority("another"));
    let both = "certificate expired, and of an untrusted issuer";
    cases.push(Case::bad("expired, and not in ca_file", tls, trusted, "tls network", both));
    let (tls, trusted) = own(&host, "wildcard", &Subject::new(&["*.corp.test"]).ca(true));
    cases.push(
        Case::bad("a wildcard is one label", tls, trusted, "tls provider", "wrong name").at(DEEPER_NAME),
    );
    check(&mut host, &cases);
}

#[test]
fn incomplete_chain_is_reported() {
    let Some(mut host) = Host::new() else { return };
    let root = Issued::self_signed(&Subject::authority("root"));
    let intermediate = root.issue(&Subject::authority("intermediate"));
    let inner = intermediate.issue(&Subject::authority("inner"));
    let leaf = intermediate.issue(&Subject::new(&[NAME]));
    let deep = inner.issue(&Subject::new(&[NAME]));
    let nameless = root.issue(&Subject::new(&[]).common_name(NAME));
    let for_clients = root.issue(&Subject::new(&[NAME]).purposes(vec![ExtendedKeyUsagePurpose::ClientAuth]));
    let server = root.issue(&Subject::new(&["other.test"]).ca(false));
    let by_server = server.issue(&Subject::new(&[NAME]));
    let (at, pem) = (&host, root.pem());
    let bad = |name, tls, verdict, detail| Case::bad(name, tls, pem.clone(), verdict, detail);
    let good = |name, tls| Case::good(name, tls, pem.clone());
    let mut cases = vec![
        good("a whole chain", leaf.served(at, "whole", &[&intermediate])),
        bad("missing intermediate", leaf.served(at, "alone", &[]), "tls", "intermediate"),
        bad("the root in its place", leaf.served(at, "root", &[&root]), "tls", "intermediate"),
        bad("the second of two missing", deep.served(at, "half", &[&inner]), "tls", "intermediate"),
        bad("the first of two missing", deep.served(at, "other", &[&intermediate]), "tls", "intermediate"),
        good("two intermediates in the wrong order", deep.served(at, "order", &[&intermediate, &inner])),
        good("the root sent as well", leaf.served(at, "long", &[&intermediate, &root])),
        good("trusted by its dot", leaf.served(at, "dot", &[&intermediate])).at("api.corp.test."),
        bad("for clients only", for_clients.served(at, "clients", &[]), "tls network", "not for servers"),
        bad("issued by no CA", by_server.served(at, "by-server", &[&server]), "tls network", "CA:FALSE"),
    ];
    // curl accepts a common name if there is no alternative name; browsers and most clients do not.
    cases.push(Case {
        verdict: "tls provider",
        detail: "subjectAltName",
        ..good("CN only", nameless.served(at, "cn", &[]))
    });
    let (tls, trusted) = own(at, "cn-own", &Subject::new(&[]).common_name(NAME).ca(true));
    cases.push(Case {
        verdict: "tls provider",
        detail: "subjectAltName",
        ..Case::good("CN only, self-signed", tls, trusted)
    });
    let strange = Issued::self_signed(&Subject::authority("another"));
    let whole = leaf.served(at, "strange", &[&intermediate]);
    cases.push(Case::bad(
        "a whole chain of another root",
        whole,
        strange.pem(),
        "tls network",
        "untrusted issuer",
    ));
    let trusted = intermediate.pem();
    cases.push(Case::good("the intermediate in ca_file", leaf.served(at, "partial", &[]), trusted));
    check(&mut host, &cases);
}

#[test]
fn required_client_certificate_is_caller_fault() {
    let Some(mut host) = Host::new() else { return };
    let root = Issued::self_signed(&Subject::authority("root"));
    let leaf = root.issue(&Subject::new(&[NAME]));
    let ca = host.write("clients.pem", &root.pem());
    let server = |name: &str, more: Value| {
        let mut tls = leaf.served(&host, name, &[]);
        tls["client_ca"] = json!(ca);
        for (key, value) in more.as_object().unwrap() {
            tls[key] = value.clone();
        }
        tls
    };
    let (verdict, detail) = ("tls caller", "client certificate");
    let bad = |name, tls| Case::bad(name, tls, root.pem(), verdict, detail);
    let good = |name, tls| Case::good(name, tls, root.pem());
    let cases = [
        bad("F13 required, TLS 1.3", server("13", json!({ "version": "1.3" }))),
        bad("F13 required, TLS 1.2", server("12", json!({ "version": "1.2" }))),
        bad("required, TLS 1.3, closed at once", server("13x", json!({ "version": "1.3", "abrupt": true }))),
        bad("required, TLS 1.2, closed at once", server("12x", json!({ "version": "1.2", "abrupt": true }))),
        bad("required, HTTP/2", server("h2", json!({ "alpn": ["h2"] }))),
        good("optional, TLS 1.3", server("o13", json!({ "version": "1.3", "client_optional": true }))),
        good("optional, TLS 1.2", server("o12", json!({ "version": "1.2", "client_optional": true }))),
    ];
    check(&mut host, &cases);
}

#[test]
fn failed_handshake_is_a_tls_failure() {
    let Some(mut host) = Host::new() else { return };
    let root = Issued::self_signed(&Subject::authority("root"));
    let leaf = root.issue(&Subject::new(&[NAME]));
    let mut old = leaf.served(&host, "old", &[]);
    old["version"] = json!("1.1");
    let cases = [
        Case::good(
            "HTTP/2",
            {
                let mut tls = leaf.served(&host, "h2", &[]);
                tls["alpn"] = json!(["h2"]);
                tls
            },
            root.pem(),
        ),
        Case::bad("TLS 1.1 alone", old, root.pem(), "tls network", "protocol_version: it has neither"),
    ];
    check(&mut host, &cases);
}

#[test]
fn alert_that_refuses_the_handshake_is_named() {
    let Some(mut host) = Host::new() else { return };
    let root = Issued::self_signed(&Subject::authority("root"));
    let leaf = root.issue(&Subject::new(&[NAME]));
    let alerts = [
        (40, "refused by the server (handshake_failure: "),
        (49, "refused by the server (access_denied: "),
        (70, "refused by the server (protocol_version: "),
        (80, "refused by the server (internal_error: "),
        (112, "refused by the server (unrecognized_name: it does not know the requested host)"),
        (120, "refused by the server (no_application_protocol: "),
    ];
    let cases = alerts.map(|(number, detail)| {
        let mut tls = leaf.served(&host, &format!("alert{number}"), &[]);
        tls["alert"] = json!(number);
        Case::bad(detail, tls, root.pem(), "tls network", detail)
    });
    check(&mut host, &cases);
}
