//! Tests that the manual page and the completions match the command line.

use std::{path::Path, process::Command};

use clap::CommandFactory;
use clap_complete::Shell;
use langmart_prober::cli::Cli;

use crate::harness::{
    daemon::{PROBER, Place},
    parts,
};

/// Returns the output of the program.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_langmart-prober")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn page_has_every_command_and_option() {
    let page = printed(&["man"]);
    for subcommand in Cli::command().get_subcommands() {
        assert!(page.contains(&format!(".SS {}\n", subcommand.get_name())), "{page}");
        for option in subcommand.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&option.replace('-', r"\-")), "{option}: {page}");
        }
    }
    for section in ["KEYS", "FILES", "SIGNALS", "EXIT STATUS", "ENVIRONMENT", "SEE ALSO"] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section}: {page}");
    }
}

#[test]
fn page_shows_keys_with_quotes() {
    let page = printed(&["man"]);
    for key in [r"{ credential = \(dqlangmart\(dq }", r"{ env = \(dqLANGMART_API_KEY\(dq }"] {
        assert!(page.contains(key), "{key}: {page}");
    }
    // A plain quote would be consumed by a troff macro.
    let consumed = |line: &&str| line.starts_with(".B ") && line.contains('"');
    assert_eq!(page.lines().find(consumed), None);
}

#[test]
fn configuration_has_its_own_page() {
    assert!(printed(&["man", "langmart-prober.toml"]).contains("max_concurrent_per_provider"));
}

#[test]
fn every_shell_has_completions() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = printed(&["completions", &shell.to_string()]);
        assert!(script.contains("check-config") && script.contains("no-secrets"), "{shell}: {script}");
    }
}

/// Returns what bash completes for a command line whose last word is unfinished.
fn completed(place: &Place, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let prober = Path::new(PROBER).parent().unwrap().display();
    let script = format!(
        "PATH={prober}:$PATH\nsource <(langmart-prober completions bash)\nCOMP_WORDS=({})\nCOMP_CWORD={}\n\
         _langmart-prober_with_names langmart-prober '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let script = script.replace("CONFIG", &place.path("config.toml").display().to_string());
    let output = Command::new("bash").args(["-c", &script]).env("HOME", place.path("")).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

const PROVIDERS: &str =
    "[provider.langmart]\nchecks = [\"health\", \"network\"]\n[provider.groq]\nchecks = [\"status\"]\n";

#[test]
fn other_shells_read_the_configuration_of_the_option() {
    let place = Place::new(PROVIDERS);
    let zsh = "compdef() { }\nsource <(langmart-prober completions zsh)\ncompadd() { print -l -- ${(P)2} }\n\
               words=(langmart-prober once WORDS l)\n_langmart-prober_probes";
    let fish = "langmart-prober completions fish | source\n\
                complete -C 'langmart-prober once WORDS groq' | string split -f 1 \\t";
    for (shell, script) in [("zsh", zsh), ("fish", fish)] {
        if !parts::has(&[shell], false) {
            continue;
        }
        for option in ["--config CONFIG", "--config=CONFIG", "--config=~/config.toml"] {
            let quoted = option.replace('~', if shell == "zsh" { "\\~" } else { "~" });
            let script = script.replace("WORDS", &quoted);
            let script = script.replace("CONFIG", place.path("config.toml").to_str().unwrap());
            let path = format!(
                "{}:{}",
                Path::new(PROBER).parent().unwrap().display(),
                std::env::var("PATH").unwrap()
            );
            let mut command = Command::new(shell);
            command.args(["-c", &script]).env("PATH", path).env("HOME", place.path(""));
            let output = command.output().unwrap();
            let names = String::from_utf8_lossy(&output.stdout);
            assert!(names.lines().any(|name| name == "groq-status"), "{shell} {option}: {output:?}");
        }
    }
}

#[test]
fn bash_completes_names_of_the_configuration() {
    let place = Place::new(PROVIDERS);
    for (line, expected) in [
        ("langmart-prober once --config CONFIG l", &["langmart-health", "langmart-network"][..]),
        ("langmart-prober once --config CONFIG --json groq", &["groq-status"]),
        ("langmart-prober doctor --config CONFIG ", &["groq", "langmart"]),
        ("langmart-prober report --config CONFIG --probe g", &["groq-status"]),
        ("langmart-prober report --config CONFIG --provider g", &["groq"]),
        ("langmart-prober once --config = CONFIG l", &["langmart-health", "langmart-network"]),
        ("langmart-prober once --config=CONFIG groq", &["groq-status"]),
        ("langmart-prober once --config = ~/config.toml groq", &["groq-status"]),
        ("langmart-prober report --config CONFIG --probe = g", &["groq-status"]),
        ("langmart-prober once --ver", &["--verbose"]),
        ("langmart-prober explain stream_t", &["stream_truncated"]),
        ("langmart-prober init op", &["openai", "openrouter"]),
    ] {
        assert_eq!(completed(&place, line), expected, "{line}");
    }
}
