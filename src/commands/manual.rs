//! `man`: manual pages, generated from the types of the command line and from the example
//! configuration.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};

use super::EXIT_OK;

/// The sections of the program's page after its commands.
const SECTIONS: &str = include_str!("manual.roff");

/// The example configuration, which has every key with its meaning and default; a test compares it
/// with the loader.
const EXAMPLE: &str = include_str!("../../config.toml.example");

/// The prefix of example values of keys without a default.
const EXAMPLE_MARK: &str = "#e.g. ";

/// Prints langmart-prober(1): `command` with all its subcommands on one page. Returns the exit
/// status.
pub fn manual(command: Command, out: &mut impl Write) -> io::Result<u8> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let page = Man::new(command.clone())
        .title("LANGMART-PROBER")
        .date("")
        .source(format!("langmart-prober {}", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    Roff::new().control("SH", ["COMMANDS"]).to_writer(out)?;
    for subcommand in command.get_subcommands() {
        Roff::new().control("SS", [subcommand.get_name()]).to_writer(out)?;
        let part = Man::new(subcommand.clone());
        let mut text = Vec::new();
        part.render_synopsis_section(&mut text)?;
        writeln!(text, ".PP")?;
        part.render_description_section(&mut text)?;
        part.render_options_section(&mut text)?;
        // Section titles are not allowed within a section.
        for line in String::from_utf8_lossy(&text).lines().filter(|line| !line.starts_with(".SH ")) {
            writeln!(out, "{line}")?;
        }
    }
    out.write_all(SECTIONS.as_bytes())?;
    out.flush()?;
    Ok(EXIT_OK)
}

/// Prints langmart-prober.toml(5), from the example configuration. Returns the exit status.
pub fn configuration_manual(out: &mut impl Write) -> io::Result<u8> {
    let source = format!("langmart-prober {}", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["LANGMART-PROBER.TOML", "5", "", &source, "File Formats"]);
    page.control("SH", ["NAME"]);
    page.text([roman("langmart-prober.toml - configuration of langmart-prober")]);
    page.control("SH", ["DESCRIPTION"]);
    // The text before the first blank line describes the file; the rest belongs to sections and
    // keys.
    let (header, body) = EXAMPLE.split_once("\n\n").unwrap_or((EXAMPLE, ""));
    // The line about the marks of defaults and examples does not apply to the page.
    page.text([roman(words(header.lines().filter(|line| !line.starts_with("# A line like"))))]);
    page.control("SH", ["KEYS"]);
    for block in entries(body) {
        block.render(&mut page);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("langmart-prober"), roman("(1)")]);
    page.to_writer(out)?;
    out.flush()?;
    Ok(EXIT_OK)
}

/// Consecutive lines of the example that belong together.
#[derive(Debug, Default)]
struct Entry<'a> {
    /// The comment above the lines.
    comment: Vec<&'a str>,
    /// `[section]`, or `key = value` lines as written.
    lines: Vec<&'a str>,
}

impl Entry<'_> {
    fn render(&self, page: &mut Roff) {
        let comment = words(self.comment.iter().copied());
        let Some(first) = self.lines.first() else {
            return;
        };
        if first.starts_with('[') {
            page.control("SS", [*first]);
            if !comment.is_empty() {
                page.text([roman(comment)]);
            }
            return;
        }
        let (name, _) = assignment(first).expect("the entry began with an assignment");
        page.control("TP", []);
        page.text([bold(name)]);
        if !comment.is_empty() {
            page.text([roman(comment)]);
            page.control("br", []);
        }
        for (index, line) in self.lines.iter().enumerate() {
            if index > 0 {
                page.control("br", []);
            }
            page.text(shown(line));
        }
    }
}

/// Returns a line with a key as a description and the assignment.
fn shown(line: &str) -> Vec<Inline> {
    let written = assignment(line).map_or(line, |(_, written)| written);
    let what = if line.starts_with("# ") { "Default: " } else { "Example: " };
    vec![roman(what), italic(written)]
}

/// Returns the sections and keys of the example in order, each with the comment above it.
fn entries(body: &str) -> Vec<Entry<'_>> {
    let mut entries = vec![Entry::default()];
    for line in body.lines() {
        let last = entries.last_mut().expect("there is one from the start");
        if line.starts_with('[') || assignment(line).is_some() {
            let other = last.lines.first().is_some_and(|first| key(first) != key(line));
            if other {
                entries.push(Entry::default());
            }
            entries.last_mut().expect("there is one from the start").lines.push(line);
        } else if let Some(comment) = line.strip_prefix('#') {
            if last.lines.is_empty() {
                last.comment.push(comment);
            } else {
                entries.push(Entry { comment: vec![comment], lines: Vec::new() });
            }
        }
    }
    entries
}

/// Returns what identifies the lines of one key: its name, or the whole line.
fn key(line: &str) -> &str {
    assignment(line).map_or(line, |(name, _)| name)
}

/// Returns the key that a line assigns, and the assignment without the mark of a default or an
/// example.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let written = line.strip_prefix(EXAMPLE_MARK).or_else(|| line.strip_prefix("# ")).unwrap_or(line);
    let (name, _) = written.split_once(" = ")?;
    let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    (!name.is_empty() && name.chars().all(plain)).then_some((name, written))
}

/// Joins comment lines to one paragraph.
fn words<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = lines.flat_map(|line| line.trim_start_matches('#').split_whitespace()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_page_has_every_key_of_the_example() {
        let mut out = Vec::new();
        assert_eq!(configuration_manual(&mut out).unwrap(), EXIT_OK);
        let page = String::from_utf8(out).unwrap();
        let mut count = 0;
        for line in EXAMPLE.lines() {
            if let Some((name, _)) = assignment(line) {
                assert!(page.contains(&format!("\\fB{name}\\fR")), "{name}: {page}");
                count += 1;
            } else if line.starts_with('[') {
                assert!(page.contains(&format!(".SS {line}\n")), "{line}: {page}");
            }
        }
        assert!(count > 50, "{count} keys");
    }

    #[test]
    fn key_has_its_comment_default_and_examples() {
        let body = "[log]\n# error or warn,\n# for one.\n# level = \"info\"\n#e.g. level = \"warn\"\n# stderr = true\n";
        let mut page = Roff::new();
        for entry in entries(body) {
            entry.render(&mut page);
        }
        let page = page.to_roff();
        assert_eq!(
            page,
            ".SS [log]\n.TP\n\\fBlevel\\fR\nerror or warn, for one.\n.br\nDefault: \\fIlevel = \"info\"\\fR\n.br\n\
             Example: \\fIlevel = \"warn\"\\fR\n.TP\n\\fBstderr\\fR\nDefault: \\fIstderr = true\\fR\n"
        );
    }
}
