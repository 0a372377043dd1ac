//! Tests of included files, of several models in one probe, and of the level on the command line.

use std::{fs, path::Path};

use langmart_prober::config::{Environment, Keys, Loaded, Problems, load};

use crate::harness::daemon::{Place, records};

const PROBE: &str = "[[probe]]\nname = \"NAME\"\nprovider = \"langmart\"\ncheck = \"health\"\n";

fn read(place: &Place) -> Result<Loaded, Problems> {
    let environment = Environment { variable: &|_| None, system_roots: &|| vec![vec![0].into()] };
    load(&place.path("config.toml"), Keys::Required, &environment)
}

/// Returns the problems of a configuration, with paths relative to its directory.
#[track_caller]
fn problems(place: &Place) -> String {
    let directory = format!("{}/", place.path("").display().to_string().trim_end_matches('/'));
    read(place).map(|_| ()).unwrap_err().to_string().replace(&directory, "")
}

fn write(place: &Place, name: &str, text: &str) {
    let path = place.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.config.probes.iter().map(|probe| probe.name.as_str()).collect()
}

#[test]
fn included_files_are_merged_in_order() {
    let place = Place::new("include = [\"conf.d/*.toml\", \"more.toml\"]\n[log]\nlevel = \"warn\"");
    write(&place, "conf.d/b.toml", &PROBE.replace("NAME", "b"));
    write(&place, "conf.d/a.toml", &format!("# Team A.\n\n{}", PROBE.replace("NAME", "a")));
    write(&place, "conf.d/.hidden.toml", "nonsense");
    write(&place, "conf.d/notes.txt", "nonsense");
    write(
        &place,
        "more.toml",
        "\u{feff}[provider.langmart]\r\nchecks = [\"network\"]\r\n[schedule]\nmax_concurrent = 7",
    );
    let loaded = read(&place).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(names(&loaded), ["a", "b", "langmart-network"]);
    assert_eq!((loaded.config.log.filter.as_str(), loaded.config.schedule.max_concurrent), ("warn", 7));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn problem_of_an_included_file_names_it() {
    let place =
        Place::new("include = [\"a.toml\", \"b.toml\"]\n[provider.langmart]\nchecks = [\"health\"]\n");
    write(&place, "a.toml", "# Lines\n\n[log]\nlevl = 1\n");
    write(&place, "b.toml", &format!("{}intervall = 1\n", PROBE.replace("NAME", "langmart-health")));
    let shown = problems(&place);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("a.toml:4: log.levl: unknown key; did you mean level?"), "{shown}");
    assert_eq!(
        lines[1],
        "b.toml:1: probe[1] \"langmart-health\": the probe name \"langmart-health\" is used by \
         provider.langmart.checks[1] in config.toml:3; names must be unique, generated ones included"
    );
    assert!(
        lines[2].starts_with("b.toml:5: probe[1] \"langmart-health\": intervall: unknown key"),
        "{shown}"
    );
}

#[test]
fn duplicate_section_names_both_files() {
    let place = Place::new("include = [\"a.toml\"]\n\n[provider.langmart]\nchecks = [\"health\"]\n");
    write(&place, "a.toml", "[log]\nlevel = \"warn\"\n[provider.langmart]\nchecks = [\"network\"]\n");
    let shown = problems(&place);
    assert_eq!(
        shown.lines().next().unwrap(),
        "a.toml:3:11: not valid TOML: duplicate key \"langmart\"; keep one of the two, the other is in config.toml:3"
    );
}

#[test]
fn included_file_must_consist_of_sections() {
    for (text, message) in [
        (
            "level = \"warn\"\n[log]\n",
            "a.toml:1: an included file consists of sections; move this line below one",
        ),
        ("\n# x\ninclude = []\n", "a.toml:3: an included file consists of sections"),
        (
            "[probe.expect]\nmodel = \"m\"\n",
            "a.toml:1: probe: must be an array of tables, each written under [[probe]]",
        ),
        ("[pool]\nname = \"a\"\n", "each written under [[pool]]"),
        ("[log]\nlevel = \"\"\"\n", "a.toml:"),
        ("[log\n", "a.toml:1"),
    ] {
        let place = Place::new(
            "include = [\"a.toml\"]\n[provider.langmart]\nchecks = [\"health\"]\n[[probe]]\nname = \"p\"\n",
        );
        write(&place, "a.toml", text);
        let shown = problems(&place);
        assert!(shown.starts_with("a.toml:") && shown.contains(message), "{text:?}: {shown}");
    }
}

#[test]
fn include_that_names_no_file_is_an_error_or_empty() {
    let place = Place::new("include = [\"missing.toml\"]\n");
    let missing = problems(&place);
    assert!(
        missing.starts_with("config.toml:1: include[1]: missing.toml cannot be read: No such file")
            && missing.ends_with("; correct include, or create the file"),
        "{missing}"
    );
    place.write("config.toml", "include = [\"conf.d/*.toml\"]\n[provider.langmart]\nchecks = [\"health\"]\n");
    assert_eq!(names(&read(&place).unwrap()), ["langmart-health"]);
    place.write("config.toml", "include = \"a.toml\"\n");
    assert!(problems(&place).contains("include: must be an array of strings"));
    // A file that includes itself, or is named twice, is read once.
    place.write(
        "config.toml",
        "include = [\"*.toml\", \"a.toml\"]\n[provider.langmart]\nchecks = [\"health\"]\n",
    );
    write(&place, "a.toml", "[log]\nlevel = \"warn\"\n");
    assert_eq!(read(&place).unwrap().config.log.filter, "warn");
}

