//! `report`: what a support ticket needs, and a ledger of outages, from the records of a period.
//!
//! `summary` aggregates the records, `markdown` formats the summary for people, with a section for
//! each `failure`. `incidents` reads the ledger, `ledger` formats it for people, `csv` for a
//! spreadsheet. `damage` is what could not be read, `durations` a bounded sample. `account` adds
//! what LangMart's account API reports. [`report`] is the command.

mod account;
mod command;
mod csv;
mod damage;
mod durations;
mod failure;
mod incidents;
mod ledger;
mod markdown;
mod summary;

pub use self::command::{PACKAGED_LOGS, Report, ReportFormat, report};
