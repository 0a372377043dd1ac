//! The map of langmart-prober.

pub mod config;
pub mod health;
pub mod metrics;
pub mod outcome;
pub mod probe;
pub mod lines;
pub mod logging;
pub mod outcome;
pub mod records;
pub mod signals;
pub mod systemd;
pub mod schedule;
