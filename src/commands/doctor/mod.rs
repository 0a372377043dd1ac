//! `doctor`: walks LangMart's guide to connection issues for each provider, and ends with the likely cause and a remedy.
//!
//! `plan` makes the probes that a walk needs, whatever the configuration schedules; `walk` takes the steps in the guide's
//! order and stops where going on makes no sense; `steps` turns each outcome into a line, `diagnosis` the walk into a
//! cause, with the commands and pages of `places`; `lookup` asks the C library beside our own resolver; `show` prints.
//! [`doctor`] is the command.

mod command;
mod diagnosis;
mod places;
mod plan;
mod show;
mod steps;
mod walk;

pub use self::command::{Doctor, doctor};
