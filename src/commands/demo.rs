//! `demo`: the simulator and the daemon in one process, on a built-in configuration.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::SocketAddr,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE};
use crate::{
    daemon::{self, Source},
    simulator::{Options, Scenario, Simulator},
};

/// The simulated faults: Groq is rate limited from the start, and LangMart's gateway fails for some
/// calls to a model. It answers for another with a third for a while, and a proxy in front of it
/// buffers long streams. Faults are by model, because the order of the probes depends on the time
/// of the start.
const SCENARIO: &str = r#"
[[rule]]
provider = "groq"
path = "/chat"
fault = "rate_limited"
retry_after = "40s"

# Of a chat and a stream probe in turns.
[[rule]]
provider = "langmart"
model = "openai/gpt-4o-mini"
calls = { from = 3, to = 6 }
fault = "unavailable"

[[rule]]
provider = "langmart"
path = "/chat"
pace = { extra = "40ms" }

[[rule]]
provider = "langmart"
model = "groq/llama-3.1-8b-instant"
calls = { from = 3, to = 6 }
pace = { answered_model = "llama-3.2-1b-preview" }

[[rule]]
provider = "langmart"
model = "google/gemini-2.5-flash-lite"
pace = { buffer = 0, first_token = "100ms", token = "3ms", usage = true }

[[rule]]
path = "/chat"
pace = { first_token = "100ms", token = "10ms" }

[[rule]]
path = "/status/anthropic"
calls = { from = 3, to = 8 }
fault = "incident"
variant = "major"
"#;

/// The daemon's configuration. `SIMULATOR` (HTTP), `SECURE` (HTTPS) and `LISTEN` are replaced by
/// addresses.
const CONFIGURATION: &str = r#"
[server]
listen = "LISTEN"

[defaults]
interval = "5s"

[defaults.generation]
interval = "5s"
timeout = "2s"

[budget]
daily_cost_usd = 30.0
daily_tokens = 50000000

[provider.langmart]
base_url = "http://SIMULATOR/langmart"
api_key = { env = "DEMO_KEY" }
checks = ["health", "auth", "models", "balance"]

[provider.openai]
base_url = "https://SECURE/openai/v1"
api_key = { env = "DEMO_KEY" }
checks = ["network", "auth"]

[provider.anthropic]
base_url = "http://SIMULATOR/anthropic"
api_key = { env = "DEMO_INVALID_KEY" }
checks = ["auth", "status"]
status_url = "http://SIMULATOR/status/anthropic/api/v2/summary.json"
components = ["Claude API (api.anthropic.com)"]

[provider.groq]
base_url = "http://SIMULATOR/groq/openai/v1"
api_key = { env = "DEMO_KEY" }
checks = ["auth"]

[[probe]]
name = "langmart-gpt-4o-mini"
provider = "langmart"
check = "chat"
model = "openai/gpt-4o-mini"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "groq-gpt-oss-20b"
recheck = { after = "500ms", step = "500ms", times = 2 }
provider = "groq"
check = "chat"
model = "openai/gpt-oss-20b"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "openai-gpt-4o-mini"
provider = "openai"
check = "chat"
model = "gpt-4o-mini"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "langmart-stream"
slow_after = "1s"
provider = "langmart"
check = "stream"
model = "openai/gpt-4o-mini"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "openai-stream"
provider = "openai"
check = "stream"
model = "gpt-4o-mini"
price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.60 }

[[probe]]
name = "langmart-llama"
provider = "langmart"
check = "chat"
model = "groq/llama-3.1-8b-instant"
expect = { model = "llama-3.1-8b*" }
price = { input_usd_per_mtok = 0.05, output_usd_per_mtok = 0.08 }

[[probe]]
name = "langmart-speed"
provider = "langmart"
check = "stream"
model = "google/gemini-2.5-flash-lite"
workload = "speed"
interval = "10s"
price = { input_usd_per_mtok = 0.10, output_usd_per_mtok = 0.40 }

[[comparison]]
name = "gpt-4o-mini"
gateway = "langmart-gpt-4o-mini"
direct = "openai-gpt-4o-mini"

[[comparison]]
name = "gpt-4o-mini-stream"
gateway = "langmart-stream"
direct = "openai-stream"

[[pool]]
name = "chat"
members = [{ probe = "langmart-gpt-4o-mini", weight = 2 }, { probe = "groq-gpt-oss-20b" }]
"#;

/// Runs the command until a signal stops it. Returns the exit status.
pub fn demo(listen: SocketAddr, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    if !listen.ip().to_canonical().is_loopback() {
        writeln!(
            err,
            "--listen {listen} is not a loopback address, and the demo has no users; give one such as 127.0.0.1:0"
        )?;
        return Ok(EXIT_USAGE);
    }
    let scenario = Scenario::parse(SCENARIO).map_err(io::Error::other)?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let simulator = Simulator::start(Options { listen: loopback, tls_listen: Some(loopback), scenario })?;
    let secure = simulator.tls_address().expect("it listens for HTTPS, too");
    let text = CONFIGURATION
        .replace("SIMULATOR", &simulator.address().to_string())
        // Another host name than the others': with a single host, offline cannot be detected.
        .replace("SECURE", &format!("localhost:{}", secure.port()))
        .replace("LISTEN", &listen.to_string());
    let mut printed = Ok(());
    let listening = |address| {
        printed = print_addresses(address, out);
    };
    let authority =
        CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).map_err(io::Error::other)?;
    let ended = daemon::run(&Source::BuiltIn(text, key, vec![authority]), listening);
    printed?;
    match ended {
        Ok(()) => Ok(EXIT_OK),
        Err(fatal) => {
            fatal.print(err);
            writeln!(err, "note: the demo has no configuration file; its server.listen is set by --listen")?;
            Ok(EXIT_FAILED)
        }
    }
}

fn print_addresses(address: SocketAddr, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "Probing a simulated LangMart, Anthropic, Groq and OpenAI, every 5 s. See:\n\
         \x20 http://{address}/         status page: probes, results, remedies\n\
         \x20 http://{address}/metrics  metrics for Prometheus\n\
         Within a minute: langmart-auth succeeds; groq-gpt-oss-20b is rate limited and backs off;\n\
         anthropic-auth fails with a bad key; langmart-gpt-4o-mini fails with a 503 and recovers;\n\
         the comparison gpt-4o-mini shows the overhead of the gateway, and attributes the 503 to it;\n\
         anthropic's status page reports an incident, then its resolution;\n\
         another model answers langmart-llama for a while; langmart-speed reports a buffered stream.\n\
         Press Ctrl-C to stop."
    )?;
    out.flush()
}

/// Returns the value of an environment variable of the demo.
fn key(name: &str) -> Option<OsString> {
    match name {
        "DEMO_KEY" => Some("sk-demo".into()),
        "DEMO_INVALID_KEY" => Some("sk-demo-invalid".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Keys};

    #[test]
    fn address_beyond_loopback_is_refused() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = demo("0.0.0.0:0".parse().unwrap(), &mut out, &mut err).unwrap();
        assert_eq!((status, out.len()), (EXIT_USAGE, 0));
        assert!(err.starts_with(b"--listen 0.0.0.0:0 is not a loopback address"));
    }

    #[test]
    fn built_in_configuration_has_no_warnings() {
        let text = CONFIGURATION.replace("SIMULATOR", "127.0.0.1:1").replace("SECURE", "localhost:2");
        let environment = Environment { variable: &key, system_roots: &|| vec![vec![0].into()] };
        let text = text.replace("LISTEN", "127.0.0.1:0");
        let loaded = config::parse(&text, "demo", Keys::Required, &environment).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}
