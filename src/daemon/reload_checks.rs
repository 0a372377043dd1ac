//! The checks of a reload against the running daemon.
//!
//! The listener keeps its address until a restart, so the new `[server]` is checked against that
//! address, not against the configured one. docs/operations/reload.md lists every key.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use tracing::{info, warn};

use crate::config::{Config, Key, KeySource, Problem, Server};

/// The running daemon.
pub(super) struct Running<'a> {
    /// The applied configuration.
    pub(super) config: &'a Config,
    /// The address that was configured at the start.
    pub(super) listen: SocketAddr,
    /// The bound address.
    pub(super) bound: SocketAddr,
    /// The state directory, if any.
    pub(super) state: Option<&'a Path>,
}

impl Running<'_> {
    /// Rejects a configuration that must not take effect without a restart. The error has one line
    /// per reason.
    pub(super) fn check(&self, new: &Config) -> Result<(), String> {
        let mut reasons = self.exposure(&new.server);
        if new.probes.is_empty() && !self.config.probes.is_empty() {
            reasons.push(
                "no probe is configured: a reload does not remove every probe, because an empty file is usually \
                 incomplete; restart to run without probes"
                    .to_owned(),
            );
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons.join("\n")) }
    }

    /// Returns how the new configuration would expose a listener that other machines can reach.
    fn exposure(&self, new: &Server) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.bound.ip().to_canonical().is_loopback() || new.allow_unauthenticated {
            return reasons;
        }
        let mut refuse = |key: &str, loss: &str| {
            reasons.push(format!(
                "server.{key} is missing, and the listener stays on {} until a restart, which is not a loopback \
                 address: {loss}; keep {key}, set server.allow_unauthenticated = true, or restart",
                self.bound
            ));
        };
        if new.users.is_empty() {
            refuse("basic_auth", "any client could read the state and reload");
        }
        if self.loses_tls(new) {
            refuse("tls", "passwords could be read on the network path");
        }
        reasons
    }

    /// Returns whether the listener uses TLS and the new configuration does not.
    pub(super) fn loses_tls(&self, new: &Server) -> bool {
        self.config.server.tls.is_some() && new.tls.is_none()
    }

    /// Logs the warnings of the new configuration, and its changes that require a restart.
    pub(super) fn log(&self, warnings: &[Problem], new: &Config) {
        for warning in warnings {
            warn!(%warning, "Configuration warning");
        }
        for change in self.needs_restart(new) {
            warn!("{change}");
        }
        let keys = restart_only_keys(new);
        if !keys.is_empty() {
            let keys = Vec::from_iter(keys).join(", ");
            info!(%keys, "Keys from the environment and from credentials change only on restart");
        }
    }

    /// Returns a warning for each change that requires a restart.
    fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        [
            (
                new.server.listen != self.listen,
                "Change of server.listen requires a restart; the address is unchanged",
            ),
            (self.loses_tls(&new.server), "Removal of server.tls requires a restart; TLS remains enabled"),
            (
                new.state_directory.as_deref() != self.state,
                "Change of state.directory requires a restart; the directory is unchanged",
            ),
        ]
        .into_iter()
        .filter_map(|(is_changed, warning)| is_changed.then_some(warning))
        .collect()
    }
}

