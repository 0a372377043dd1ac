//! The record of a run: one JSON object without the members that have no value.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{Check, Outcome, time::in_record};

/// Subject of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Subject<'a> {
    /// The probe's name.
    pub probe: &'a str,
    /// The provider's name.
    pub provider: &'a str,
    /// The check.
    pub check: Check,
    /// The model. `None` if the probe has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
}

/// Result record: one line of `results.jsonl` and of `once --json`. Members without a value are
/// omitted.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Subject of the run.
    pub subject: Subject<'a>,
    /// Result of the run.
    pub outcome: &'a Outcome,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(serialize_with = "in_record")]
            time: SystemTime,
            #[serde(flatten)]
            subject: Subject<'a>,
            success: bool,
            #[serde(flatten)]
            outcome: &'a Outcome,
        }
        let &Self { subject, outcome } = self;
        Line { time: outcome.time, subject, success: outcome.success(), outcome }.serialize(serializer)
    }
}
