//! Shared test code: the daemon as a process, a server that plays scripted bytes, probes without
//! configuration files.

pub mod browser;
pub mod certificates;
pub mod daemon;
pub mod flood;
pub mod host;
pub mod http;
pub mod lab;
pub mod parts;
pub mod probes;
pub mod process;
pub mod prometheus;
pub mod random;
pub mod raw;
pub mod scrape;
pub mod script;
pub mod simulate;
pub mod table;
pub mod tunnel;
pub mod wait;
