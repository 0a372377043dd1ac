//! `check-config`: the loader of `run`, then the probes that it would schedule and what they would spend.

use std::{io::Write, iter, path::Path};

use super::{
    EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, by_hand::by_hand, forbid_core_dumps, table as columns,
};
use crate::config::{
    BYTES_PER_TOKEN, Budget, Comparison, Config, Keys, Loaded, Pool, PoolMember, Probe, Problem, Shard,
    Spending, Surroundings, duration, load, systemd_run,
};

/// The columns of a day's table: six of words, the others of figures.
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

/// The columns of a month's.
const MONTH_COLUMNS: [&str; 5] =
    ["PROBE", "REQUESTS/MONTH", "INPUT TOKENS/MONTH", "OUTPUT TOKENS/MONTH", "USD/MONTH"];

/// Loads the file at `path` and prints its problems and warnings to `err`, its probes to `out`. The exit status.
pub fn check_config(
    path: &Path,
    no_secrets: bool,
    surroundings: &Surroundings<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    // Before there is a key in memory.
    forbid_core_dumps(err);
    let keys = if no_secrets { Keys::Skipped } else { Keys::Reported };
    let (status, results, messages) = match load(path, keys, surroundings) {
        Ok(loaded) => (EXIT_OK, tables(&loaded.config), remarks(&loaded, path, no_secrets, surroundings)),
        Err(problems) => {
            (EXIT_CONFIGURATION, String::new(), format!("{problems}\n{}", warned(problems.warnings())))
        }
    };
    // Where standard error is closed there is nobody left to tell.
    let _ = err.write_all(messages.as_bytes());
    let written = out.write_all(results.as_bytes()).and_then(|()| out.flush());
    if written.is_err() { EXIT_FAILED } else { status }
}

/// The warnings, and how to have the credentials that only the unit has.
fn remarks(loaded: &Loaded, path: &Path, no_secrets: bool, surroundings: &Surroundings<'_>) -> String {
    let warnings = warned(&loaded.warnings);
    if no_secrets || loaded.credentials.is_empty() || surroundings.credentials_directory().is_some() {
        return warnings;
    }
    let command = by_hand("check-config", path, &[], &[]);
    let line = systemd_run(loaded.credentials.iter().map(String::as_str), &command);
    format!(
        "{warnings}To check with the credentials, as root and with the paths of the unit's LoadCredential=:\n  {line}\n"
    )
}

/// A line for each warning.
fn warned(warnings: &[Problem]) -> String {
    let lines: Vec<_> = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    lines.concat()
}

/// The probes, aligned, with their totals, of a day and of a month, and how the numbers came about.
fn tables(config: &Config) -> String {
    let mut days = vec![DAY_COLUMNS.map(str::to_owned).to_vec()];
    let mut months = vec![MONTH_COLUMNS.map(str::to_owned).to_vec()];
    let mut total = Spending::default();
    for probe in &config.probes {
        let day = Spending::of_day(probe);
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

/// How the figures came about, and what they may not exceed.
fn notes(config: &Config) -> String {
    let mut notes = Vec::new();
    if config.probes.iter().any(|probe| probe.check().generates()) {
        notes.push(format!(
            "\nInput tokens are estimated: a token for each {BYTES_PER_TOKEN} bytes of the prompt and some \
             for its frame, times the runs.\nOutput tokens are the most there can be: max_tokens times the runs.\n\
             The cost follows from both and the price of each probe: an upper estimate. A month has 31 days.\n"
        ));
    }
    let unpriced = config.probes.iter().filter(|probe| probe.chat().is_some_and(|chat| chat.price.is_none()));
    let unpriced: Vec<_> = unpriced.map(|probe| probe.name.as_str()).collect();
    if !unpriced.is_empty() {
        notes.push(format!("Without a price, and so not in the cost: {}.\n", unpriced.join(", ")));
    }
    if let Some(Shard { index, total }) = config.shard {
        let rest = if total == 1 { "which are all" } else { "the other daemons have the others" };
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
        notes.push(format!("The budget of a UTC day: {limits}.\n"));
    }
    notes.concat()
}

/// What a row says of a probe before its figures.
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

/// Requests, input tokens, output tokens and their cost, as a row has them.
fn figures(spending: Spending) -> [String; 4] {
    let Spending { requests, input_tokens, output_tokens, cost_usd } = spending;
    // A weekly probe is not nothing, nor is the price of a small model.
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
    fn a_network_check_sends_no_request() {
        let (status, out, _) = run("[provider.langmart]\nchecks = [\"network\"]", false, &|_| None);
        assert_eq!(status, EXIT_OK);
        let row = out.lines().nth(1).unwrap();
        assert!(row.starts_with("langmart-network  network"), "{out}");
        assert_eq!(row.split_whitespace().rev().take(4).collect::<Vec<_>>(), ["-", "0", "0", "0"], "{out}");
    }

    #[test]
    fn what_has_no_price_is_said_and_so_is_the_budget() {
        let text = FILE.replace("price = ", "# ") + "[budget]\ndaily_tokens = 1000\n";
        let (status, out, err) = run(&text, true, &|_| None);
        assert_eq!(status, EXIT_OK);
        assert!(out.contains("not in the cost: chat.\nThe budget of a UTC day: 1000 tokens.\n"), "{out}");
        assert!(out.lines().any(|line| line.starts_with("total") && line.ends_with(" -")), "{out}");
        assert_eq!(
            err,
            "warning: config.toml:16: budget.daily_tokens: the chat and stream probes may take up to 1008 tokens a \
             day, more than 1000; when they are spent the probes stop for the rest of the UTC day\n"
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
        let input: u64 = out.lines().nth(1).unwrap().split_whitespace().nth_back(2).unwrap().parse().unwrap();
        assert!((1_400_000..1_700_000).contains(&input), "{out}");
    }

    #[test]
    fn a_bad_file_has_no_table() {
        let (status, out, err) = run("[log]\nlevl = 1\n", false, &|_| None);
        assert_eq!((status, out.as_str()), (EXIT_CONFIGURATION, ""));
        assert!(err.starts_with("config.toml:2: log.levl: unknown key; did you mean level?"), "{err}");
    }

    #[test]
    fn a_bad_file_has_its_warnings_too_but_none_that_its_errors_made() {
        let text = format!("{FILE}[budget]\ndaily_tokens = 1000\n[log]\nlevl = 1\n");
        let (status, _, err) = run(&text, true, &|_| None);
        assert_eq!(status, EXIT_CONFIGURATION);
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[0].contains("log.levl: unknown key"), "{err}");
        assert!(lines[1].starts_with("warning: config.toml:16: budget.daily_tokens: "), "{err}");
        // The probe is there, only wrong.
        let text = "[provider.corp]\napi = \"openai\"\nbase_url = \"http://localhost\"\n[[probe]]\nname = \"p\"\nprovider = \"corp\"\ncheck = \"chatt\"\n";
        let (_, _, err) = run(text, true, &|_| None);
        assert_eq!(err.lines().count(), 1, "{err}");
    }

    #[test]
    fn a_shard_says_who_has_the_other_probes() {
        let shard = |total: u32| {
            let text = format!("{FILE}[shard]\nindex = 0\ntotal = {total}");
            run(&text, true, &|_| None).1
        };
        assert!(shard(1).contains("\nShard 0 of 1: 2 probes of the file, which are all.\n"), "{}", shard(1));
        assert!(
            shard(2).contains(" probes of the file, the other daemons have the others.\n"),
            "{}",
            shard(2)
        );
    }
}
