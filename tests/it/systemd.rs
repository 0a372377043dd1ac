//! Tests of the notifications to systemd, on a socket like systemd's.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use crate::harness::{
    daemon::{Daemon, KEY, LISTEN, Place},
    simulate::simulator,
    wait::WAIT_TIMEOUT,
};

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn receive(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message is due");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Returns the next message that is neither a watchdog nor a status message.
    fn next_change(&self) -> String {
        loop {
            let message = self.receive();
            if message != "WATCHDOG=1\n" && !message.starts_with("STATUS=") {
                return message;
            }
        }
    }
}

#[test]
fn ready_reloading_stopping_and_alive() {
    let simulator = simulator("");
    let config = format!(
        "{LISTEN}[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
        simulator.address()
    );
    let place = Place::new(&config);
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let manager = Manager(socket);
    let mut command = place.command("run");
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "200000");
    let mut daemon = Daemon::start(command);

    let ready = manager.next_change();
    let status = format!("STATUS=1 probes of 1 providers, 0 failing; http://{}/\n", daemon.address);
    assert_eq!(ready, format!("READY=1\n{status}"));
    let fed = Instant::now();
    let mut messages = (0..).map(|_| manager.receive()).filter(|message| *message != status);
    assert!(messages.by_ref().take(5).all(|message| message == "WATCHDOG=1\n"));
    // Five in at least four times half of the watchdog interval.
    assert!(fed.elapsed() > Duration::from_millis(300), "{:?}", fed.elapsed());

    let address = format!("http://{}/", daemon.address);
    let elsewhere = config.replace("127.0.0.1:0", "127.0.0.1:1");
    for (config, told) in [
        (config.as_str(), "1 probes of 1 providers"),
        (&elsewhere, &address),
        (&elsewhere, &address),
        ("nonsense", "the last reload failed"),
    ] {
        place.write("config.toml", config);
        daemon.reload();
        let reloading = manager.next_change();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        assert!(since.trim_end().parse::<u64>().unwrap() > 0, "{reloading}");
        let ready = manager.next_change();
        assert!(ready.starts_with("READY=1\nSTATUS=") && ready.contains(told), "{ready}");
    }

    // The status is kept as long as it is true, across updates.
    let later = loop {
        let message = manager.receive();
        if message.starts_with("STATUS=") {
            break message;
        }
    };
    assert!(later.contains("the last reload failed"), "{later}");

    let log = daemon.stop();
    assert_eq!(log.matches("server.listen requires a restart").count(), 2, "at each reload: {log}");
    let stopping = manager.next_change();
    assert!(stopping.starts_with("STOPPING=1\nSTATUS=Stopping"), "{stopping}");
}

#[test]
fn failed_start_is_never_ready() {
    let place = Place::new("nonsense");
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let output = place.command("run").env("NOTIFY_SOCKET", place.path("notify")).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(socket.recv(&mut [0; 64]).is_err(), "no further message is sent");
}
