//! The modules of langmart-prober, in reading order.
//!
//! Data flows one way: configuration, schedule, probe, outcome, then metrics, records and pages.
//!
//! **Foundation**, which imports nothing of the crate but locks:
//! - [`outcome`]: the vocabulary of all modules: closed types for APIs, checks, reasons and faults,
//!   and the result record.
//! - [`cli`]: the command line.
//! - [`health`]: liveness of the daemon's parts, restarts, and readiness.
//! - [`line_writer`]: log files written by a thread: bounded queue, rotation.
//! - [`pieces`]: large pages, whose memory returns to the system.
//! - [`signals`], [`systemd`]: commands of the operator, notifications to the service manager.
//! - [`sync`]: locks that ignore poisoning.
//! - [`simulator`]: a simulated LangMart and simulated providers with scripted faults.
//!
//! **Facts:**
//! - [`api`]: a file for each API: URLs, keys, pages, error codes, dialect.
//!
//! **Configuration:**
//! - [`config`]: from a TOML file to checked, immutable types; reports every problem of a file at
//!   once.
//!
//! **Probing**, independent of each other; ARCHITECTURE.md lists what each imports:
//! - [`schedule`]: when to run; knows neither HTTP nor Prometheus.
//! - [`probe`]: one attempt at one target, from DNS lookup to classification.
//! - [`metrics`]: `/metrics`: names, values and formats.
//! - [`history`]: the last hundred runs of each probe, in memory, for the pages.
//! - [`incidents`]: outages, from the runs of all probes in order.
//! - [`records`]: `results.jsonl`, one line per run.
//! - [`state`]: what survives a restart: backoff, the day's spending, last runs.
//! - [`logging`]: the daemon's own log.
//!
//! **Presentation:**
//! - [`page`]: the status page, a page per probe, JSON.
//! - [`server`]: the HTTP listener with `/metrics` and the pages.
//!
//! **Composition:**
//! - [`commands`]: commands that people run by hand.
//! - [`daemon`]: the composition root: start order, the select loop, reload, stop.

pub mod api;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod health;
pub mod history;
pub mod incidents;
pub mod line_writer;
pub mod logging;
pub mod metrics;
pub mod outcome;
pub mod page;
pub mod pieces;
pub mod probe;
pub mod records;
pub mod schedule;
pub mod server;
pub mod signals;
pub mod simulator;
pub mod state;
pub mod sync;
pub mod systemd;
