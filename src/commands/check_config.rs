//! `check-config`: checks the configuration like `run`, and prints the probes with their estimated
//! consumption.

use std::{io::Write, iter, path::Path};

use super::{
    EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, command_line::command_line, forbid_core_dumps, table as columns,
};
use crate::config::{
    BYTES_PER_TOKEN, Budget, Comparison, Config, Environment, Keys, Loaded, Pool, PoolMember, Probe, Problem,
    Shard, Spending, duration, load, systemd_run,
};

/// The columns of the daily table. Four are aligned to the left, the others to the right.
const DAY_COLUMNS: [&str; 10] = [
    "PROBE",
    "CHECK",
    "PROVIDER",
    "MODEL",
    "INTERVAL",
    "TIMEOUT",
    "REQUESTS/DAY",
    "INPUT TOKENS/DAY",
    "OUTPUT TOKENS/DAY",
    "USD/DAY",
];

/// The columns of the monthly table.
const MONTH_COLUMNS: [&str; 5] =
    ["PROBE", "REQUESTS/MONTH", "INPUT TOKENS/MONTH", "OUTPUT TOKENS/MONTH", "USD/MONTH"];

/// Loads the file at `path`, and prints problems and warnings to `err`, probes to `out`. Returns
/// the exit status.
pub fn check_config(
    path: &Path,
    no_secrets: bool,
    environment: &Environment<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    // Before any key is in memory.
    forbid_core_dumps(err);
    let keys = if no_secrets { Keys::Skipped } else { Keys::Reported };
    let (status, results, messages) = match load(path, keys, environment) {
        Ok(loaded) => (EXIT_OK, tables(&loaded.config), messages(&loaded, path, no_secrets, environment)),
        Err(problems) => {
            (EXIT_CONFIGURATION, String::new(), format!("{problems}\n{}", warning_lines(problems.warnings())))
        }
    };
    // Write errors of standard error are ignored.
    let _ = err.write_all(messages.as_bytes());
    let written = out.write_all(results.as_bytes()).and_then(|()| out.flush());
    if written.is_err() { EXIT_FAILED } else { status }
}

/// Returns the warnings, and the command that has the credentials which only the unit can read.
fn messages(loaded: &Loaded, path: &Path, no_secrets: bool, environment: &Environment<'_>) -> String {
    let warnings = warning_lines(&loaded.warnings);
    if no_secrets || loaded.credentials.is_empty() || environment.credentials_directory().is_some() {
        return warnings;
    }
    let command = command_line("check-config", path, &[], &[]);
    let line = systemd_run(loaded.credentials.iter().map(String::as_str), &command);
    format!(
        "{warnings}To check with the credentials, as root, with the paths of the unit's LoadCredential=:\n  {line}\n"
    )
}

/// Returns a line for each warning.
fn warning_lines(warnings: &[Problem]) -> String {
    let lines: Vec<_> = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    lines.concat()
}

/// Returns the daily and the monthly table with totals, the notes, the comparisons and the pools.
fn tables(config: &Config) -> String {
    let mut days = vec![DAY_COLUMNS.map(str::to_owned).to_vec()];
    let mut months = vec![MONTH_COLUMNS.map(str::to_owned).to_vec()];
    let mut total = Spending::default();
    for probe in &config.probes {
        let day = Spending::per_day(probe);
        total = total.plus(day);
        days.push(words(probe).into_iter().chain(figures(day)).collect());
        months.push([probe.name.clone()].into_iter().chain(figures(day.month())).collect());
    }
    let blank = ["total", "", "", "", "", ""].map(str::to_owned);
    days.push(blank.into_iter().chain(figures(total)).collect());
    months.push(["total".to_owned()].into_iter().chain(figures(total.month())).collect());
    let (days, months) = (columns::render(&days, 4), columns::render(&months, 1));
    format!("{days}\n{months}{}{}{}", notes(config), comparisons(config), pools(config))
}

