//! The HTTP listener: a thread and a runtime of its own, so that no scrape disturbs what times probes.
//!
//! [`Server`] accepts connections and bounds them; requests pass a guard against the browsers of others and then
//! the routes.

mod activity;
mod encoding;
mod guard;
mod landing;
mod listener;
mod routes;
#[cfg(test)]
mod tests;

pub use self::{
    listener::{Server, bind},
    routes::{ReloadRequest, State},
};
