//! Clients that are slow, idle, broken or too many, and the end of their connections.

use super::*;

#[test]
fn body_of_a_request_is_not_read() {
    let mut running = Running::start(LIMITS);
    let mut stream = running.connect();
    let head = running.head("POST /-/reload", "content-length: 1000000000\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    running.reloads.blocking_recv().unwrap().answer.send(Ok(())).unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut stream)).status, 200);
}

#[test]
fn slow_head_times_out() {
    let timeouts = Timeouts { head: Duration::from_millis(100), ..LIMITS.timeouts };
    let running = Running::start(Limits { timeouts, ..LIMITS });
    let mut silent = running.connect();
    let mut slow = running.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").unwrap();
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(read_to_end(&mut slow), b"");
    let mut kept = running.connect();
    kept.write_all(running.head("GET /-/healthy", "").as_bytes()).unwrap();
    let mut first = [0; 12];
    kept.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    kept.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    assert!(read_to_end(&mut kept).ends_with(b"healthy\n"), "the second head times out like the first");
}

#[test]
fn idle_connection_times_out() {
    let timeouts = Timeouts { idle: Duration::from_millis(100), ..LIMITS.timeouts };
    let running = Running::start(Limits { timeouts, ..LIMITS });
    let mut stream = running.connect();
    stream.write_all(running.head("GET /-/healthy", "").as_bytes()).unwrap();
    let reply = Reply::parse(&read_to_end(&mut stream));
    assert_eq!((reply.status, reply.text()), (200, "healthy\n"));
}

#[test]
fn stalled_clients_do_not_block_others() {
    let running = Running::start_large(LIMITS);
    let stalled: Vec<_> = (0..LIMITS.connections - 1)
        .map(|_| {
            let mut stream = running.connect();
            stream.write_all(running.head("GET /metrics", "").as_bytes()).unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    assert_eq!(running.ask("GET /metrics", "").status, 200);
    // Beyond the maximum number of connections, the one that has stalled for longest is closed.
    let mut last = running.connect();
    last.write_all(running.head("GET /metrics", "").as_bytes()).unwrap();
    last.read_exact(&mut [0; 12]).unwrap();
    let page = running.ask("GET /metrics", "");
    assert_eq!(page.status, 200);
    let taken = read_to_end(&mut stalled.into_iter().next().unwrap()).len();
    assert!(taken < page.body.len(), "{taken} bytes were received nevertheless");
}

#[test]
fn stalled_client_times_out() {
    let timeouts = Timeouts { request: Duration::from_millis(300), ..LIMITS.timeouts };
    let running = Running::start_large(Limits { timeouts, ..LIMITS });
    let mut stalled = running.connect();
    stalled.write_all(running.head("GET /metrics", "").as_bytes()).unwrap();
    let start = Instant::now();
    // Writes to an open connection are buffered; writes to a closed one fail.
    while stalled.write(b"\n").is_ok() {
        assert!(start.elapsed() < TEST_TIMEOUT, "it never times out");
        thread::sleep(Duration::from_millis(1));
    }
    let taken = read_to_end(&mut stalled).len();
    assert!(taken < running.ask("GET /metrics", "").body.len(), "{taken} bytes were received nevertheless");
}

#[test]
fn pipelined_requests_share_a_rendering() {
    let running = Running::start_large(LIMITS);
    let mut stream = running.connect();
    let start = Instant::now();
    running.ask("GET /metrics", "");
    let one = start.elapsed();
    let count = 2_000;
    let heads = running.head("HEAD /metrics", "").repeat(count)
        + &running.head("GET /nowhere", "connection: close\r\n");
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all(heads.as_bytes()));
    let start = Instant::now();
    let answers = String::from_utf8(read_to_end(&mut stream)).unwrap();
    writing.join().unwrap().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), count);
    let took = start.elapsed();
    assert!(took < one * count as u32 / 4, "{took:?}, where one takes {one:?}");
}

