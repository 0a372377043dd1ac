//! The daemon's own log.
//!
//! `install` sets up the subscriber and reconfigures it, `line` renders an event.

mod install;
mod line;

pub use self::install::{Logging, LoggingChange, LoggingCounters, LoggingError, StderrKind};
