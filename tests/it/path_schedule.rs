//! Tests of probes with an interval above ten minutes, which also run soon after their first start.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{
    host::{Ask, Host},
    script::good_listener,
    table::Table,
};

/// A minute, plus the overhead of a busy machine.
const FIRST_RUN: Duration = Duration::from_secs(70);

#[test]
fn rare_probe_runs_within_a_minute_of_its_first_start() {
    let Some(mut host) = Host::new() else { return };
    host.servers(&json!([good_listener("here", "127.0.0.1:8080")]));
    let intervals = [("a", "24h"), ("b", "168h"), ("c", "11m"), ("d", "1h"), ("e", "24h")];
    let probe = |(name, interval): &(&str, &str)| {
        format!(
            "[[probe]]\nname = \"{name}\"\nprovider = \"p\"\ncheck = \"auth\"\ninterval = \"{interval}\"\n"
        )
    };
    let sections: String = intervals.iter().map(probe).collect();
    let ask = Ask { url: "http://127.0.0.1:8080/v1", checks: &[], sections: &sections, ..Ask::default() };
    let mut daemon = host.daemon(&ask.config());
    let start = Instant::now();
    let runs = |name: &str| host.results(name).len();
    while start.elapsed() < FIRST_RUN && intervals.iter().any(|(name, _)| runs(name) == 0) {
        thread::sleep(Duration::from_millis(200));
    }
    daemon.stop();
    let mut table = Table::default();
    for (name, interval) in intervals {
        let records = host.results(name);
        println!("F19 {name}, {interval}: {} runs after {:?}", records.len(), start.elapsed());
        table.expect(name, !records.is_empty(), format!("{interval}: no run"));
        table.expect(name, records.iter().all(|record| record["success"] == true), json!(records));
    }
    table.finish();
}
