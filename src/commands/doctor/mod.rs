//! `doctor`: follows LangMart's troubleshooting guide for each provider, and ends with the likely
//! cause and a remedy.
//!
//! `plan` creates the targets of a diagnosis, regardless of the schedule. `walk` takes the steps in
//! the guide's order and stops when the next one cannot succeed. `steps` turns each outcome into a
//! line, `diagnosis` turns the steps into a cause, with the pages of `places`. `show`
//! prints them. [`doctor`] is the command.

mod command;
mod diagnosis;
mod places;
mod plan;
mod show;
mod steps;
mod walk;

pub use self::command::{Doctor, doctor};
