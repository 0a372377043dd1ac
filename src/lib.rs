//! The map of langmart-prober.

pub mod config;
pub mod outcome;
pub mod simulator;
