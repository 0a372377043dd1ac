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

/// What goes wrong: Groq is limited from the start and, after some calls, LangMart's gateway now and then.
const SCENARIO: &str = r#"
[[rule]]
provider = "groq"
path = "/chat"
fault = "rate_limited"
retry_after = "40s"

[[rule]]
provider = "langmart"
path = "/chat"
calls = { from = 4, to = 6 }
fault = "unavailable"

[[rule]]
provider = "langmart"
path = "/chat"
pace = { extra = "40ms" }

[[rule]]
path = "/chat"
pace = { first_token = "100ms", token = "10ms" }

[[rule]]
path = "/status/anthropic"
calls = { from = 3, to = 8 }
fault = "incident"
variant = "major"
"#;

/// The daemon's configuration; `SIMULATOR`, `SECURE` (by HTTPS) and `LISTEN` stand for the addresses.
const CONFIGURATION: &str = r#"
[server]
listen = "LISTEN"

[defaults]
interval = "5s"

[defaults.generation]
interval = "5s"
timeout = "2s"

[budget]
daily_cost_usd = 25.0
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

/// Runs the command until a signal ends it; the value is the exit status.
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
    let secure = simulator.tls_address().expect("it was told to listen for HTTPS, too");
    let text = CONFIGURATION
        .replace("SIMULATOR", &simulator.address().to_string())
        // Another host than the others', without which the prober cannot tell that it is offline.
        .replace("SECURE", &format!("localhost:{}", secure.port()))
        .replace("LISTEN", &listen.to_string());
    let mut told = Ok(());
    let listening = |address| {
        told = tell(address, out);
    };
    let authority =
        CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).map_err(io::Error::other)?;
    let ended = daemon::run(&Source::BuiltIn(text, key, vec![authority]), listening);
    told?;
    match ended {
        Ok(()) => Ok(EXIT_OK),
        Err(fatal) => {
            fatal.tell(err);
            writeln!(err, "the demo has no file: its server.listen is what --listen says")?;
            Ok(EXIT_FAILED)
        }
    }
}

fn tell(address: SocketAddr, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "Probing a simulated LangMart, Anthropic, Groq and OpenAI, every 5 s. Look at:\n\
         \x20 http://{address}/         the probes, what they found, what to do\n\
         \x20 http://{address}/metrics  what Prometheus scrapes\n\
         Within a minute: langmart-auth succeeds; groq-gpt-oss-20b is rate limited and waited for;\n\
         anthropic-auth fails with a bad key; langmart-gpt-4o-mini meets a 503 and recovers;\n\
         the comparison gpt-4o-mini tells what the gateway adds, and the 503 from a fault of the provider's;\n\
         anthropic's status page announces an incident and its end.\n\
         Ctrl-C ends it."
    )?;
    out.flush()
}

/// The demo's own environment.
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
    use crate::config::{self, Keys, Surroundings};

    #[test]
    fn an_address_for_everyone_is_refused_by_the_name_of_its_option() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = demo("0.0.0.0:0".parse().unwrap(), &mut out, &mut err).unwrap();
        assert_eq!((status, out.len()), (EXIT_USAGE, 0));
        assert!(err.starts_with(b"--listen 0.0.0.0:0 is not a loopback address"));
    }

    #[test]
    fn nothing_in_its_configuration_is_doubtful() {
        let text = CONFIGURATION.replace("SIMULATOR", "127.0.0.1:1").replace("SECURE", "localhost:2");
        let surroundings = Surroundings { variable: &key, system_roots: &|| vec![vec![0].into()] };
        let text = text.replace("LISTEN", "127.0.0.1:0");
        let loaded = config::parse(&text, "demo", Keys::Required, &surroundings).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}
