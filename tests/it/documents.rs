//! Checks that the documents agree with the code, and that they keep to the house style.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use langmart_prober::{
    api::ApiPaths,
    outcome::{Api, Check, Fault, Reason, possible_failures},
};
use regex::Regex;

/// Documents that are generated: METRICS.md from the HELP texts.
const GENERATED: &[&str] = &["METRICS.md"];

/// Maximum length of a comment line.
const MAX_COMMENT_CHARS: usize = 100;

/// Files whose comments operators read.
const COMMENTED: &[&str] = &[
    "config.toml.example",
    "packaging/config.toml",
    "packaging/alertmanager/alertmanager.yml",
    "packaging/alertmanager/receivers.yml",
    "packaging/compose/compose.yaml",
    "packaging/compose/config.toml",
    "packaging/compose/datasource.yaml",
    "packaging/compose/prometheus.yml",
    "packaging/compose/scenario.toml",
    "packaging/container/config.toml",
    "packaging/examples/credentials.conf",
    "packaging/examples/credentials-encrypted.conf",
    "packaging/grafana/provisioning/dashboards/langmart-prober.yaml",
    "packaging/grafana/provisioning/datasources/langmart-prober.yaml",
    "packaging/prometheus/langmart-prober.alerts.yml",
    "packaging/prometheus/langmart-prober.rules.yml",
    "packaging/prometheus/scrape-job.yml",
    "packaging/prometheus/scrape.d/langmart-prober.yml",
    "packaging/prometheus/scrape.yml",
    "systemd/langmart-prober.service",
];

/// Forms that the house style replaces, and the maximum number of each per 10,000 words. A review
/// counted the words of routinator, rustls, linkerd2-proxy, ripgrep and axum; forms that these hardly
/// use are not used at all.
const DISCOURAGED: &[(&str, usize)] = &[
    ("tell", 0),
    ("tells", 0),
    ("told", 0),
    ("say", 0),
    ("says", 0),
    ("said", 0),
    ("whoever", 0),
    ("whatever", 0),
    ("nobody", 0),
    ("somebody", 0),
    ("goes on", 0),
    ("go on", 0),
    ("goes wrong", 0),
    ("hangs", 0),
    ("stands still", 0),
    ("stand still", 0),
    ("the way there", 0),
    ("whose part", 0),
    ("in a row", 0),
    ("trouble", 0),
    ("there is nothing here", 0),
    ("look", 5),
    ("looks", 1),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the files below some folders, in order, by their extension.
fn files_below(folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let list = if path.is_dir() { &mut folders } else { &mut files };
            list.push(path);
        }
    }
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// Returns the Markdown files of the root, docs/ and packaging/, with their text.
fn documents() -> Vec<(String, String)> {
    let mut names = files_below(&["docs", "packaging"], "md");
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            names.push(path);
        }
    }
    assert!(names.len() > 60, "documents were not found: {names:?}");
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    names.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Returns the cells of each row of a table, which is found by its first line.
#[track_caller]
fn table(text: &str, header: &str) -> Vec<Vec<String>> {
    let (_, rest) = text.split_once(header).unwrap_or_else(|| panic!("there is no table {header}"));
    let rows = rest.lines().skip(2).take_while(|line| line.trim_start().starts_with('|'));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| row.trim().trim_matches('|').split('|').map(cell).collect()).collect()
}

/// Returns the code block behind the comment of that name.
#[track_caller]
fn block<'a>(text: &'a str, name: &str) -> &'a str {
    let mark = format!("<!-- {name} -->\n```\n");
    let (_, rest) = text.split_once(&mark).unwrap_or_else(|| panic!("there is no block {name}"));
    rest.split_once("```").expect("a block ends").0
}

#[test]
fn reasons_table_has_every_reason_with_its_faults() {
    let pairs: BTreeSet<(Reason, Fault)> = Api::ALL
        .iter()
        .flat_map(|&api| Check::ALL.iter().map(move |&check| (api, check)))
        // The page describes the failures of a status page below the table.
        .filter(|(_, check)| *check != Check::Status)
        .flat_map(|(api, check)| possible_failures(api, check))
        .chain([(Reason::Ok, Fault::None)])
        .collect();
    let faults = |reason: Reason| {
        let faults = Fault::ALL.iter().filter(|fault| pairs.contains(&(reason, **fault)));
        faults.map(|fault| fault.name()).collect::<Vec<_>>()
    };
    let expected: Vec<(&str, Vec<&str>)> =
        Reason::ALL.iter().map(|&reason| (reason.name(), faults(reason))).collect();
    let rows = table(&read("docs/concepts/reasons.md"), "| reason | when | faults |");
    let mut rows: Vec<(&str, Vec<&str>)> =
        rows.iter().map(|row| (row[0].as_str(), row[2].split(", ").collect())).collect();
    for (_, faults) in &mut rows {
        faults.sort_by_key(|fault| Fault::from_name(fault));
    }
    assert_eq!(rows, expected);
}