/// Returns the table of comparisons after an empty line, or nothing if there are none.
fn comparisons(config: &Config) -> String {
    let rows = config.comparisons.iter().map(|comparison| {
        let Comparison { name, gateway, direct } = &**comparison;
        let interval = config.probes.iter().find(|probe| probe.name == *gateway).map(|probe| probe.interval);
        let interval = interval.map(duration::format).unwrap_or_default();
        vec![name.clone(), gateway.clone(), direct.clone(), interval]
    });
    group(["COMPARISON", "GATEWAY", "DIRECT", "INTERVAL"], 3, rows)
}

/// Returns the table of pool members with their shares after an empty line, or nothing if there are
/// no pools.
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

/// Returns the notes below the tables: how the figures were estimated, the shard and the budget.
fn notes(config: &Config) -> String {
    let mut notes = Vec::new();
    if config.probes.iter().any(|probe| probe.check().generates()) {
        notes.push(format!(
            "\nInput tokens are estimated: one token per {BYTES_PER_TOKEN} bytes of the prompt, plus some \
             for its framing, times the runs.\nOutput tokens are an upper bound: max_tokens times the runs.\n\
             The cost is an upper estimate from both and the price of each probe. A month has 31 days.\n"
        ));
    }
    let unpriced = config.probes.iter().filter(|probe| probe.chat().is_some_and(|chat| chat.price.is_none()));
    let unpriced: Vec<_> = unpriced.map(|probe| probe.name.as_str()).collect();
    if !unpriced.is_empty() {
        notes.push(format!("Not in the cost, because they have no price: {}.\n", unpriced.join(", ")));
    }
    if let Some(Shard { index, total }) = config.shard {
        let rest = if total == 1 { "which are all of them" } else { "the other daemons run the rest" };
        notes.push(format!(
            "\nShard {index} of {total}: {} probes of the file, {rest}.\n",
            config.probes.len()
        ));
    }
    if let Some(Budget { daily_cost_usd, daily_tokens }) = config.budget {
        let cost = daily_cost_usd.map(|usd| format!("{usd} USD"));
        let tokens = daily_tokens.map(|tokens| format!("{tokens} tokens"));
        let limits: Vec<_> = cost.into_iter().chain(tokens).collect();
        let limits = if limits.is_empty() { "no limit".to_owned() } else { limits.join(", ") };
        notes.push(format!("Budget per UTC day: {limits}.\n"));
    }
    notes.concat()
}

/// Returns the cells of a row before its figures.
fn words(probe: &Probe) -> [String; 6] {
    let provider = &probe.provider;
    [
        probe.name.clone(),
        probe.check().to_string(),
        format!("{} ({}, {})", provider.name, provider.api, probe.host()),
        probe.model.clone().unwrap_or_else(|| "-".to_owned()),
        duration::format(probe.interval),
        duration::format(probe.timeout),
    ]
}