#[test]
fn reload_reads_included_files_again() {
    let place = Place::new("include = [\"conf.d/*\"]\n[server]\nlisten = \"127.0.0.1:0\"\n");
    let provider = "[provider.langmart]\nbase_url = \"http://127.0.0.1:1\"\nchecks = [\"health\"]\n";
    write(&place, "conf.d/a.toml", provider);
    let mut daemon = place.daemon();
    write(&place, "conf.d/b.toml", &PROBE.replace("NAME", "late"));
    daemon.reload();
    assert!(daemon.get("/metrics").body.contains("probe=\"late\""));
    write(&place, "conf.d/b.toml", "nonsense");
    daemon.reload();
    let log = daemon.stop();
    assert!(log.contains("conf.d/b.toml:1"), "{log}");
}

#[test]
fn models_make_a_probe_each() {
    let probe = |models: &str, more: &str| {
        format!(
            "[provider.openai]\napi_key = {{ file = \"KEY\" }}\n[[probe]]\nname = \"chat\"\nprovider = \"openai\"\n\
             check = \"chat\"\nmodels = {models}\n{more}\n"
        )
    };
    let place = Place::new("");
    place.write("key", "sk-test\n");
    let write = |text: &str| {
        place.write("config.toml", &text.replace("KEY", &place.path("key").display().to_string()));
    };
    write(&probe("[\"gpt-4o-mini\", \"openai/GPT-4o:free\", \"gpt-5\"]", "interval = \"7d\""));
    let loaded = read(&place).unwrap();
    assert_eq!(names(&loaded), ["chat-gpt-4o-mini", "chat-openai-gpt-4o-free", "chat-gpt-5"]);
    let models: Vec<_> = loaded.config.probes.iter().map(|probe| probe.model.as_deref().unwrap()).collect();
    assert_eq!(models, ["gpt-4o-mini", "openai/GPT-4o:free", "gpt-5"]);
    // Defaults depend on the model.
    let tokens: Vec<_> = loaded.config.probes.iter().map(|probe| probe.chat().unwrap().max_tokens).collect();
    assert_eq!(tokens, [32, 32, 2048]);
    for (models, more, message) in [
        ("[\"a\", \"a\"]", "", "models[2]: results in the name of another entry"),
        ("[\"a/b\", \"a:b\"]", "", "models[2]: results in the name of another entry"),
        ("[]", "", "models: must have at least one model"),
        ("[\"a b\"]", "", "models[1]: \"a b\" is not a model ID"),
        ("\"a\"", "", "models: must be an array of strings"),
        ("[\"a\"]", "model = \"b\"", "models: cannot be combined with model"),
        ("[\"a\", \"b\"]", "max_tokens = 0", "max_tokens: 0 is out of range"),
        ("[\"a\", \"b\"]", "intervall = 1", "intervall: unknown key"),
        (
            "[\"a\"]",
            "[[probe]]\nname = \"chat-a\"\nprovider = \"openai\"\ncheck = \"network\"",
            "names must be unique",
        ),
    ] {
        write(&probe(models, more));
        let shown = problems(&place);
        assert!(shown.contains(message) && shown.lines().count() == 1, "{models} {more}: {shown}");
    }
    let long = format!("[\"{}\"]", "m".repeat(60));
    write(&probe(&long, ""));
    assert!(problems(&place).contains("models[1]: results in the name "), "{}", problems(&place));
    write(&probe(
        "[\"a\", \"b\"]",
        "[[pool]]\nname = \"all\"\nmembers = [{ probe = \"chat-a\" }, { probe = \"chat\" }]",
    ));
    assert!(problems(&place).contains("\"chat\" is not the name of a probe"), "{}", problems(&place));
}

#[test]
fn level_of_the_command_line_outlasts_a_reload() {
    let place = Place::new(
        "[server]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"debug\"\ndirectory = \"LOGS\"\n[provider.langmart]\n\
         base_url = \"http://127.0.0.1:1\"\nchecks = [\"health\"]\n",
    );
    let text = fs::read_to_string(place.path("config.toml")).unwrap();
    place.write("config.toml", &text.replace("LOGS", &place.path("logs").display().to_string()));
    let mut command = place.command("run");
    command.args(["--log-level", "info"]);
    let mut daemon = crate::harness::daemon::Daemon::start(command);
    daemon.reload();
    let log = daemon.stop();
    assert!(log.contains("Configuration reloaded") && !log.contains("DEBUG"), "{log}");
    let refused = place.command("run").args(["--log-level", "loud"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn once_without_probes_fails() {
    let place = Place::new("[provider.langmart]\n");
    let output = place.run("once", &["--json"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), records(output.stdout).len()), (Some(1), 0), "{errors}");
    assert!(
        errors.ends_with("no probe is configured; add checks to a provider or a [[probe]]\n"),
        "{errors}"
    );
}

#[test]
fn init_writes_a_configuration_that_passes() {
    let place = Place::new("");
    let printed =
        std::process::Command::new(crate::harness::daemon::PROBER).args(["init", "groq"]).output().unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    place.write("key", "gsk_test\n");
    let key = place.path("key").display().to_string();
    place.write("config.toml", &text.replace("/etc/langmart-prober/keys/groq\" }", &format!("{key}\" }}")));
    let checked = place.run("check-config", &["--strict"]);
    let errors = String::from_utf8(checked.stderr).unwrap();
    assert_eq!((checked.status.code(), errors.as_str()), (Some(0), ""));
    assert!(Path::new(&key).exists());
}
