//! Checks the direction of imports in the sources against ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use regex::Regex;

/// Each part of the crate and the parts that it may import, all of them above it. What is not here is forbidden.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("cli", &[]),
    ("health", &["sync"]),
    ("lib", &[]),
    ("line_writer", &["sync"]),
    ("outcome", &[]),
    ("pieces", &[]),
    ("signals", &[]),
    ("simulator", &["sync"]),
    ("systemd", &[]),
    ("api", &["outcome"]),
    ("incidents", &["outcome"]),
    ("config", &["api", "outcome"]),
    ("logging", &["config", "line_writer", "outcome", "sync"]),
    ("metrics", &["config", "line_writer", "outcome", "pieces", "sync"]),
    ("probe", &["api", "config", "outcome", "sync"]),
    ("records", &["config", "line_writer", "outcome", "sync"]),
    ("schedule", &["config", "health", "outcome", "sync"]),
    ("state", &["line_writer", "outcome", "sync"]),
    ("history", &["config", "outcome", "sync"]),
    ("page", &["config", "history", "incidents", "metrics", "outcome"]),
    ("server", &["config", "health", "history", "metrics", "outcome", "page", "pieces", "sync"]),
    (
        "daemon",
        &[
            "config", "health", "history", "logging", "metrics", "outcome", "probe", "records", "schedule",
            "server", "signals", "state", "sync", "systemd",
        ],
    ),
    (
        "commands",
        &["api", "config", "daemon", "incidents", "outcome", "probe", "records", "signals", "simulator"],
    ),
    ("main", &["cli", "commands", "config", "daemon"]),
];

/// The modules that may read the environment and the arguments, those below them included.
const MAY_READ_ENVIRONMENT: &[&str] = &["config::environment", "daemon", "commands", "main"];

/// A path that begins with `crate`, `super`, `self`, the crate's name or `std`.
struct Import {
    line: usize,
    /// The module that it stands in, from the root of the crate.
    module: Vec<String>,
    /// The path in the source.
    written: String,
    target: Target,
}

enum Target {
    /// A path from the root of the crate.
    Own(Vec<String>),
    /// A path below `std`.
    Std(Vec<String>),
}

/// Collects the imports of one file.
struct Reader {
    module: Vec<String>,
    imports: Vec<Import>,
}

impl Reader {
    fn read(file: &Path, source: &str) -> Vec<Import> {
        let stream: TokenStream =
            source.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut reader = Self { module: module_of(file), imports: Vec::new() };
        reader.walk(stream);
        reader.imports
    }

    fn walk(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at..] {
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..]
                    if word == "mod" && body.delimiter() == Delimiter::Brace =>
                {
                    self.module.push(name.to_string());
                    self.walk(body.stream());
                    self.module.pop();
                    at += 3;
                }
                [TokenTree::Ident(_), ..] => at += self.path(&[], &tokens[at..]),
                [TokenTree::Group(group), ..] => {
                    self.walk(group.stream());
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// Reads the path that the tokens begin with, behind what stands before a group. How many tokens it takes; a path is
    /// always taken whole, so that none is seen from its middle.
    fn path(&mut self, before: &[String], tokens: &[TokenTree]) -> usize {
        let mut segments = before.to_vec();
        let mut at = 0;
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(name)) => segments.push(name.to_string()),
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => segments.push("*".to_owned()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let members: Vec<TokenTree> = group.stream().into_iter().collect();
                    for member in members.split(|token| is_punct(token, ',')) {
                        if !member.is_empty() {
                            self.path(&segments, member);
                        }
                    }
                    return at + 1;
                }
                _ => break,
            }
            at += 1;
            match &tokens[at..] {
                [first, second, ..] if is_punct(first, ':') && is_punct(second, ':') => at += 2,
                _ => break,
            }
        }
        let renamed = matches!(tokens.get(at), Some(TokenTree::Ident(word)) if word == "as");
        let called = tokens.get(at).is_some_and(|token| is_punct(token, '!'));
        let line = tokens[0].span().start().line;
        self.note(line, &segments, renamed, called);
        at
    }

    fn note(&mut self, line: usize, segments: &[String], renamed: bool, called: bool) {
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        let target = match names[..] {
            // The value, and the words of `pub(crate)` and `pub(super)`.
            ["self" | "super" | "crate" | "std" | "langmart_prober"] if !renamed => return,
            // `env!` is read when the program is built.
            ["std", "env"] if called => return,
            ["std", ..] => Target::Std(segments[1..].to_vec()),
            ["crate" | "langmart_prober", ..] => Target::Own(segments[1..].to_vec()),
            ["self" | "super", ..] => {
                let mut path = self.module.clone();
                let steps = names.iter().take_while(|name| matches!(**name, "self" | "super")).count();
                for _ in names[..steps].iter().filter(|name| **name == "super") {
                    path.pop();
                }
                path.extend_from_slice(&segments[steps..]);
                Target::Own(path)
            }
            _ => return,
        };
        let written = segments.join("::");
        self.imports.push(Import { line, module: self.module.clone(), written, target });
    }
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// Returns the module of a file below src/. That of lib.rs is called `lib`, because it must not
/// import anything either.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        file.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    module.pop_if(|name| name == "mod");
    module
}

