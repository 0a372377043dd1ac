//! `check-config`: checks the configuration like `run`, and prints the probes with their estimated
//! consumption.

mod json;
mod plan;

use std::{ffi::OsString, io::Write, path::Path};

use rustix::process::geteuid;

use super::{
    EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK,
    command_line::{command_line, service_hint},
    forbid_core_dumps,
};
use crate::config::{Environment, Keys, Loaded, Problem, Service, Unit, load};

/// The arguments of the command.
#[derive(Clone, Copy, Debug)]
pub struct CheckConfig<'a> {
    /// Path to the configuration file.
    pub path: &'a Path,
    /// Whether keys are not read.
    pub no_secrets: bool,
    /// Whether a file that this process cannot read, and what it cannot write or bind, is an error.
    pub strict: bool,
    /// The form of the results.
    pub form: Form,
}

/// The form of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table and messages for people.
    Table,
    /// One JSON object.
    Json,
    /// Errors only.
    Errors,
}

impl<'a> CheckConfig<'a> {
    /// Returns the arguments without options.
    pub fn new(path: &'a Path) -> Self {
        Self { path, no_secrets: false, strict: false, form: Form::Table }
    }
}

/// Loads the file, and prints the probes to `out`, then problems and warnings to `err`. Returns the
/// exit status.
///
/// For root, keys and access are those of the installed service.
pub fn check_config(
    request: &CheckConfig<'_>,
    environment: &Environment<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    // Before any key is in memory.
    forbid_core_dumps(err);
    let by_root = geteuid().is_root() && !environment.is_service();
    let service = by_root.then(|| Service::find(Unit::read(Path::new("/")))).flatten();
    let variable =
        |name: &str| service.as_ref().and_then(|service| service.variable(name)).map(OsString::from);
    let (keys, environment) = match &service {
        _ if request.no_secrets => (Keys::Skipped, *environment),
        _ if request.strict => (Keys::Strict, *environment),
        Some(service) => (Keys::ReportedFor(service), Environment { variable: &variable, ..*environment }),
        None => (Keys::Reported, *environment),
    };
    let loaded = load(request.path, keys, &environment);
    let (results, messages) = match &loaded {
        _ if request.form == Form::Json => (json::render(&loaded), String::new()),
        Err(problems) => (String::new(), format!("{problems}\n{}", warning_lines(problems.warnings()))),
        Ok(_) if request.form == Form::Errors => (String::new(), String::new()),
        Ok(loaded) => (plan::render(&loaded.config), messages(loaded, request, &environment)),
    };
    let written = out.write_all(results.as_bytes()).and_then(|()| out.flush());
    // Write errors of standard error are ignored.
    let _ = err.write_all(messages.as_bytes());
    match (loaded.is_ok(), written.is_ok()) {
        (false, _) => EXIT_CONFIGURATION,
        (true, false) => EXIT_FAILED,
        (true, true) => EXIT_OK,
    }
}

/// Returns the warnings, and the command that has the keys which only the service can read.
fn messages(loaded: &Loaded, request: &CheckConfig<'_>, environment: &Environment<'_>) -> String {
    let flags = [(request.strict, "--strict")];
    let command = command_line("check-config", request.path, &flags, &[]);
    format!("{}{}", warning_lines(&loaded.warnings), service_hint(&loaded.unread, environment, &command))
}

