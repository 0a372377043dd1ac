//! `explain`: prints what a reason means, from the table of the documentation.

use std::io::{self, Write};

use super::{
    EXIT_OK, EXIT_USAGE,
    table::{WIDTH, wrap},
};
use crate::outcome::{BackoffClass, Reason};

/// The page whose table describes every reason; a test compares it with the code.
const PAGE: &str = include_str!("../../docs/concepts/reasons.md");

/// Prints a reason: when it is given, the possible faults, and the remedy. Returns the exit status.
pub fn explain(name: &str, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let Some(reason) = Reason::ALL.iter().find(|reason| reason.name() == name) else {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let known = wrap(&format!("the reasons are: {}", names.join(", ")), WIDTH);
        writeln!(err, "{name:?} is not a reason;\n{known}")?;
        return Ok(EXIT_USAGE);
    };
    let info = reason.info();
    let (when, faults) = row(*reason);
    writeln!(out, "{reason}: {}\n", info.summary)?;
    let mut paragraph = |title: &str, text: &str| match text {
        "" => Ok(()),
        text => writeln!(out, "{}", wrap(&format!("{title}: {text}"), WIDTH)),
    };
    paragraph("When", &when)?;
    paragraph("Fault", &faults)?;
    paragraph("What to do", info.remedy)?;
    let backoff = match info.backoff {
        BackoffClass::None => "",
        BackoffClass::Short => "without a hint of the service, up to four intervals",
        BackoffClass::Long => "without a hint of the service, doubled with each failure up to max_backoff",
    };
    paragraph("Backoff", backoff)?;
    out.flush()?;
    Ok(EXIT_OK)
}

/// Returns when a reason is given, and its faults, without marks of Markdown.
fn row(reason: Reason) -> (String, String) {
    let mark = format!("| `{reason}` | ");
    let cells = PAGE.lines().find_map(|line| line.strip_prefix(&mark)).unwrap_or_default();
    let mut cells = cells.split(" | ").map(|cell| cell.trim_end_matches(" |").replace('`', ""));
    (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(name: &str) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = explain(name, &mut out, &mut err).unwrap();
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn every_reason_is_explained_within_80_columns() {
        for reason in Reason::ALL {
            let (status, out, _) = explained(reason.name());
            assert_eq!(status, EXIT_OK);
            assert!(out.contains("\nWhen: ") && out.contains("\nFault: "), "{out}");
            assert_eq!(out.contains("\nWhat to do: "), *reason != Reason::Ok, "{out}");
            assert!(out.lines().all(|line| line.chars().count() <= 80) && !out.contains('|'), "{out}");
        }
    }

    #[test]
    fn unknown_reason_is_a_usage_error() {
        let (status, out, err) = explained("rate-limited");
        assert_eq!((status, out.as_str()), (EXIT_USAGE, ""));
        assert!(err.starts_with("\"rate-limited\" is not a reason;\nthe reasons are: ok, dns, "), "{err}");
    }
}
