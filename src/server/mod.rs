//! The HTTP listener on its own thread and runtime, so that scrapes do not disturb the timing of
//! probes.
//!
//! [`HttpServer`] accepts connections, optionally with TLS, and limits them. Requests pass
//! authentication, then the checks against DNS rebinding and CSRF, then the routes.
//!
//! - `listener` accepts and limits connections, using the `activity` of each.
//! - `waiting` limits the number of connections that wait for the same resource.
//! - `access` is the access configuration; `users` checks passwords, `guard` checks Host and
//!   Origin.
//! - `routes` answers requests; a `reply` becomes a response. `response_cache` shares rendered
//!   pages, `accept` selects their format, `encoding` compresses them, and `on_demand` runs a probe
//!   for `/probe`.

mod accept;
mod access;
mod activity;
mod encoding;
mod guard;
mod listener;
mod on_demand;
mod reply;
mod response_cache;
mod routes;
#[cfg(test)]
mod tests;
mod users;
mod waiting;

pub use self::{
    listener::{HttpServer, bind},
    on_demand::{MAX_RUN_REQUESTS, RunRequest},
    routes::{ControlHandles, ReloadRequest, ServerState},
};
