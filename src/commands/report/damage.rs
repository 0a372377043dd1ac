//! What a report does not include: damaged files, foreign lines, and what exceeds the limits.

use serde::Serialize;

use crate::records::Read;

/// What was read in vain, as members of the report's JSON.
#[derive(Debug, Default, Serialize)]
pub(super) struct Damage {
    /// Lines that are not records.
    skipped_lines: u64,
    /// Names of the compressed files that could be read in part only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged_files: Vec<String>,
    /// Runs that are not counted, because there are too many probes or failures.
    pub(super) omitted_runs: u64,
}

impl Damage {
    /// Adds what a read found.
    pub(super) fn add(&mut self, read: Read) {
        self.skipped_lines += read.skipped_lines;
        self.damaged_files.extend(read.damaged_files);
    }

    /// Returns a sentence for each kind.
    pub(super) fn sentences(&self) -> Vec<String> {
        let skipped = match self.skipped_lines {
            0 => None,
            1 => Some("1 line of the files is not a record and was skipped.".to_owned()),
            lines => Some(format!("{lines} lines of the files are not records and were skipped.")),
        };
        let omitted = match self.omitted_runs {
            0 => None,
            1 => Some("1 run is not counted: there are too many probes or failures.".to_owned()),
            runs => Some(format!("{runs} runs are not counted: there are too many probes or failures.")),
        };
        let damaged = self.damaged_files.iter();
        let damaged = damaged.map(|file| format!("{file} is damaged; only a part of its records was read."));
        skipped.into_iter().chain(omitted).chain(damaged).collect()
    }
}
