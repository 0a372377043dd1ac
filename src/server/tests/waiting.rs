//! Requests that wait, in numbers that could block other clients.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;
use crate::config::Secret;

#[track_caller]
fn check_busy(reply: &Reply) {
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{reply:?}");
}

#[test]
fn probe_callers_beyond_a_quarter_are_refused_at_once() {
    let mut running = Running::start(LIMITS);
    let acme = Arc::new(provider("acme", Api::Langmart));
    running.history.configure(&config(vec![Arc::new(probe("auth", &acme, Task::Auth))]), |_| String::new());
    let address = running.address.to_string();
    let mut asking = Vec::new();
    let mut pending = Vec::new();
    for _ in 0..LIMITS.connections / 4 {
        asking.push(running.ask_for_run("auth", &address, ""));
        pending.push(running.run_requests.blocking_recv().unwrap());
    }
    for _ in 0..2 * LIMITS.connections {
        check_busy(&running.ask("GET /probe?target=auth", ""));
        assert_eq!(running.ask("GET /metrics", "").status, 200);
        assert_eq!(running.ask("GET /-/healthy", "").status, 200);
    }
    let run = || OnDemandResult::Ran(Arc::new(Outcome::new(SystemTime::now(), Reason::Ok, Fault::None)));
    pending.pop().unwrap().answer.send(run()).unwrap();
    assert_eq!(asking.pop().unwrap().join().unwrap().status, 200);
    let again = running.ask_for_run("auth", &address, "");
    running.run_requests.blocking_recv().unwrap().answer.send(run()).unwrap();
    assert_eq!(again.join().unwrap().status, 200, "its place is free again");
}

#[test]
fn reload_callers_leave_connections_to_others() {
    let mut running = Running::start(LIMITS);
    let post = running.head("POST /-/reload", "content-length: 0\r\nconnection: close\r\n");
    let mut first = running.connect();
    first.write_all(post.as_bytes()).unwrap();
    let reload = running.reloads.blocking_recv().unwrap();
    let mut callers: Vec<_> = (0..2 * LIMITS.connections)
        .map(|_| {
            let mut caller = running.connect();
            caller.write_all(post.as_bytes()).unwrap();
            caller
        })
        .collect();
    assert_eq!(running.ask("GET /metrics", "").status, 200);
    assert_eq!(running.ask("GET /-/healthy", "").status, 200);
    check_busy(&Reply::parse(&read_to_end(callers.last_mut().unwrap())));
    reload.answer.send(Ok(())).unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut first)).status, 200);
}

#[test]
fn password_checks_beyond_a_quarter_are_refused_at_once() {
    // One check takes far longer than all the requests.
    let running = Running::start(LIMITS);
    let hash = Secret::new(bcrypt::hash("wonderland", 13).unwrap());
    let users = [("alice".to_owned(), hash)].into();
    running.state.reconfigure(&config::Server { users, ..configured(&[]) });
    let authorization =
        |password: &str| format!("authorization: Basic {}\r\n", BASE64_STANDARD.encode(password));
    let alice = authorization("alice:wonderland");
    assert_eq!(running.ask("GET /metrics", &alice).status, 200);
    let guesses: Vec<_> = (0..LIMITS.connections - 1)
        .map(|guess| {
            let mut stream = running.connect();
            let headers = authorization(&format!("alice:{guess}")) + "connection: close\r\n";
            stream.write_all(running.head("GET /metrics", &headers).as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(running.ask("GET /metrics", &alice).status, 200);
    assert_eq!(running.ask("GET /-/healthy", &alice).status, 200);
    let replies = guesses.into_iter().map(|mut stream| Reply::parse(&read_to_end(&mut stream)));
    let (checked, refused): (Vec<_>, Vec<_>) = replies.partition(|reply| reply.status == 401);
    assert!(checked.iter().all(|reply| reply.header("www-authenticate").is_some()));
    assert!(refused.len() >= checked.len(), "{} of {}", refused.len(), checked.len());
    refused.iter().for_each(check_busy);
}