/// Returns the violations in a file below src/, a line for each.
fn violations(file: &Path, source: &str) -> Vec<String> {
    let imports = Reader::read(file, source);
    let at = |import: &Import| format!("src/{}:{}: {}", file.display(), import.line, import.written);
    imports.iter().filter_map(|import| Some(format!("{}: {}", at(import), wrong(import)?))).collect()
}

/// Returns the rule that an import violates.
fn wrong(import: &Import) -> Option<String> {
    let part = import.module[0].as_str();
    match &import.target {
        Target::Own(path) => {
            let (_, allowed) = MAY_IMPORT.iter().find(|(name, _)| *name == part)?;
            let imported = path.first().map_or("*", String::as_str);
            let fine = imported == part || allowed.contains(&imported);
            let list = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
            (!fine).then(|| format!("{part} may import {list}"))
        }
        Target::Std(path) => {
            let module = import.module.join("::");
            let within = |allowed: &&str| {
                module.strip_prefix(*allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            // Tests may read it, to run themselves in a child process.
            let fine = path.first().is_none_or(|name| name != "env")
                || MAY_READ_ENVIRONMENT.iter().any(within)
                || import.module.iter().any(|name| name == "tests");
            (!fine).then(|| format!("only {} may use std::env", MAY_READ_ENVIRONMENT.join(", ")))
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every source file, relative to src/.
fn sources() -> Vec<PathBuf> {
    rust_files("src")
}

/// Returns the Rust files of a folder, relative to it.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let root = repository().join(folder);
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path.strip_prefix(&root).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn imports_go_one_way() {
    let read = |file: &PathBuf| fs::read_to_string(repository().join("src").join(file)).unwrap();
    let wrong: Vec<String> = sources().iter().flat_map(|file| violations(file, &read(file))).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn parts_import_only_parts_above() {
    let standing: BTreeSet<String> = sources().iter().map(|file| module_of(file)[0].clone()).collect();
    let listed: BTreeSet<String> = MAY_IMPORT.iter().map(|(part, _)| (*part).to_owned()).collect();
    assert_eq!(standing, listed, "the parts of src/, and those of the table in this file");
    for (index, (part, imports)) in MAY_IMPORT.iter().enumerate() {
        for import in *imports {
            let above = MAY_IMPORT[..index].iter().any(|(name, _)| name == import);
            assert!(above, "{part} may import {import}, which does not stand above it");
        }
    }
}

#[test]
fn table_matches_architecture_md() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let rows: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = MAY_IMPORT
        .iter()
        .map(|(part, imports)| {
            let imports = if imports.is_empty() { "nothing of ours".to_owned() } else { imports.join(", ") };
            format!("| `{part}` | {imports} |")
        })
        .collect();
    assert_eq!(rows, expected.iter().map(String::as_str).collect(), "rows of ARCHITECTURE.md, and the table");
}

#[track_caller]
fn check(file: &str, source: &str, expected: &[&str]) {
    assert_eq!(violations(Path::new(file), source), expected, "{file}:\n{source}");
}

#[test]
fn imports_are_found_wherever_they_can_be_written() {
    let probe = "probe may import api, config, outcome, sync";
    check("probe/run.rs", "use crate::config::Probe;\nuse crate::outcome;", &[]);
    check("probe/run.rs", "use super::clock; use super::super::config; use self::inner::X;", &[]);
    check(
        "probe/run.rs",
        "\nuse crate::metrics::Series;",
        &[&format!("src/probe/run.rs:2: crate::metrics::Series: {probe}")],
    );
    check(
        "probe/mod.rs",
        "use crate::{\n    config,\n    daemon::{self, run as go},\n};",
        &[
            &format!("src/probe/mod.rs:3: crate::daemon::self: {probe}"),
            &format!("src/probe/mod.rs:3: crate::daemon::run: {probe}"),
        ],
    );
    check(
        "probe/run.rs",
        "use {std::io, super::super::{server, config}};",
        &[&format!("src/probe/run.rs:1: super::super::server: {probe}")],
    );
    check(
        "probe/checks/x.rs",
        "fn f() {\n    let x: Vec<crate::records::R> = g::<super::super::super::health::H>();\n}",
        &[
            &format!("src/probe/checks/x.rs:2: crate::records::R: {probe}"),
            &format!("src/probe/checks/x.rs:2: super::super::super::health::H: {probe}"),
        ],
    );
    check(
        "outcome.rs",
        "pub(in crate::server) struct A;\npub(crate) struct B; impl B { fn f(self) -> u8 { self as u8 } }",
        &["src/outcome.rs:1: crate::server: outcome may import nothing of ours"],
    );
    check(
        "health.rs",
        "macro_rules! m { () => { $crate::config::X } } fn f() { write!(\"{}\", crate::cli::Y); }",
        &[
            "src/health.rs:1: crate::config::X: health may import sync",
            "src/health.rs:1: crate::cli::Y: health may import sync",
        ],
    );
    check(
        "cli.rs",
        "use crate as all; use crate::*; use langmart_prober::outcome;",
        &[
            "src/cli.rs:1: crate: cli may import nothing of ours",
            "src/cli.rs:1: crate::*: cli may import nothing of ours",
            "src/cli.rs:1: langmart_prober::outcome: cli may import nothing of ours",
        ],
    );
    check("lib.rs", "pub use self::outcome::Reason;", &[]);
    check(
        "lib.rs",
        "pub use crate::outcome::Reason;",
        &["src/lib.rs:1: crate::outcome::Reason: lib may import nothing of ours"],
    );
}

#[test]
fn super_resolves_within_inline_modules() {
    check("outcome.rs", "mod tests { use super::*; mod deeper { use super::super::Reason; } }", &[]);
    check(
        "outcome.rs",
        "mod tests { use super::super::config; }",
        &["src/outcome.rs:1: super::super::config: outcome may import nothing of ours"],
    );
}

#[test]
fn comments_and_strings_are_no_imports() {
    check("cli.rs", "//! [`crate::daemon`]\n/* crate::daemon */ /// crate::daemon\nstruct S;", &[]);
    check("cli.rs", r##"const A: [&str; 2] = ["crate::daemon", r#" " crate::daemon "#];"##, &[]);
    check(
        "cli.rs",
        "const A: char = '\"'; use crate::daemon; const B: char = '\"';",
        &["src/cli.rs:1: crate::daemon: cli may import nothing of ours"],
    );
}

#[test]
fn environment_is_read_in_few_files() {
    let rule = "only config::environment, daemon, commands, main may use std::env";
    for file in ["config/environment.rs", "daemon/service.rs", "commands/once.rs", "main.rs"] {
        check(file, "use std::env; fn f() { std::env::var(\"X\"); }", &[]);
    }
    check("config/load.rs", "use std::{fs, env};", &[&format!("src/config/load.rs:1: std::env: {rule}")]);
    check(
        "probe/run.rs",
        "fn f() { ::std::env::args(); }",
        &[&format!("src/probe/run.rs:1: std::env::args: {rule}")],
    );
    check("metrics/own.rs", "const V: &str = std::env!(\"V\"); mod tests { use std::env; }", &[]);
}

/// Lines of a function, from its name to its last brace.
const MAX_FUNCTION_LINES: usize = 60;

/// Collects the functions that are too long, those within functions and macros included.
fn long_functions(file: &str, stream: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            long_functions(file, group.stream(), found);
        }
        let [TokenTree::Ident(word), TokenTree::Ident(name), ..] = &tokens[at..] else { continue };
        if word != "fn" {
            continue;
        }
        let mut rest = tokens[at..].iter().take_while(|token| !is_punct(token, ';'));
        let body = rest.find_map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
            _ => None,
        });
        let lines = body.map_or(0, |body| body.span_close().end().line - word.span().start().line + 1);
        if lines > MAX_FUNCTION_LINES {
            found.push(format!("{file}: {name} has {lines} lines"));
        }
    }
}

#[test]
fn no_function_is_longer_than_a_page() {
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz"] {
        for file in rust_files(folder) {
            let file = Path::new(folder).join(file);
            let source = fs::read_to_string(repository().join(&file)).unwrap();
            long_functions(&file.display().to_string(), source.parse().unwrap(), &mut found);
        }
    }
    assert!(found.is_empty(), "at most {MAX_FUNCTION_LINES}:\n{}", found.join("\n"));
}

#[test]
fn public_types_have_unique_names() {
    let declared = Regex::new(
        r"(?m)^\s*pub (?:struct|enum|trait|type) (\w+)|^\s*(?:named|sentences)! \{\n(?:\s*(?:///|#\[).*\n)*\s*(\w+) \{",
    )
    .unwrap();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        let source = fs::read_to_string(repository().join("src").join(&file)).unwrap();
        for found in declared.captures_iter(&source) {
            let name = found.get(1).or(found.get(2)).expect("one of them matches").as_str();
            places.entry(name.to_owned()).or_default().push(file.display().to_string());
        }
    }
    assert!(places.contains_key("Outcome") && places.contains_key("Detail"), "types were not found");
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "{places:#?}");
}
