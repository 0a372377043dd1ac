//! A table of cases: every row is printed with its reference, and all that differ are reported at
//! the end.

use std::fmt::Display;

use serde_json::Value;

/// Rows of one test.
#[derive(Default)]
pub struct Table {
    failures: Vec<String>,
}

impl Table {
    /// Prints a row and compares a record with a verdict such as `dns network`, and with what its detail contains.
    /// A verdict without a fault is met with any; an empty one is met by every record. The phases of every record
    /// sum to its duration, and failures alone have a hint.
    pub fn row(&mut self, case: &str, record: &Value, verdict: &str, detail: &str, reference: impl Display) {
        let check = record["check"].as_str().unwrap_or_default();
        let found = verdict_of(record);
        let said = record["detail"].as_str().unwrap_or_default();
        let seconds = record["duration_seconds"].as_f64().unwrap_or_default();
        let case = format!("{case}, {check}");
        println!("{case:<44} | ours: {found}, {said:?} in {seconds:.2} s | {reference}");
        let is_met = if verdict.contains(' ') { found == verdict } else { found.starts_with(verdict) };
        if !is_met || !said.contains(detail) {
            self.failures.push(format!("{case}: not {verdict:?} with {detail:?}: {record}"));
        }
        if let Some(phases) = record["phases"].as_object() {
            let sum: f64 = phases.values().filter_map(Value::as_f64).sum();
            self.expect(&case, (sum - seconds).abs() < 0.001, format!("the phases sum to {sum} s: {record}"));
            let has_hint = record["hint"].is_string();
            self.expect(&case, has_hint != (record["success"] == true), format!("hint: {record}"));
        }
    }

    /// Records a failure unless the condition is true.
    pub fn expect(&mut self, case: &str, is_so: bool, otherwise: impl Display) {
        if !is_so {
            println!("{case:<44} | {otherwise}");
            self.failures.push(format!("{case}: {otherwise}"));
        }
    }

    /// Fails with all rows that differ.
    #[track_caller]
    pub fn finish(self) {
        let count = self.failures.len();
        assert!(count == 0, "{count} differ:\n{}", self.failures.join("\n"));
    }
}

/// Returns reason and fault of a record.
pub fn verdict_of(record: &Value) -> String {
    let text = |member: &str| record[member].as_str().unwrap_or_default();
    format!("{} {}", text("reason"), text("fault"))
}
