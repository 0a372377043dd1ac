//! Prints a diagnosis: lines for people as the steps are taken, or one JSON object at the end.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    diagnosis::Diagnosis,
    plan::Plan,
    steps::{Step, Verdict},
    walk::Found,
};

/// Maximum width of a line of the diagnosis; longer sentences are wrapped.
const WIDTH: usize = 110;

/// Column at which the sentences start.
const INDENT: usize = 25;

/// The printer of one provider's diagnosis.
pub(super) struct Show<'a, W> {
    pub(super) out: &'a mut W,
    pub(super) json: bool,
    pub(super) colour: bool,
}

/// A diagnosis as JSON.
#[derive(Serialize)]
struct Walk<'a> {
    provider: &'a str,
    api: &'static str,
    ok: bool,
    steps: &'a [Step],
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnosis: Option<&'a Diagnosis>,
}

impl<W: Write> Show<'_, W> {
    pub(super) fn begin(&mut self, plan: &Plan) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let name = self.painted("1", &plan.provider.name);
        writeln!(self.out, "{name}")?;
        self.out.flush()
    }

    /// Prints a step immediately, because the next one may take a while.
    pub(super) fn step(&mut self, step: &Step) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let (word, colour) = match step.verdict {
            Verdict::Ok => ("ok", "32"),
            Verdict::Note => ("note", "33"),
            Verdict::Failed => ("FAILED", "31"),
            Verdict::Skipped => ("-", "2"),
        };
        let word = self.painted(colour, &format!("{word:<6}"));
        writeln!(self.out, "  {word}  {:<13}  {}", step.name, step.text)?;
        self.out.flush()
    }

    pub(super) fn end(&mut self, plan: &Plan, found: &Found) -> io::Result<()> {
        if self.json {
            let walk = Walk {
                provider: &plan.provider.name,
                api: plan.provider.api.name(),
                ok: found.diagnosis.is_none(),
                steps: &found.steps,
                diagnosis: found.diagnosis.as_ref(),
            };
            writeln!(self.out, "{}", serde_json::to_string(&walk)?)?;
            return self.out.flush();
        }
        match &found.diagnosis {
            None => {
                let in_maintenance = found.steps.iter().any(Step::reports_maintenance);
                let verdict = if in_maintenance {
                    self.painted("33", "Every step succeeded, during maintenance: see the status page above.")
                } else {
                    self.painted("32", "Everything works.")
                };
                writeln!(self.out, "  {verdict}")?;
            }
            Some(diagnosis) => self.diagnosis(diagnosis)?,
        }
        if plan.could_generate && plan.completions() == 0 {
            writeln!(
                self.out,
                "  No completion was sent, because it consumes tokens; --generate sends one."
            )?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    fn diagnosis(&mut self, diagnosis: &Diagnosis) -> io::Result<()> {
        let Diagnosis { chapter, cause, remedies, commands } = diagnosis;
        let title = |title: &str, more: bool| format!("  {:<21}  ", if more { "" } else { title });
        let most_likely = self.painted("1", &title("Most likely", false));
        writeln!(self.out, "{most_likely}{}", folded(cause))?;
        writeln!(self.out, "{}{chapter}", title("The guide's chapter", false))?;
        for (index, remedy) in remedies.iter().enumerate() {
            writeln!(self.out, "{}{}", title("What to do", index > 0), folded(remedy))?;
        }
        // Never wrapped, so that they can be copied.
        for (index, command) in commands.iter().enumerate() {
            writeln!(self.out, "{}{command}", title("To reproduce", index > 0))?;
        }
        Ok(())
    }

    /// Returns the text with the ECMA-48 colour, if colours are enabled.
    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Wraps a sentence; continuation lines are indented to its start.
fn folded(text: &str) -> String {
    let mut folded = String::new();
    let mut column = INDENT;
    for word in text.split(' ') {
        let width = word.chars().count();
        if !folded.is_empty() && column + 1 + width > WIDTH {
            folded.push('\n');
            folded.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else if !folded.is_empty() {
            folded.push(' ');
            column += 1;
        }
        folded.push_str(word);
        column += width;
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_coloured_only_on_request() {
        let step = Step::new("tcp", Verdict::Failed, "connection refused");
        for (colour, expected) in [
            (false, "  FAILED  tcp            connection refused\n"),
            (true, "  \x1b[31mFAILED\x1b[0m  tcp            connection refused\n"),
        ] {
            let mut out = Vec::new();
            Show { out: &mut out, json: false, colour }.step(&step).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn sentences_are_wrapped_between_words() {
        assert_eq!(folded("short"), "short");
        let long = format!("{} b {}", "a".repeat(WIDTH - INDENT - 2), "c".repeat(200));
        let indent = " ".repeat(INDENT);
        assert_eq!(folded(&long), format!("{} b\n{indent}{}", "a".repeat(83), "c".repeat(200)));
    }
}
