//! The connection that a warm probe keeps from one run to the next: whether there is one, and what a run found of it.
//!
//! It is the HTTP client that keeps it, one for each warm probe and for as long as a configuration is in force: a reload
//! begins with new clients, so that no connection outlives its key. A kept one that the server has closed is
//! replaced by the client as long as nothing of the request was sent on it; afterwards the run fails as `disconnected`.

use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::CONNECTION;

use super::exchange::Exchange;
use crate::outcome::ConnectionUse;

/// Whether the last run left a connection for the next one.
#[derive(Debug, Default)]
pub(super) struct Kept(AtomicBool);

impl Kept {
    /// Takes note of a run, and says where its connection came from.
    pub(super) fn note(&self, exchange: &Exchange) -> ConnectionUse {
        let had_one = self.0.swap(leaves_one(exchange), Ordering::Relaxed);
        if exchange.seen.dialled.is_none() {
            ConnectionUse::Reused
        } else if had_one {
            ConnectionUse::Replaced
        } else {
            ConnectionUse::New
        }
    }
}

/// Whether the connection is good for another request (RFC 9112, 9.3; an HTTP/2 connection survives its requests).
fn leaves_one(exchange: &Exchange) -> bool {
    let Some(response) = &exchange.response else { return false };
    let closes = response.headers.get_all(CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
    });
    match response.version {
        "2" => true,
        "1.1" => exchange.failure.is_none() && !closes,
        _ => false,
    }
}
