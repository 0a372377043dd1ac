//! The map of langmart-prober, in reading order.
//!
//! Data flows one way: configuration, schedule, probe, outcome, then metrics, records and pages.
//!
//! **Ground**, which imports nothing of ours:
//! - [`outcome`]: the vocabulary of all parts, closed types for APIs, checks, reasons, faults, and the result record.
//! - [`cli`]: the command line.
//! - [`health`]: which parts beat, which are started again, and whether the daemon is ready.
//! - [`lines`]: files of lines that no disk can stop: bounded queue, own thread, rotation.
//! - [`signals`], [`systemd`]: what the operator and the service manager say and hear.
//! - [`simulator`]: a simulated LangMart and simulated providers with scripted faults.
//!
//! **What is asked for:**
//! - [`config`]: from a TOML file to checked, immutable types, every problem of a file at once.
//!
//! **What is done about it**, each part knowing only configuration and outcome:
//! - [`schedule`]: when to run; knows neither HTTP nor Prometheus.
//! - [`probe`]: one attempt at one target, from the lookup to the verdict.
//! - [`metrics`]: everything that is exported.
//! - [`history`]: the last hundred runs of each probe, in memory, for the pages.
//! - [`records`]: `results.jsonl`, one line for each run.
//! - [`state`]: what survives a restart: waits, the day's spending, when each probe ran last.
//! - [`logging`]: the daemon's own log.
//!
//! **Where it is seen:**
//! - [`page`]: what people and their scripts read: the status page, a page for each probe, JSON.
//! - [`server`]: the HTTP listener with `/metrics` and the pages.
//!
//! **Where it is put together:**
//! - [`commands`]: what a person runs by hand.
//! - [`daemon`]: the composition root: start, the one select loop, reload, stop.

pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod health;
pub mod history;
pub mod lines;
pub mod logging;
pub mod metrics;
pub mod outcome;
pub mod page;
pub mod probe;
pub mod records;
pub mod schedule;
pub mod server;
pub mod signals;
pub mod simulator;
pub mod state;
pub mod systemd;
