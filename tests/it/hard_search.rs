//! Searches of bodies: they count in the timeout of the run.

use std::{fmt::Write, time::Instant};

use crate::harness::{
    daemon::{KEY, Place, records},
    raw::RawServer,
};

/// Searches at a time. Each takes about a second of a processor, more in a build for tests.
const SEARCHES: usize = 40;

/// Seconds within which all must be over: far beyond the timeout, and far below what all searches take.
const LIMIT: u64 = 15;

/// Digits 0 and 1 at random, which no pattern of the next test matches.
fn digits(count: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 1 { '1' } else { '0' }
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn search_for_body_regex_counts_in_the_timeout() {
    let server = RawServer::start();
    let body = digits(64 << 10);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    server.play((head + &body).into_bytes());
    let mut config = format!(
        "[schedule]\nmax_concurrent = {SEARCHES}\nmax_concurrent_per_provider = {SEARCHES}\n[provider.openai]\n\
         base_url = \"http://{}/v1\"\n{KEY}\nchecks = []\n",
        server.address
    );
    for number in 0..SEARCHES {
        let expect = "expect = { body_regex = \"1[01]{300}[2-9]\" }";
        writeln!(
            config,
            "[[probe]]\nname = \"p{number}\"\nprovider = \"openai\"\ncheck = \"http\"\npath = \"/x\"\n\
             timeout = \"3s\"\n{expect}"
        )
        .unwrap();
    }
    let begun = Instant::now();
    let output = Place::new(&config).run("once", &["--json"]);
    let took = begun.elapsed();
    let records = records(&output.stdout);
    assert_eq!(records.len(), SEARCHES, "{}", String::from_utf8_lossy(&output.stderr));
    let late = records.iter().filter(|record| record["reason"] == "timeout").inspect(|record| {
        assert!(record["detail"].as_str().unwrap().contains("expect.body_regex"), "{record}");
        assert_eq!(record["fault"], "provider");
    });
    println!("{} of {SEARCHES} were late, all were over after {took:?}", late.count());
    for record in &records {
        let reason = record["reason"].as_str().unwrap();
        assert!(["timeout", "unmet_expectation"].contains(&reason), "{record}");
    }
    assert!(records.iter().any(|record| record["reason"] == "timeout"), "all were in time: {took:?}");
    assert!(took.as_secs() < LIMIT, "the searches took {took:?}");
}
