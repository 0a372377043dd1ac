//! A simulated LangMart and simulated providers on loopback, with scripted faults.
//!
//! It stands on its own: nothing of the prober is used here, so that the two can only agree by speaking the same
//! protocol. One port serves every API, told apart by the first part of the path ([`Provider::prefix`]); a second port
//! speaks TLS, with HTTP/1.1 and HTTP/2 by ALPN. Its pauses and its record of every write run on threads of its own,
//! since a tokio timer alone would be a millisecond late and a prober is measured against it.
//!
//! In reading order: [`server`](Simulator) accepts, `http1` and `http2` speak the protocol, `answer` decides what to say,
//! `scenario`, `fault` and `pace` script what goes wrong and how fast, `api` holds what each real service would say, `record` keeps what was
//! received and written, `timer` paces, `certificates` and `queue` are for the layers below HTTP.

mod answer;
mod api;
mod certificates;
mod exchange;
mod fault;
mod http1;
mod http2;
mod pace;
mod queue;
mod record;
mod scenario;
mod server;
mod timer;

#[cfg(test)]
mod tests;

pub use self::{
    api::Provider,
    queue::FullListener,
    record::{Recorded, Write},
    scenario::{Scenario, ScenarioError},
    server::{Options, Simulator},
};