#[test]
fn checks_table_has_every_check() {
    let rows = table(&read("docs/reference/configuration.md"), "| check | request | succeeds if |");
    let rows: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(rows, Check::ALL.iter().map(|check| check.name()).collect::<Vec<_>>());
}

#[test]
fn apis_tables_are_those_of_the_profiles() {
    fn cell(text: Option<&str>) -> String {
        text.map_or_else(|| "none".to_owned(), ToOwned::to_owned)
    }
    let text = read("docs/reference/apis.md");
    let urls = table(&text, "| `api` | default `base_url` | key header | default status page |");
    let paths = table(&text, "| `api` | `auth` | `models` | `chat` | `stream` | `health` | `balance` |");
    let row = |api: &Api| {
        let profile = api.profile();
        let header = format!("{}: {}", profile.key_header, profile.key_scheme.trim());
        let header = header.trim_end_matches(": ");
        [Some(api.name()), Some(profile.base_url), Some(header), profile.status_data].map(cell).to_vec()
    };
    assert_eq!(urls, Api::ALL.iter().map(row).collect::<Vec<_>>());
    let row = |api: &Api| {
        let ApiPaths { health, auth, models, chat, stream, balance } = api.profile().paths;
        let promised = [api.name(), auth, models, chat, stream].map(Some);
        promised.into_iter().chain([health, balance]).map(cell).collect::<Vec<_>>()
    };
    assert_eq!(paths, Api::ALL.iter().map(row).collect::<Vec<_>>());
}

#[test]
fn doctor_sample_is_the_tested_output() {
    let fixture = read("tests/doctor/three_faults.txt");
    // The first line names the fixture; an empty line ends it.
    let (_, output) = fixture.split_once('\n').expect("a fixture has lines");
    assert_eq!(block(&read("docs/guides/doctor.md"), "doctor").trim_end(), output.trim_end());
}

#[test]
fn every_metric_in_a_document_exists() {
    // The sources of /metrics, and of the answer of /probe.
    let sources: String = ["src/metrics", "src/page"]
        .iter()
        .flat_map(|part| fs::read_dir(root().join(part)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let name = Regex::new("langmart_prober?_[a-z_]+[a-z]").unwrap();
    // tests/it/alerts.rs checks packaging/, whose rules have metrics of their own.
    for (file, text) in documents().iter().filter(|(file, _)| !file.starts_with("packaging/")) {
        for found in name.find_iter(text) {
            assert!(sources.contains(&format!("\"{}\"", found.as_str())), "{file}: {}", found.as_str());
        }
    }
}

#[test]
fn links_to_files_are_valid() {
    let link = Regex::new(r"\]\(([^)#]+)[^)]*\)").unwrap();
    let mut count = 0;
    for (file, text) in documents() {
        for captures in link.captures_iter(&text).filter(|captures| !captures[1].contains("://")) {
            let folder = Path::new(&file).parent().expect("a document is a file");
            assert!(root().join(folder).join(&captures[1]).exists(), "{file}: {}", &captures[1]);
            count += 1;
        }
    }
    assert!(count > 0, "no link was found");
}

/// Checks that each section "Adding a …" of CONTRIBUTING.md lists the files of an existing example.
#[test]
fn lists_of_files_to_change_are_true() {
    let text = read("CONTRIBUTING.md");
    let sections: Vec<&str> = text.split("\n## ").filter(|section| section.starts_with("Adding ")).collect();
    assert_eq!(sections.len(), 5, "a provider, a check, a reason, a configuration key, a metric");
    for section in sections {
        let title = section.lines().next().unwrap_or_default();
        let rows = table(section, "| file | change | example |");
        assert!(rows.len() >= 4, "{title}: {rows:?}");
        for row in rows {
            let example = row[2].replace("\\`", "`");
            assert!(read(&row[0]).contains(&example), "{title}: {} does not mention {example}", row[0]);
        }
    }
}

/// Returns the words of a text in lower case, each between spaces. Underscores belong to words.
fn words(text: &str) -> String {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '\'');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    format!(" {} ", words.join(" "))
}

/// Returns the words of a Markdown file, without headings, code blocks and inline code.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        if !inside && !fence && !line.starts_with('#') {
            kept += line;
            kept.push('\n');
        }
    }
    words(&kept.split('`').step_by(2).collect::<Vec<_>>().join(" "))
}

/// Returns the words of a file's comments, and of the annotations of alerts.
fn comments(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        inside = trimmed == "annotations:" || (inside && !trimmed.starts_with("- alert:"));
        if inside || trimmed.starts_with('#') {
            kept += trimmed;
            kept.push('\n');
        }
    }
    words(&kept)
}

