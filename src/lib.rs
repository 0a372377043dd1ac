//! The map of langmart-prober.

pub mod commands;
pub mod config;
pub mod outcome;
