//! `report`: what a support ticket needs, from the records of a period.
//!
//! `summary` aggregates the records, `markdown` formats the summary for people, [`report`] is the
//! command.

mod command;
mod markdown;
mod summary;

pub use self::command::{PACKAGED_LOGS, Report, report};