/// Returns the words of the titles and descriptions of a dashboard.
fn captions(text: &str) -> String {
    let is_caption = |line: &&str| line.starts_with("\"title\": ") || line.starts_with("\"description\": ");
    words(&text.lines().map(str::trim_start).filter(is_caption).collect::<Vec<_>>().join("\n"))
}

/// Returns every text that users read, by the name of its file.
fn user_texts() -> Vec<(String, String)> {
    let documents = documents().into_iter().filter(|(name, _)| !GENERATED.contains(&name.as_str()));
    let documents = documents.map(|(name, text)| (name, prose(&text)));
    let commented = COMMENTED.iter().map(|name| ((*name).to_owned(), comments(&read(name))));
    let dashboards = ["overview", "drill-down", "prober"].map(|name| {
        let name = format!("packaging/grafana/{name}.json");
        let text = captions(&read(&name));
        (name, text)
    });
    let manual = "src/commands/manual.roff";
    let manual = (manual.to_owned(), words(&read(manual)));
    documents.chain(commented).chain(dashboards).chain([manual]).collect()
}

/// Returns the discouraged forms that the texts use more often than allowed, with the places.
fn discouraged_forms(texts: &[(String, String)]) -> Vec<String> {
    let total: usize = texts.iter().map(|(_, words)| words.split_whitespace().count()).sum();
    assert!(total > 15_000, "only {total} words were found");
    let mut found = Vec::new();
    for &(form, limit) in DISCOURAGED {
        let form = format!(" {form} ");
        let places = texts.iter().map(|(name, words)| (name, words.matches(&form).count()));
        let places: Vec<_> = places.filter(|(_, count)| *count > 0).collect();
        let count: usize = places.iter().map(|(_, count)| count).sum();
        if count * 10_000 > limit * total {
            found.push(format!("{form}: {count} of {total} words: {places:?}"));
        }
    }
    found
}

#[test]
fn documents_keep_to_the_house_style() {
    assert_eq!(discouraged_forms(&user_texts()), [""; 0]);
}

/// Returns the Rust files of src with their text.
fn rust_sources() -> Vec<(String, String)> {
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    let sources = files_below(&["src"], "rs");
    assert!(sources.len() > 150, "sources were not found: {sources:?}");
    sources.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Returns the words of a source's comments and string literals.
fn source_texts(source: &str, literal: &Regex) -> String {
    let mut kept = String::new();
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("//") {
            kept += line;
        } else {
            literal.captures_iter(line).for_each(|found| kept = format!("{kept} {}", &found[1]));
        }
        kept.push('\n');
    }
    words(&kept)
}

#[test]
fn sources_keep_to_the_house_style() {
    let literal = Regex::new(r#""((?:[^"\\]|\\.)*)""#).unwrap();
    let sources = rust_sources();
    let texts: Vec<_> =
        sources.iter().map(|(name, source)| (name.clone(), source_texts(source, &literal))).collect();
    assert_eq!(discouraged_forms(&texts), [""; 0]);
    for (name, source) in &sources {
        let comments = source.lines().filter(|line| line.trim_start().starts_with("//"));
        for line in comments {
            let length = line.chars().count();
            assert!(
                length <= MAX_COMMENT_CHARS,
                "{name}: longer than {MAX_COMMENT_CHARS} characters: {line}"
            );
        }
    }
}

/// Returns the first lines of the documentation of functions.
fn function_docs(source: &str) -> Vec<&str> {
    let function = Regex::new(r"^(pub(\([a-z: ]+\))? )?(const )?(async )?fn ").unwrap();
    let mut docs = Vec::new();
    let mut first = None;
    for line in source.lines().map(str::trim_start) {
        if let Some(doc) = line.strip_prefix("/// ") {
            first = first.or(Some(doc));
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            docs.extend(first.take().filter(|_| function.is_match(line)));
        }
    }
    docs
}

/// RFC 1574: "Returns", not "The value of". "Like" refers to another function.
#[test]
fn function_docs_begin_with_a_verb() {
    let verb = Regex::new("^([A-Z][a-z]+s|Like)\\b").unwrap();
    let mut count = 0;
    for (name, source) in rust_sources() {
        for doc in function_docs(&source) {
            assert!(verb.is_match(doc), "{name}: {doc}");
            count += 1;
        }
    }
    assert!(count > 300, "only {count} functions were found");
}

#[test]
fn package_description_fits_one_line() {
    // Debian's policy, 3.4.1: `apt search` shows the first line of a description, of less than 80 characters.
    assert!(env!("CARGO_PKG_DESCRIPTION").len() < 80, "{}", env!("CARGO_PKG_DESCRIPTION"));
}
