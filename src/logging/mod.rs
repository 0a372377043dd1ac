//! The log: where its lines go, how they look, and what never gets into them.

mod install;
mod line;

pub use self::install::{Logging, LoggingChange, LoggingCounters, LoggingError, Surroundings};
