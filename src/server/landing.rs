//! The page for people: what this is, where the rest is, and how each probe last fared. Without script, and with
//! everything that is not ours escaped.

use std::fmt::{self, Display, Write};

use crate::{
    metrics::{Metrics, Series},
    outcome::{Reason, Subject, rfc3339},
};

const STYLE: &str = "\
:root{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}\
body{margin:2rem auto;max-width:80rem;padding:0 1rem}\
h1{margin:0;font-size:1.5rem}\
nav a{margin-right:1rem}\
table{border-collapse:collapse;width:100%;font-size:.875rem}\
th,td{padding:.3rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid #8884}\
.ok{color:light-dark(#06702b,#5ad17f)}\
.failed{color:light-dark(#b3261e,#ff8a80);font-weight:600}\
.none{opacity:.7}";

/// The Content-Security-Policy of every response: nothing but the style above, which it knows by its SHA-256.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-7wXy/GoFGUY4co/VPD0KRl4lIBYF+oFBgQ674wdwvr4='; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The whole page.
pub(super) fn page(metrics: &Metrics) -> String {
    let all = metrics.all();
    let failing =
        all.values().filter_map(|series| series.last()).filter(|last| last.reason != Reason::Ok).count();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
        <meta name=\"viewport\" content=\"width=device-width\">\n<title>langmart-prober</title>\n\
        <style>{STYLE}</style>\n</head>\n<body>\n<h1>langmart-prober</h1>\n\
        <p>Version {}. {} probes, {failing} of them failing.</p>\n\
        {}<nav><a href=\"/metrics\">Metrics</a><a href=\"/-/healthy\">Health</a>\
        <a href=\"/-/ready\">Readiness</a></nav>\n\
        <table>\n<thead><tr><th>Probe</th><th>Provider</th><th>Check</th><th>Model</th><th>Last result</th>\
        <th>Fault</th><th>Last run</th><th>Took</th><th>What to do</th></tr></thead>\n<tbody>\n",
        env!("CARGO_PKG_VERSION"),
        all.len(),
        paused(metrics),
    );
    for series in all.values() {
        write_row(&mut page, series).expect("a String takes every write");
    }
    page.push_str("</tbody>\n</table>\n</body>\n</html>\n");
    page
}

/// A paragraph where the budget has stopped probes.
fn paused(metrics: &Metrics) -> String {
    metrics.budget().and_then(|budget| budget.resumes).map_or_else(String::new, |resumes| {
        format!("<p>The day's budget is reached: chat and stream probes go on at {}.</p>\n", rfc3339(resumes))
    })
}

fn write_row(page: &mut String, series: &Series) -> fmt::Result {
    let Subject { probe, provider, check, model } = series.probe().subject();
    write!(page, "<tr><td>{}<td>{}<td>{check}<td>", Escaped(probe), Escaped(provider))?;
    write!(page, "{}", Escaped(model.unwrap_or_default()))?;
    let Some(last) = series.last() else {
        return page.write_str("<td class=\"none\">not run yet<td><td><td><td></tr>\n");
    };
    let class = if last.reason == Reason::Ok { "ok" } else { "failed" };
    write!(page, "<td class=\"{class}\">{}<td>{}", last.reason, last.fault)?;
    write!(page, "<td>{}<td>{:.3} s", rfc3339(last.time), last.duration.as_secs_f64())?;
    writeln!(page, "<td>{}</tr>", Escaped(last.hint))
}

/// Text as it may stand in HTML, in an attribute too.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

    use super::*;
    use crate::{
        metrics::testing::{chat, config, provider},
        outcome::{Api, Fault, Outcome},
    };

    fn base64(bytes: &[u8]) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let group =
                chunk.iter().chain(&[0, 0]).take(3).fold(0, |group, byte| group << 8 | usize::from(*byte));
            for position in 0..4 {
                let letter = ALPHABET[group >> (18 - 6 * position) & 63] as char;
                text.push(if position <= chunk.len() { letter } else { '=' });
            }
        }
        text
    }

    #[test]
    fn the_policy_knows_the_style() {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        let hash = base64(suite.common.hash_provider.hash(STYLE.as_bytes()).as_ref());
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "the style's hash is sha256-{hash}");
    }

    #[test]
    fn results_are_shown_and_everything_is_escaped() {
        let metrics = Metrics::new(SystemTime::UNIX_EPOCH);
        let acme = Arc::new(provider("acme", Api::Openai));
        let probes = vec![chat("p", &acme, "<script>\"'&"), chat("q", &acme, "m"), chat("r", &acme, "m")];
        metrics.configure(&config(probes.clone()));
        metrics.series(&probes[1]).observe(&Outcome {
            hint: "Wait <here> & there",
            duration: Duration::from_millis(1234),
            ..Outcome::new(SystemTime::UNIX_EPOCH, Reason::RateLimited, Fault::Caller)
        });
        metrics.series(&probes[2]).observe(&Outcome::new(SystemTime::UNIX_EPOCH, Reason::Ok, Fault::None));
        let page = page(&metrics);
        let rows = [
            "<tr><td>p<td>acme<td>chat<td>&lt;script&gt;&quot;&#39;&amp;<td class=\"none\">not run yet",
            "<tr><td>q<td>acme<td>chat<td>m<td class=\"failed\">rate_limited<td>caller<td>1970-01-01T00:00:00Z\
            <td>1.234 s<td>Wait &lt;here&gt; &amp; there</tr>",
            "<tr><td>r<td>acme<td>chat<td>m<td class=\"ok\">ok<td>none",
            "3 probes, 1 of them failing",
        ];
        for row in rows {
            assert!(page.contains(row), "{row} in {page}");
        }
        assert!(!page.contains("<script"), "{page}");
    }
}
