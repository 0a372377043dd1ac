//! `report`: what a support ticket needs, from the records of a period.
//!
//! `summary` adds the records up, `markdown` writes the sums down for people, [`report`] is the command.

mod command;
mod markdown;
mod summary;

pub use self::command::{Report, report};
