//! `check-config`: the loader of `run`, then the probes that it would schedule and what they would spend.

use std::{io::Write, iter, path::Path, time::Duration};

use super::{EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, table as columns};
use crate::config::{
    BYTES_PER_TOKEN, Comparison, Config, Keys, Loaded, Pool, PoolMember, Probe, Stream, Surroundings, Task,
    duration, load, systemd_run,
};

/// The columns of the table: four of words, the others of figures.
const COLUMNS: [&str; 9] = [
    "PROBE",
    "CHECK",
    "PROVIDER",
    "MODEL",
    "INTERVAL",
    "TIMEOUT",
    "REQUESTS/DAY",
    "INPUT TOKENS/DAY",
    "OUTPUT TOKENS/DAY",
];

/// Loads the file at `path` and prints its problems and warnings to `err`, its probes to `out`. The exit status.
pub fn check_config(
    path: &Path,
    no_secrets: bool,
    surroundings: &Surroundings<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    let keys = if no_secrets { Keys::Skipped } else { Keys::Reported };
    let (status, results, messages) = match load(path, keys, surroundings) {
        Ok(loaded) => (EXIT_OK, table(&loaded.config), remarks(&loaded, path, no_secrets, surroundings)),
        Err(problems) => (EXIT_CONFIGURATION, String::new(), format!("{problems}\n")),
    };
    // Where standard error is closed there is nobody left to tell.
    let _ = err.write_all(messages.as_bytes());
    let written = out.write_all(results.as_bytes()).and_then(|()| out.flush());
    if written.is_err() { EXIT_FAILED } else { status }
}

/// The warnings, and how to have the credentials that only the unit has.
fn remarks(loaded: &Loaded, path: &Path, no_secrets: bool, surroundings: &Surroundings<'_>) -> String {
    let mut lines: Vec<_> = loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    if !no_secrets && !loaded.credentials.is_empty() && surroundings.credentials_directory().is_none() {
        // The transient unit starts in the root directory.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let command =
            format!("langmart-prober check-config --config {}", quoted(&absolute.display().to_string()));
        let line = systemd_run(loaded.credentials.iter().map(String::as_str), &command);
        lines.push(format!(
            "To check with the credentials, as root and with the paths of the unit's LoadCredential=:\n  {line}\n"
        ));
    }
    lines.concat()
}

/// A word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// What a probe would send in a day.
#[derive(Clone, Copy, Default)]
struct Day {
    requests: f64,
    input_tokens: f64,
    output_tokens: f64,
}

impl Day {
    fn of(probe: &Probe) -> Self {
        if matches!(probe.task, Task::Network) {
            return Self::default(); // it sends no request
        }
        let requests = Duration::from_secs(86_400).as_secs_f64() / probe.interval.as_secs_f64();
        let (input, output) = match &probe.task {
            Task::Chat(chat) | Task::Stream(Stream { chat, .. }) => {
                (chat.estimated_input_tokens(), chat.max_tokens)
            }
            Task::Network
            | Task::Health
            | Task::Auth
            | Task::Models
            | Task::Status(_)
            | Task::Balance
            | Task::Http(_) => (0, 0),
        };
        Self { requests, input_tokens: input as f64 * requests, output_tokens: f64::from(output) * requests }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            input_tokens: self.input_tokens + other.input_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
        }
    }

    fn cells(self) -> [String; 3] {
        [self.requests, self.input_tokens, self.output_tokens].map(|number| {
            // A weekly probe is not nothing.
            if number > 0.0 && number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") }
        })
    }
}