/// Returns the names of environment variables and credentials with keys. A process gets both only
/// when it starts.
fn restart_only_keys(config: &Config) -> BTreeSet<String> {
    let providers = config.providers.values();
    let keys = providers.flat_map(|provider| [&provider.key, &provider.proxy_auth].into_iter().flatten());
    keys.filter_map(|Key { source, .. }| match source {
        KeySource::Env(_) | KeySource::Credential(_) => Some(source.to_string()),
        KeySource::File(_) => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Keys, parse};

    const HASH: &str = "$2y$10$ilw2DDaAotOFnLjBDKD31uyjQ2JYK4CUEme.wS2r6PytKIWfdB27S";
    const PROBE: &str = "[provider.langmart]\nchecks = [\"health\"]\n";

    fn config(text: &str) -> Config {
        let environment = Environment { variable: &|_| None, system_roots: &Vec::new };
        parse(text, "config.toml", Keys::Skipped, &environment).unwrap().config
    }

    /// Returns a configuration with these lines of `[server]` and a probe.
    fn server(listen: &str, users: bool, tls: Option<&Path>, rest: &str) -> Config {
        let users = if users { format!("basic_auth = {{ u = \"{HASH}\" }}\n") } else { String::new() };
        let tls = tls.map_or_else(String::new, |path| {
            format!("tls = {{ cert_file = \"{}\", key_file = \"/key\" }}\n", path.display())
        });
        config(&format!("[server]\nlisten = \"{listen}\"\n{users}{tls}{rest}\n{PROBE}"))
    }

    /// Returns the reasons for which a reload is rejected.
    fn refused(current: &Config, bound: &str, new: &Config) -> Vec<&'static str> {
        let listen = current.server.listen;
        let running = Running { config: current, listen, bound: bound.parse().unwrap(), state: None };
        let Err(reasons) = running.check(new) else { return Vec::new() };
        let known = ["server.basic_auth is missing", "server.tls is missing", "no probe is configured"];
        let found: Vec<_> = known.into_iter().filter(|known| reasons.contains(*known)).collect();
        assert_eq!(found.len(), reasons.lines().count(), "{reasons}");
        found
    }

    #[test]
    fn listener_is_checked_by_its_bound_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert.pem");
        let made = rcgen::generate_simple_self_signed(["prober.example".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        let cert = Some(&*path);
        let allow = "allow_unauthenticated = true";
        let [users, tls] = ["server.basic_auth is missing", "server.tls is missing"];
        let current = server("10.9.9.9:10429", true, cert, "");
        for (new, expected) in [
            (server("10.9.9.9:10429", true, cert, ""), vec![]),
            (server("127.0.0.1:10429", true, cert, ""), vec![]),
            (server("127.0.0.1:10429", false, None, ""), vec![users, tls]),
            (server("127.0.0.1:10429", false, cert, ""), vec![users]),
            (server("[::1]:10429", true, None, ""), vec![tls]),
            (server("10.9.9.9:10429", true, None, ""), vec![tls]),
            (server("127.0.0.1:10429", false, None, allow), vec![]),
        ] {
            for bound in
                ["10.9.9.9:10429", "0.0.0.0:10429", "[::]:10429", "[::ffff:10.9.9.9]:1", "[fe80::1]:1"]
            {
                assert_eq!(refused(&current, bound, &new), expected, "{bound}: {:?}", new.server);
            }
            for bound in ["127.0.0.1:10429", "127.9.9.9:1", "[::1]:10429", "[::ffff:127.0.0.1]:1"] {
                assert_eq!(refused(&current, bound, &new), [""; 0], "{bound}: {:?}", new.server);
            }
        }
        // An accepted reload changes the configuration, but not the bound address.
        let between = server("127.0.0.1:10429", true, cert, "");
        let opened = server("127.0.0.1:10429", false, cert, "");
        assert_eq!(refused(&between, "10.9.9.9:10429", &opened), [users]);
        let unprotected = server("10.9.9.9:10429", false, None, allow);
        let forgotten = server("127.0.0.1:10429", false, None, "");
        assert_eq!(refused(&unprotected, "10.9.9.9:10429", &forgotten), [users]);
    }

    #[test]
    fn reload_without_probes_is_rejected() {
        let some = config(PROBE);
        for text in ["", "# nothing\n\n", "[provider.langmart]\n", "[schedule]\nmax_concurrent = 1\n"] {
            let none = config(text);
            assert_eq!(refused(&some, "127.0.0.1:1", &none), ["no probe is configured"], "{text:?}");
            assert_eq!(refused(&none, "127.0.0.1:1", &none), [""; 0], "{text:?}");
            assert_eq!(refused(&none, "127.0.0.1:1", &some), [""; 0], "{text:?}");
        }
        let other = config("[provider.groq]\nchecks = [\"network\"]\n");
        assert_eq!(refused(&some, "127.0.0.1:1", &other), [""; 0]);
        // With [shard], all remaining probes may belong to another daemon.
        let shard = |total| config(&format!("{PROBE}[shard]\nindex = 0\ntotal = {total}\n")).probes.len();
        let total = (2..100).find(|total| shard(*total) == 0).unwrap();
        let elsewhere = config(&format!("{PROBE}[shard]\nindex = 0\ntotal = {total}\n"));
        assert_eq!(refused(&some, "127.0.0.1:1", &elsewhere), ["no probe is configured"]);
    }

    #[test]
    fn changes_that_require_a_restart_are_listed() {
        let current = config(PROBE);
        let running = Running {
            config: &current,
            listen: current.server.listen,
            bound: current.server.listen,
            state: None,
        };
        assert_eq!(running.needs_restart(&config(PROBE)), [""; 0]);
        let text = format!("[server]\nlisten = \"[::1]:1\"\n[state]\ndirectory = \"/s\"\n{PROBE}");
        let warnings = running.needs_restart(&config(&text));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("server.listen") && warnings[1].contains("state.directory"));
    }

    #[test]
    fn keys_of_environment_and_credentials_are_listed() {
        let text = "[provider.langmart]\napi_key = { env = \"K\" }\n[provider.groq]\napi_key = { file = \"/f\" }\n\
                    [provider.openai]\napi_key = { credential = \"c\" }\nproxy = \"http://p.example\"\n\
                    proxy_auth = { env = \"P\" }\n";
        let named = restart_only_keys(&config(text));
        assert_eq!(
            named.iter().map(String::as_str).collect::<Vec<_>>(),
            ["credential c", "environment variable K", "environment variable P"]
        );
        assert!(restart_only_keys(&config(PROBE)).is_empty());
    }
}
