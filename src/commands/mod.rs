//! The commands that people run by hand, one module each. Each returns the exit status of the
//! process.

mod check_config;
mod command_line;
mod completions;
mod demo;
mod doctor;
mod explain;
mod init;
mod manual;
mod once;
mod ranking;
mod report;
mod simulate;
mod table;

use std::io;

use crate::daemon;

pub use self::{
    check_config::{CheckConfig, Form, check_config},
    completions::completions,
    demo::demo,
    doctor::{Doctor, doctor},
    explain::explain,
    init::init,
    manual::{configuration_manual, manual},
    once::{Once, once},
    report::{PACKAGED_LOGS, Report, ReportFormat, report},
    simulate::{Simulate, simulate},
};

/// Excludes the keys that a command is about to read from core dumps, and prevents other processes
/// of the user from reading its memory.
fn forbid_core_dumps(err: &mut impl io::Write) {
    if let Err(error) = daemon::forbid_core_dumps() {
        // Write errors of standard error are ignored.
        let _ = writeln!(err, "warning: failed to disable core dumps, which may contain keys: {error}");
    }
}

/// Exit status of success.
pub const EXIT_OK: u8 = 0;
/// Exit status if a probe failed, or the daemon could not start or had to end.
pub const EXIT_FAILED: u8 = 1;
/// Exit status of a usage error, the same as clap's.
pub const EXIT_USAGE: u8 = 2;
/// Exit status of an invalid configuration: `EX_CONFIG` of sysexits.h, after which systemd does not
/// restart the unit.
pub const EXIT_CONFIGURATION: u8 = 78;
