//! A simulated LangMart and simulated providers on loopback, with scripted faults.
//!
//! The simulator uses nothing of the prober but its locks, so the two agree only if both follow the
//! protocol. One port serves every API and status page, distinguished by the first part of the path
//! ([`SimulatedService::prefix`], [`SimulatedService::status_path`]); a second port serves TLS,
//! with HTTP/1.1 and HTTP/2 by ALPN. Pauses and the record of writes use threads of their own,
//! because a tokio timer alone would be a millisecond late, and the prober's measurements are
//! compared with them.
//!
//! In reading order: [`server`](Simulator) accepts connections, `http1` and `http2` implement the
//! protocol, `answer` chooses the reaction, `scenario`, `fault` and `pace` script it, `api` holds
//! the content of each service, `record` keeps what was received and written, `timer` implements
//! pauses, `certificates` and `queue` belong to the layers below HTTP.

mod answer;
mod api;
mod certificates;
mod exchange;
mod fault;
mod http1;
mod http2;
mod pace;
mod prompt_cache;
mod queue;
mod record;
mod scenario;
mod server;
mod timer;

#[cfg(test)]
mod tests;

pub use self::{
    api::SimulatedService,
    queue::FullListener,
    record::{Recorded, Write},
    scenario::{Scenario, ScenarioError},
    server::{Options, Simulator},
};