#[test]
fn too_many_headers_are_refused() {
    let running = Running::start(LIMITS);
    let many = "x: y\r\n".repeat(200);
    assert_eq!(running.ask("GET /metrics", &many).status, 431);
    let long = format!("x: {}\r\n", "y".repeat(15_000));
    assert_eq!(running.ask("GET /metrics", &long).status, 200);
    let mut stream = running.connect();
    let endless = format!("GET /metrics HTTP/1.1\r\nx: {}", "y".repeat(17_000));
    stream.write_all(endless.as_bytes()).unwrap();
    assert!(read_to_end(&mut stream).starts_with(b"HTTP/1.1 431 "));
}

#[test]
fn invalid_request_is_refused() {
    let running = Running::start(LIMITS);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = running.connect();
        stream.write_all(garbage).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{garbage:?}: {answer:?}");
    }
    assert_eq!(running.ask("GET /metrics", "").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let running = Running::start(LIMITS);
    let mut stream = running.connect();
    let requests = [
        running.head("GET /-/healthy", ""),
        running.head("GET /-/ready", ""),
        running.head("GET /nowhere", "connection: close\r\n"),
    ];
    stream.write_all(requests.concat().as_bytes()).unwrap();
    let answers = String::from_utf8(read_to_end(&mut stream)).unwrap();
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect();
    assert_eq!(statuses, ["200", "503", "404"], "{answers}");
}

#[test]
fn idle_connections_do_not_block_a_scrape() {
    let running = Running::start(LIMITS);
    let mut silent: Vec<_> = (0..LIMITS.connections * 2).map(|_| running.connect()).collect();
    assert_eq!(running.ask("GET /metrics", "").status, 200);
    assert_eq!(read_to_end(&mut silent[0]), b"", "the one that was idle for longest was closed");
    let last = silent.last_mut().unwrap();
    last.write_all(running.head("GET /-/healthy", "connection: close\r\n").as_bytes()).unwrap();
    assert_eq!(Reply::parse(&read_to_end(last)).status, 200, "the latest one is still served");
}

#[test]
fn connection_is_refused_if_all_are_busy() {
    let mut running = Running::start(Limits { connections: 1, ..LIMITS });
    let mut busy = running.connect();
    let head = running.head("POST /-/reload", "content-length: 0\r\nconnection: close\r\n");
    busy.write_all(head.as_bytes()).unwrap();
    let request = running.reloads.blocking_recv().unwrap();
    assert_eq!(read_to_end(&mut running.connect()), b"");
    request.answer.send(Ok(())).unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut busy)).status, 200);
    assert_eq!(running.ask("GET /metrics", "").status, 200);
}

#[test]
fn stop_waits_for_requests_in_flight() {
    let mut running = Running::start(LIMITS);
    let mut idle = running.connect();
    let mut busy = running.connect();
    busy.write_all(running.head("POST /-/reload", "content-length: 0\r\n").as_bytes()).unwrap();
    let request = running.reloads.blocking_recv().unwrap();
    let server = running.server;
    let stopping = thread::spawn(move || server.stop(TEST_TIMEOUT));
    assert_eq!(read_to_end(&mut idle), b"", "no request is in flight");
    request.answer.send(Ok(())).unwrap();
    assert_eq!(Reply::parse(&read_to_end(&mut busy)).status, 200);
    stopping.join().unwrap();
    let refused = TcpStream::connect(running.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn stop_has_a_deadline() {
    let mut running = Running::start(LIMITS);
    let mut busy = running.connect();
    busy.write_all(running.head("POST /-/reload", "content-length: 0\r\n").as_bytes()).unwrap();
    let _unanswered = running.reloads.blocking_recv().unwrap();
    let start = Instant::now();
    running.server.stop(Duration::from_millis(50));
    assert!(start.elapsed() < TEST_TIMEOUT / 2, "{:?}", start.elapsed());
    assert_eq!(read_to_end(&mut busy), b"");
}