/// Returns a line for each warning.
fn warning_lines(warnings: &[Problem]) -> String {
    let lines: Vec<_> = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    lines.concat()
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
        run_with(text, |request| CheckConfig { no_secrets, ..request }, variable)
    }

    fn run_with(
        text: &str,
        options: impl Fn(CheckConfig<'_>) -> CheckConfig<'_>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> (u8, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let environment = Environment { variable, system_roots: &|| vec![vec![0].into()] };
        let status = check_config(&options(CheckConfig::new(&path)), &environment, &mut out, &mut err);
        let text =
            |bytes| String::from_utf8(bytes).unwrap().replace(&path.display().to_string(), "config.toml");
        (status, text(out), text(err))
    }

    #[test]
    fn tables_show_consumption_per_day_and_month() {
        let (status, out, _) = run(FILE, true, &|_| None);
        assert_eq!(status, EXIT_OK);
        let expected = "\
PROBE              CHECK   INTERVAL  REQUESTS  INPUT  OUTPUT     USD
langmart (api langmart) at https://api.langmart.ai
  langmart-health  health        1m      1440      0       0       -
openai (api openai) at https://api.openai.com/v1
  chat             chat          1h        24    240     768  0.0001
    gpt-4o-mini
total per day                            1464    240     768  0.0001
total per 31 days                       45384   7440   23808  0.0037

Requests, tokens and cost are those of a day.
Input tokens are estimated: one token per 4 bytes of the prompt, plus some for
its framing, times the runs. Output tokens are an upper bound: max_tokens times
the runs. The cost is an upper estimate from both and the price of each probe.
";
        assert_eq!(out, expected);
    }

    #[test]
    fn lines_fit_80_columns() {
        let name = "n".repeat(64);
        let text = FILE.replace("name = \"chat\"", &format!("name = \"{name}\""));
        let text = text.replace("max_tokens = 32", "").replace("interval = \"1h\"", "interval = \"10s\"");
        let (_, out, _) = run(&text, true, &|_| None);
        assert!(out.contains(&format!("  {name}\n   ")), "{out}");
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    }

    #[test]
    fn json_has_problems_or_probes() {
        let json = |text: &str| {
            let (status, out, err) =
                run_with(text, |request| CheckConfig { form: Form::Json, ..request }, &|_| None);
            assert_eq!(err, "");
            (status, serde_json::from_str::<serde_json::Value>(&out).unwrap())
        };
        let (status, answer) = json(FILE);
        assert_eq!((status, &answer["valid"]), (EXIT_OK, &true.into()));
        assert_eq!(answer["warnings"].as_array().unwrap().len(), 2, "{answer}");
        assert_eq!(answer["warnings"][1]["key"], "provider.openai.api_key");
        let probe = &answer["probes"][1];
        assert_eq!(
            (&probe["probe"], &probe["base_url"]),
            (&"chat".into(), &"https://api.openai.com/v1".into())
        );
        assert_eq!(probe["per_day"]["output_tokens"], 768.0);
        assert_eq!(answer["per_day"]["requests"], 1464.0);
        assert_eq!(run_with(FILE, |request| CheckConfig { form: Form::Errors, ..request }, &|_| None).1, "");
        let (status, answer) = json("[log]\nlevl = 1\n");
        assert_eq!((status, &answer["valid"]), (EXIT_CONFIGURATION, &false.into()));
        assert_eq!(
            (&answer["errors"][0]["line"], &answer["errors"][0]["key"]),
            (&2.into(), &"log.levl".into())
        );
        assert!(answer.get("probes").is_none(), "{answer}");
    }

    #[test]
    fn strict_refuses_an_unreadable_key_file() {
        let text = "[provider.langmart]\napi_key = { file = \"/nonexistent/key\" }\nchecks = [\"auth\"]\n\
                    [provider.openai]\napi_key = { credential = \"k\" }\nchecks = [\"auth\"]\n\
                    [provider.groq]\napi_key = { env = \"K\" }\nchecks = [\"auth\"]\n";
        let strict = |variable: &dyn Fn(&str) -> Option<OsString>| {
            let (status, _, err) =
                run_with(text, |request| CheckConfig { strict: true, ..request }, variable);
            assert_eq!(status, EXIT_CONFIGURATION);
            err.lines().filter(|line| !line.starts_with("warning: ")).count()
        };
        assert_eq!(strict(&|_| None), 1);
        // The service lacks variables that the shell need not have; credentials are hidden from
        // ExecReload=.
        let pid = std::process::id().to_string();
        assert_eq!(strict(&|name| (name == "SYSTEMD_EXEC_PID").then(|| pid.clone().into())), 2);
        assert_eq!(run(text, false, &|_| None).0, EXIT_OK);
    }

    #[test]
    fn network_check_sends_no_requests() {
        let (status, out, _) = run("[provider.langmart]\nchecks = [\"network\"]", false, &|_| None);
        assert_eq!(status, EXIT_OK);
        let row = out.lines().nth(2).unwrap();
        assert!(row.starts_with("  langmart-network  network"), "{out}");
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
    fn unreadable_key_is_a_warning() {
        let (status, _, err) = run(FILE, false, &|_| None);
        assert_eq!(status, EXIT_OK);
        assert_eq!(
            err,
            "warning: config.toml:3: provider.langmart.api_key: credential langmart is available only inside the \
             systemd unit: CREDENTIALS_DIRECTORY is not set\n\
             warning: config.toml:6: provider.openai.api_key: environment variable OPENAI_API_KEY is not set; export it, or use a key file\n\
             To use the keys of the service, as root:\n  \
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
        let input: u64 = out.lines().nth(2).unwrap().split_whitespace().nth_back(2).unwrap().parse().unwrap();
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
