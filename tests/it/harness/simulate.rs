//! The simulator in this process.

use std::net::SocketAddr;

use langmart_prober::simulator::{Options, Scenario, Simulator};

/// Starts a simulator on free ports of loopback, including HTTPS, with this scenario.
#[track_caller]
pub fn simulator(scenario: &str) -> Simulator {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = Options { listen: loopback, tls_listen: Some(loopback), scenario: parsed(scenario) };
    Simulator::start(options).unwrap()
}

/// Replaces the scenario.
#[track_caller]
pub fn play(simulator: &Simulator, scenario: &str) {
    simulator.set_scenario(parsed(scenario));
}

#[track_caller]
fn parsed(scenario: &str) -> Scenario {
    Scenario::parse(scenario).unwrap_or_else(|error| panic!("{error}\n{scenario}"))
}
