//! A real Prometheus next to the daemon.

use std::{net::SocketAddr, path::Path, process::Command};

use serde_json::Value;

use super::{daemon::Place, http, process::Process};

pub struct Prometheus {
    pub process: Process,
    pub address: SocketAddr,
}

impl Prometheus {
    /// Starts it with that configuration, and waits until it is ready.
    #[track_caller]
    pub fn start(place: &Place, configuration: &str) -> Self {
        Self::start_program(Path::new("prometheus"), place, configuration, &[])
    }

    /// Starts that program with these features.
    #[track_caller]
    pub fn start_program(program: &Path, place: &Place, configuration: &str, features: &[&str]) -> Self {
        place.write("prometheus.yml", configuration);
        let mut command = Command::new(program);
        command.args(features.iter().map(|feature| format!("--enable-feature={feature}")));
        command.arg(format!("--config.file={}", place.path("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", place.path("tsdb").display()));
        command.arg("--web.listen-address=127.0.0.1:0");
        let mut process = Process::start(command);
        let address = process.logs("Prometheus to be ready", |log| {
            log.contains("ready to receive").then_some(())?;
            listening(log)
        });
        Self { process, address }
    }

    /// Returns the response of its API.
    #[track_caller]
    pub fn ask(&self, path: &str) -> Value {
        let response = http::request(self.address, "GET", path).unwrap();
        let answer: Value =
            serde_json::from_str(&response.body).unwrap_or_else(|_| panic!("{path}: {response:?}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// Returns the series of a query's result, with labels and value.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded = query.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
        let data = self.ask(&format!("/api/v1/query?query={encoded}"));
        let rows = data["result"].as_array().unwrap_or_else(|| panic!("{query}: {data}"));
        let value = |row: &Value| row["value"][1].as_str().unwrap().parse().unwrap();
        rows.iter().map(|row| (row["metric"].clone(), value(row))).collect()
    }
}

/// Returns the listening address that a Go program logs.
pub fn listening(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("istening on"))?;
    line.split_once("address=")?.1.split(' ').next()?.trim_end().parse().ok()
}
