//! The command line that repeats a command with the keys of the service.

use std::path::{Path, absolute};

use rustix::process::geteuid;

use crate::config::{Environment, KeySource, Unit, quoted, systemd_run};

/// Returns the hint that repeats a command with the keys of the service. `unread` are the sources
/// that this process cannot read. Returns an empty text if the service has none of them, or if this
/// process is the service.
pub(super) fn service_hint(unread: &[KeySource], environment: &Environment<'_>, command: &str) -> String {
    let has_keys = environment.is_service() || environment.credentials_directory().is_some();
    if unread.is_empty() || has_keys {
        return String::new();
    }
    let unit = Unit::read(Path::new("/"));
    let line = systemd_run(&unit, unread, geteuid().is_root(), command);
    line.map_or_else(String::new, |line| format!("To use the keys of the service, as root:\n  {line}\n"))
}

/// Returns `langmart-prober COMMAND` with the configuration, the flags that were set and the names,
/// quoted for a shell. The path is absolute because a transient unit starts in the root directory.
pub(super) fn command_line(command: &str, config: &Path, flags: &[(bool, &str)], names: &[String]) -> String {
    let config = absolute(config).unwrap_or_else(|_| config.to_owned());
    let config = quoted(&config.display().to_string());
    let given = flags.iter().filter(|(given, _)| *given).map(|(_, flag)| (*flag).to_owned());
    let words: Vec<_> = given.chain(names.iter().map(|name| quoted(name))).collect();
    let separator = if words.is_empty() { "" } else { " " };
    format!("langmart-prober {command} --config {config}{separator}{}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let names = ["a-b".to_owned(), "x; y".to_owned()];
        let path = Path::new("/it's here");
        assert_eq!(
            command_line("once", path, &[(true, "--json"), (false, "--verbose")], &names),
            r"langmart-prober once --config '/it'\''s here' --json a-b 'x; y'"
        );
        assert_eq!(
            command_line("doctor", Path::new("/etc/a-b_c.toml"), &[], &[]),
            "langmart-prober doctor --config /etc/a-b_c.toml"
        );
    }
}
