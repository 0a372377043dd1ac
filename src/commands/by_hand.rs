//! The command line of a command as a person would give it again, such as behind `systemd-run`.

use std::path::{Path, absolute};

/// `langmart-prober COMMAND` with its configuration, those of the flags that were given, and the names, each word as a
/// shell reads it. The path is absolute, since a transient unit starts in the root directory.
pub(super) fn by_hand(command: &str, config: &Path, flags: &[(bool, &str)], names: &[String]) -> String {
    let config = absolute(config).unwrap_or_else(|_| config.to_owned());
    let config = quoted(&config.display().to_string());
    let given = flags.iter().filter(|(given, _)| *given).map(|(_, flag)| (*flag).to_owned());
    let words: Vec<_> = given.chain(names.iter().map(|name| quoted(name))).collect();
    let separator = if words.is_empty() { "" } else { " " };
    format!("langmart-prober {command} --config {config}{separator}{}", words.join(" "))
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_a_shell_reads_them() {
        let names = ["a-b".to_owned(), "x; y".to_owned()];
        let path = Path::new("/it's here");
        assert_eq!(
            by_hand("once", path, &[(true, "--json"), (false, "--verbose")], &names),
            r"langmart-prober once --config '/it'\''s here' --json a-b 'x; y'"
        );
        assert_eq!(
            by_hand("doctor", Path::new("/etc/a-b_c.toml"), &[], &[]),
            "langmart-prober doctor --config /etc/a-b_c.toml"
        );
    }
}