/// Returns requests, input tokens, output tokens and cost as cells.
fn figures(spending: Spending) -> [String; 4] {
    let Spending { requests, input_tokens, output_tokens, cost_usd } = spending;
    // Small numbers keep a digit, so that a weekly probe or a cheap model is not shown as 0.
    let number = |number: f64| {
        if number > 0.0 && number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") }
    };
    let cost = |cost: f64| if cost > 0.0 && cost < 1.0 { format!("{cost:.4}") } else { format!("{cost:.2}") };
    let cost_usd = cost_usd.map_or_else(|| "-".to_owned(), cost);
    [number(requests), number(input_tokens), number(output_tokens), cost_usd]
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
        price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.11 }
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
        let environment = Environment { variable, system_roots: &|| vec![vec![0].into()] };
        let status = check_config(&path, no_secrets, &environment, &mut out, &mut err);
        let text =
            |bytes| String::from_utf8(bytes).unwrap().replace(&path.display().to_string(), "config.toml");
        (status, text(out), text(err))
    }

    #[test]
    fn tables_show_consumption_per_day_and_month() {
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
                "0",
                "-"
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
                "768",
                "0.0001"
            ]
        );
        assert_eq!(rows[3], ["total", "1464", "240", "768", "0.0001"]);
        let months: Vec<Vec<&str>> =
            out.lines().skip(6).take(3).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(months[0], ["langmart-health", "44640", "0", "0", "-"]);
        assert_eq!(months[1], ["chat", "744", "7440", "23808", "0.0037"]);
        assert_eq!(months[2], ["total", "45384", "7440", "23808", "0.0037"]);
    }

    #[test]
    fn network_check_sends_no_requests() {
        let (status, out, _) = run("[provider.langmart]\nchecks = [\"network\"]", false, &|_| None);
        assert_eq!(status, EXIT_OK);
        let row = out.lines().nth(1).unwrap();
        assert!(row.starts_with("langmart-network  network"), "{out}");
        assert_eq!(row.split_whitespace().rev().take(4).collect::<Vec<_>>(), ["-", "0", "0", "0"], "{out}");
    }

    #[test]
    fn notes_list_probes_without_price_and_the_budget() {
        let text = FILE.replace("price = ", "# ") + "[budget]\ndaily_tokens = 1000\n";
        let (status, out, err) = run(&text, true, &|_| None);
        assert_eq!(status, EXIT_OK);
        assert!(out.contains("no price: chat.\nBudget per UTC day: 1000 tokens.\n"), "{out}");
        assert!(out.lines().any(|line| line.starts_with("total") && line.ends_with(" -")), "{out}");
        assert_eq!(
            err,
            "warning: config.toml:16: budget.daily_tokens: the chat and stream probes may consume up to 1008 tokens \
             per day, more than 1000; when the budget is used up, they pause for the rest of the UTC day\n"
        );
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
    fn unreadable_key_is_a_warning() {
        let (status, _, err) = run(FILE, false, &|_| None);
        assert_eq!(status, EXIT_OK);
        assert_eq!(
            err,
            "warning: config.toml:3: provider.langmart.api_key: credential langmart is available only inside the \
             systemd unit: CREDENTIALS_DIRECTORY is not set\n\
             warning: config.toml:6: provider.openai.api_key: environment variable OPENAI_API_KEY is not set; export it, or use a key file\n\
             To check with the credentials, as root, with the paths of the unit's LoadCredential=:\n  \
             systemd-run --pipe --wait --collect --quiet --property=LoadCredential=langmart:/etc/credstore/langmart \
             langmart-prober check-config --config config.toml\n"
        );
    }

    #[test]
    fn no_secrets_reports_no_missing_key() {
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
        // 288 runs per day of about 5,200 tokens each.
        let input: u64 = out.lines().nth(1).unwrap().split_whitespace().nth_back(2).unwrap().parse().unwrap();
        assert!((1_400_000..1_700_000).contains(&input), "{out}");
    }

    #[test]
    fn invalid_file_has_no_table() {
        let (status, out, err) = run("[log]\nlevl = 1\n", false, &|_| None);
        assert_eq!((status, out.as_str()), (EXIT_CONFIGURATION, ""));
        assert!(err.starts_with("config.toml:2: log.levl: unknown key; did you mean level?"), "{err}");
    }

    #[test]
    fn invalid_file_has_only_its_own_warnings() {
        let text = format!("{FILE}[budget]\ndaily_tokens = 1000\n[log]\nlevl = 1\n");
        let (status, _, err) = run(&text, true, &|_| None);
        assert_eq!(status, EXIT_CONFIGURATION);
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[0].contains("log.levl: unknown key"), "{err}");
        assert!(lines[1].starts_with("warning: config.toml:16: budget.daily_tokens: "), "{err}");
        // The probe exists, but is invalid.
        let text = "[provider.corp]\napi = \"openai\"\nbase_url = \"http://localhost\"\n[[probe]]\nname = \"p\"\nprovider = \"corp\"\ncheck = \"chatt\"\n";
        let (_, _, err) = run(text, true, &|_| None);
        assert_eq!(err.lines().count(), 1, "{err}");
    }

    #[test]
    fn notes_describe_the_shard() {
        let shard = |total: u32| {
            let text = format!("{FILE}[shard]\nindex = 0\ntotal = {total}");
            run(&text, true, &|_| None).1
        };
        assert!(
            shard(1).contains("\nShard 0 of 1: 2 probes of the file, which are all of them.\n"),
            "{}",
            shard(1)
        );
        assert!(shard(2).contains(" probes of the file, the other daemons run the rest.\n"), "{}", shard(2));
    }
}
