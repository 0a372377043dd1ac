//! The log: where its lines go, how they look, and what never gets into them.
//!
//! `install` puts the subscriber together and changes it over a reload, `line` renders an event.

mod install;
mod line;

pub use self::install::{Logging, LoggingChange, LoggingCounters, LoggingError, Surroundings};
