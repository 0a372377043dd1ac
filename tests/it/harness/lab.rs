//! A client and a server in separate network namespaces, with a known delay between them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use super::{daemon::PROBER, wait::wait_for};

/// Address of the server, which its name server returns for every name.
pub const SERVER: &str = "10.77.0.2";

/// Two hosts and the network between them, removed when it is dropped.
pub struct Lab {
    names: [String; 3],
    children: Vec<Child>,
    directory: TempDir,
}

impl Lab {
    /// Builds the lab: each frame takes `delay` seconds between the hosts, and the name server on
    /// the server delays its answers by `dns_delay` seconds.
    pub fn start(delay: f64, dns_delay: f64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let names = ["c", "m", "s"].map(|host| format!("lab{}-{number}{host}", process::id()));
        let mut lab = Self { names, children: Vec::new(), directory: TempDir::new().unwrap() };
        let [client, middle, server] = lab.names.clone();
        for name in [&client, &middle, &server] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        for (host, port, address) in [(&client, "m0", "10.77.0.1"), (&server, "m1", SERVER)] {
            ip(&format!("link add eth0 netns {host} type veth peer name {port} netns {middle}"));
            ip(&format!("-n {middle} link set {port} up"));
            ip(&format!("-n {host} addr add {address}/24 dev eth0"));
            ip(&format!("-n {host} link set eth0 up"));
            // Frames are passed on unchanged, with their checksums.
            run(inside(host, "ethtool")
                .args(["-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"]));
        }
        for host in [&client, &server] {
            fs::create_dir_all(resolver_directory(host)).unwrap();
            fs::write(resolver_directory(host).join("resolv.conf"), format!("nameserver {SERVER}\n"))
                .unwrap();
        }
        let script = |name| format!("{}/tests/lab/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut forward = inside(&middle, "python3");
        forward.args([&script("forward.py"), "m0", "m1", &delay.to_string()]);
        lab.spawn(forward);
        let mut dns = inside(&server, "python3");
        dns.args([&script("dns.py"), SERVER, SERVER, &dns_delay.to_string()]);
        lab.spawn(dns);
        lab
    }

    /// Returns a command that runs on the client.
    pub fn on_client(&self, program: impl AsRef<str>) -> Command {
        inside(&self.names[0], program.as_ref())
    }

    /// Returns a command that runs on the server.
    pub fn on_server(&self, program: impl AsRef<str>) -> Command {
        inside(&self.names[2], program.as_ref())
    }

    /// Makes another name server the client's only one, for later commands.
    pub fn ask_name_server(&self, address: &str) {
        let path = Path::new("/etc/netns").join(&self.names[0]).join("resolv.conf");
        fs::write(path, format!("nameserver {address}\n")).unwrap();
    }

    /// Starts a command, and waits for its first line, which shows that it is ready.
    pub fn spawn(&mut self, mut command: Command) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        // The pipe stays open, because the process would fail when it writes more.
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        self.children.push(child);
        assert!(!line.is_empty(), "{command:?} ended before it was ready");
    }

    /// Starts the simulator on the server, on ports 8080 and 8443. Returns the path of its
    /// authority's certificate.
    pub fn simulator(&mut self) -> String {
        let ca = self.directory().join("ca.pem").to_str().unwrap().to_owned();
        let mut simulator = self.on_server(PROBER);
        simulator.args(["simulate", "--listen", &format!("{SERVER}:8080")]);
        simulator.args(["--tls-listen", &format!("{SERVER}:8443"), "--ca-file", &ca]);
        self.spawn(simulator);
        ca
    }

    /// Starts tinyproxy on that port of the server, with further lines of configuration.
    pub fn tinyproxy(&mut self, port: u16, rest: &str) {
        let configuration = self.directory().join(format!("tinyproxy-{port}.conf"));
        let text = format!("Port {port}\nListen {SERVER}\nTimeout 60\nMaxClients 20\n{rest}");
        fs::write(&configuration, text).unwrap();
        let mut tinyproxy = self.on_server("tinyproxy");
        tinyproxy.arg("-d").arg("-c").arg(&configuration).stdout(Stdio::null());
        self.children.push(tinyproxy.spawn().unwrap());
        let script = format!("import socket; socket.create_connection(('{SERVER}', {port}), 1).close()");
        wait_for("tinyproxy to listen", || {
            let mut look = self.on_server("python3");
            look.args(["-c", &script]).stderr(Stdio::null());
            look.status().unwrap().success().then_some(())
        });
    }

    /// Returns a directory of the lab.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
            let _ = fs::remove_dir_all(resolver_directory(name));
        }
    }
}

/// Returns the directory that `ip netns exec` mounts over /etc for one of the hosts.
fn resolver_directory(host: &str) -> PathBuf {
    Path::new("/etc/netns").join(host)
}

/// Returns a command that runs on one of the hosts.
fn inside(host: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, program]);
    command
}

fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