/// The probes, aligned, with their totals and how the numbers came about.
fn table(config: &Config) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    let mut total = Day::default();
    for probe in &config.probes {
        let day = Day::of(probe);
        total = total.plus(day);
        rows.push(row(probe, day));
    }
    let [requests, input, output] = total.cells();
    let empty = String::new;
    rows.push(vec!["total".to_owned(), empty(), empty(), empty(), empty(), empty(), requests, input, output]);

    let mut text = columns::render(&rows, 4);
    if config.probes.iter().any(|probe| probe.check().generates()) {
        let note = format!(
            "\nInput tokens are estimated: a token for each {BYTES_PER_TOKEN} bytes of the prompt and some \
             for its frame, times the runs.\nOutput tokens are the most there can be: max_tokens times the runs.\n"
        );
        text.push_str(&note);
    }
    text + &comparisons(config) + &pools(config)
}

/// The comparisons, aligned, behind an empty line; nothing where there are none.
fn comparisons(config: &Config) -> String {
    let rows = config.comparisons.iter().map(|comparison| {
        let Comparison { name, gateway, direct } = &**comparison;
        let interval = config.probes.iter().find(|probe| probe.name == *gateway).map(|probe| probe.interval);
        let interval = interval.map(duration::format).unwrap_or_default();
        vec![name.clone(), gateway.clone(), direct.clone(), interval]
    });
    group(["COMPARISON", "GATEWAY", "DIRECT", "INTERVAL"], 3, rows)
}

/// The members of the pools with their shares, aligned, behind an empty line; nothing where there are no pools.
fn pools(config: &Config) -> String {
    let rows = config.pools.iter().flat_map(|Pool { name, members }| {
        let total: u32 = members.iter().map(|member| member.weight).sum();
        members.iter().map(move |PoolMember { probe, weight }| {
            let share = f64::from(*weight) / f64::from(total);
            vec![name.clone(), probe.clone(), weight.to_string(), format!("{:.0} %", share * 100.0)]
        })
    });
    group(["POOL", "MEMBER", "WEIGHT", "SHARE"], 2, rows)
}

fn group(head: [&str; 4], words: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect();
    if rows.len() > 1 { format!("\n{}", columns::render(&rows, words)) } else { String::new() }
}

