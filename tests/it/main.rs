//! The integration tests, in one binary: real sockets, real TLS, and the simulator.

#![expect(unreachable_pub, reason = "the harness is shared by modules of one binary")]
#![expect(clippy::float_cmp, reason = "counts and flags are whole numbers, which f64 holds exactly")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

mod access;
mod alerts;
mod answers;
mod attack;
mod backoff;
mod blackbox;
mod budget;
mod canary;
mod comparison;
mod config;
mod curl;
mod daemon;
mod disk;
mod doctor;
mod documents;
mod files;
mod fixtures;
mod fuzz;
mod hard_machine;
mod hard_ports;
mod hard_search;
mod harness;
mod history;
mod imports;
mod include;
mod journal;
mod listener;
mod liveness;
mod manual;
mod mistakes;
mod network;
mod once;
mod pacing;
mod page;
mod path_dial;
mod path_fairness;
mod path_flood;
mod path_hosts;
mod path_http;
mod path_leaks;
mod path_proxy;
mod path_resolver;
mod path_schedule;
mod path_status;
mod path_tls;
mod path_warm;
mod percentiles;
mod phases;
mod prometheus;
mod proxies;
mod refusals;
mod reload;
mod service;
mod state;
mod status;
mod stream;
mod stream_simulated;
mod systemd;
mod transport;
mod variants;
mod variations;
mod warm;
