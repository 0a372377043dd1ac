//! What a person runs by hand, one file for each command. Each gives the process' exit status.

mod by_hand;
mod check_config;
mod demo;
mod doctor;
mod manual;
mod once;
mod ranking;
mod report;
mod simulate;
mod table;

use std::io;

use crate::daemon;

pub use self::{
    check_config::check_config,
    demo::demo,
    doctor::{Doctor, doctor},
    manual::{completions, configuration_manual, manual},
    once::{Once, once},
    report::{Report, report},
    simulate::{Simulate, simulate},
};

/// Keeps the keys that a command is about to read out of core files, and other processes of the user out of its memory.
fn forbid_core_dumps(err: &mut impl io::Write) {
    if let Err(error) = daemon::forbid_core_dumps() {
        // Where standard error is closed there is nobody left to warn.
        let _ = writeln!(err, "warning: core dumps cannot be forbidden, keys may be in one: {error}");
    }
}

/// Everything went well.
pub const EXIT_OK: u8 = 0;
/// A probe failed, or the daemon could not start or had to end.
pub const EXIT_FAILED: u8 = 1;
/// The command line makes no sense, as clap has it too.
pub const EXIT_USAGE: u8 = 2;
/// The configuration is bad: `EX_CONFIG` of sysexits.h, which systemd is told not to restart after.
pub const EXIT_CONFIGURATION: u8 = 78;
