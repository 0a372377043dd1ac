//! The HTTP listener: a thread and a runtime of its own, so that no scrape disturbs what times probes.
//!
//! [`Server`] accepts connections and bounds them, over TLS where there is a certificate; requests pass users'
//! passwords where there are any, then a guard against the browsers of others, and then the routes.
//!
//! - `listener` accepts and bounds connections, by what `activity` knows of each.
//! - `waiting` bounds how many of them wait for the same thing.
//! - `access` is what the configuration says of who may come in; `users` checks passwords, `guard` Host and Origin.
//! - `routes` answers: `pages` shares what was rendered, `encoding` compresses, `demand` runs a probe for `/probe`.

mod access;
mod activity;
mod demand;
mod encoding;
mod guard;
mod listener;
mod pages;
mod routes;
#[cfg(test)]
mod tests;
mod users;
mod waiting;

pub use self::{
    demand::{MOST_RUN_REQUESTS, RunRequest},
    listener::{Server, bind},
    routes::{ReloadRequest, State, Wishes},
};
