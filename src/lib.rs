//! The map of langmart-prober.

pub mod config;
pub mod health;
pub mod metrics;
pub mod outcome;
pub mod server;