fn row(probe: &Probe, day: Day) -> Vec<String> {
    let [requests, input, output] = day.cells();
    let provider = &probe.provider;
    vec![
        probe.name.clone(),
        probe.check().to_string(),
        format!("{} ({}, {})", provider.name, provider.api, probe.host()),
        probe.model.clone().unwrap_or_else(|| "-".to_owned()),
        duration::format(probe.interval),
        duration::format(probe.timeout),
        requests,
        input,
        output,
    ]
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const FILE: &str = r#"
        [provider.langmart]
        api_key = { credential = "langmart" }
        checks = ["health"]
        [provider.openai]
        api_key = { env = "OPENAI_API_KEY" }
        [[probe]]
        name = "chat"
        provider = "openai"
        check = "chat"
        model = "gpt-4o-mini"
        prompt = "12345678"
        interval = "1h"
    "#;

    fn run(
        text: &str,
        no_secrets: bool,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> (u8, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let surroundings = Surroundings { variable, system_roots: &|| vec![vec![0].into()] };
        let status = check_config(&path, no_secrets, &surroundings, &mut out, &mut err);
        let text =
            |bytes| String::from_utf8(bytes).unwrap().replace(&path.display().to_string(), "config.toml");
        (status, text(out), text(err))
    }

    #[test]
    fn the_table_says_what_a_day_would_take() {
        let (status, out, _) = run(FILE, true, &|_| None);
        assert_eq!(status, EXIT_OK);
        let rows: Vec<Vec<&str>> =
            out.lines().take(4).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[1],
            [
                "langmart-health",
                "health",
                "langmart",
                "(langmart,",
                "api.langmart.ai)",
                "-",
                "1m",
                "30s",
                "1440",
                "0",
                "0"
            ]
        );
        assert_eq!(
            rows[2],
            [
                "chat",
                "chat",
                "openai",
                "(openai,",
                "api.openai.com)",
                "gpt-4o-mini",
                "1h",
                "1m30s",
                "24",
                "240",
                "768"
            ]
        );
        assert_eq!(rows[3], ["total", "1464", "240", "768"]);
    }

    #[test]
    fn a_network_check_sends_no_request() {
        let (status, out, _) = run("[provider.langmart]\nchecks = [\"network\"]", false, &|_| None);
        assert_eq!(status, EXIT_OK);
        let row = out.lines().nth(1).unwrap();
        assert!(row.starts_with("langmart-network  network"), "{out}");
        assert_eq!(row.split_whitespace().rev().take(3).collect::<Vec<_>>(), ["0", "0", "0"], "{out}");
    }

    #[test]
    fn columns_are_aligned() {
        let (_, out, _) = run(FILE, true, &|_| None);
        let lines: Vec<&str> = out.lines().take(4).collect();
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{out}");
        let check = lines[0].find("CHECK").unwrap();
        assert_eq!(&lines[1][check..check + 6], "health");
    }

    #[test]
    fn a_key_that_this_shell_cannot_reach_is_a_warning() {
        let (status, _, err) = run(FILE, false, &|_| None);
        assert_eq!(status, EXIT_OK);
        assert_eq!(
            err,
            "warning: config.toml:3: provider.langmart.api_key: credential langmart exists only inside the systemd \
             unit: CREDENTIALS_DIRECTORY is not set\n\
             warning: config.toml:6: provider.openai.api_key: environment variable OPENAI_API_KEY is not set; export it, or keep it in a file\n\
             To check with the credentials, as root and with the paths of the unit's LoadCredential=:\n  \
             systemd-run --pipe --wait --collect --quiet --property=LoadCredential=langmart:/etc/credstore/langmart \
             langmart-prober check-config --config config.toml\n"
        );
    }

    #[test]
    fn without_secrets_none_is_missed() {
        let (status, _, err) = run(FILE, true, &|_| None);
        assert_eq!((status, err.as_str()), (EXIT_OK, ""));
    }

    #[test]
    fn comparisons_and_pools_follow_the_probes() {
        let text = r#"
            [defaults.generation]
            timeout = "60s"
            [provider.langmart]
            api_key = { env = "KEY" }
            [provider.openai]
            api_key = { env = "OTHER" }
            [[probe]]
            name = "langmart-gpt"
            provider = "langmart"
            check = "chat"
            model = "openai/gpt-4o-mini"
            prompt_words = 4000
            [[probe]]
            name = "openai-gpt"
            provider = "openai"
            check = "chat"
            model = "gpt-4o-mini"
            prompt_words = 4000
            [[comparison]]
            name = "gpt"
            gateway = "langmart-gpt"
            direct = "openai-gpt"
            [[pool]]
            name = "chat"
            members = [{ probe = "openai-gpt", weight = 2 }, { probe = "langmart-gpt" }]
        "#;
        let (status, out, err) = run(text, true, &|_| None);
        assert_eq!((status, err.as_str()), (EXIT_OK, ""));
        let expected = "\n\
            COMPARISON  GATEWAY       DIRECT      INTERVAL\n\
            gpt         langmart-gpt  openai-gpt        5m\n\
            \n\
            POOL  MEMBER        WEIGHT  SHARE\n\
            chat  openai-gpt         2   67 %\n\
            chat  langmart-gpt       1   33 %\n";
        assert!(out.ends_with(expected), "{out}");
        // 288 runs a day of some 5,200 tokens.
        let input: u64 = out.lines().nth(1).unwrap().split_whitespace().nth_back(1).unwrap().parse().unwrap();
        assert!((1_400_000..1_700_000).contains(&input), "{out}");
    }

    #[test]
    fn a_bad_file_has_no_table() {
        let (status, out, err) = run("[log]\nlevl = 1\n", false, &|_| None);
        assert_eq!((status, out.as_str()), (EXIT_CONFIGURATION, ""));
        assert!(err.starts_with("config.toml:2: log.levl: unknown key; did you mean level?"), "{err}");
    }

    #[test]
    fn a_word_survives_the_shell() {
        assert_eq!(quoted("/etc/a-b_c.toml"), "/etc/a-b_c.toml");
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
    }
}
