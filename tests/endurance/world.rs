//! The environment of the soak test: disk, `/etc`, name server, services, proxy, and daemon.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::Pid;
use tempfile::TempDir;

use super::{
    client::{self, PASSWORD, authorization},
    configuration::{Addresses, CANARY, Constants, Manner, PROVIDERS, text, write_key, write_secret},
    line_account::check,
    names::{ADDRESS, NameServer},
    services::Services,
};
use crate::harness::{
    daemon::PROBER,
    tunnel::{Chain, Manner as Welcome, TlsServer},
    wait::wait_for,
};

/// The systemd unit.
const UNIT: &str = include_str!("../../systemd/langmart-prober.service");

/// The daemon's standard error: searched as it arrives, with its end kept.
#[derive(Default)]
pub struct Said {
    pub last: VecDeque<String>,
    pub broken: Vec<String>,
    pub lines: u64,
}

/// The daemon as a process, which is killed when it is dropped.
pub struct Prober {
    child: Child,
    pub said: Arc<Mutex<Said>>,
    reader: Option<JoinHandle<()>>,
}

pub struct World {
    // Dropped before the directory that they write to: fields are dropped in this order.
    pub prober: Prober,
    pub services: Services,
    pub names: NameServer,
    pub address: SocketAddr,
    hash: String,
    proxy: SocketAddr,
    directory: TempDir,
}

impl World {
    /// Builds the environment, and returns when the daemon is ready.
    pub fn build() -> Self {
        run("ip", &["link", "set", "lo", "up"]);
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        for name in ["disk", "keys"] {
            fs::create_dir(path(name)).unwrap();
        }
        run("mount", &["-t", "tmpfs", "-o", "size=512m", "tmpfs", &path("disk")]);
        // A copy of /etc is mounted over it, so that the resolver's file can be broken for this
        // namespace only.
        run("cp", &["-a", "/etc", &path("etc")]);
        run("mount", &["--bind", &path("etc"), "/etc"]);
        let names = NameServer::start();
        resolver_file(Some(&format!("nameserver {ADDRESS}\noptions timeout:1 attempts:1\n")));

        let credentials = format!("user:{CANARY}-proxy-{CANARY}");
        let encoded: &'static str = BASE64_STANDARD.encode(&credentials).leak();
        let chain = Chain::new();
        fs::write(path("ca.pem"), &chain.root_pem).unwrap();
        let proxy = TlsServer::proxy(&chain, Welcome::Guarded(encoded)).address;
        write_secret(directory.path(), "proxy", &credentials);
        for provider in 0..PROVIDERS {
            write_key(directory.path(), provider, 0, true);
        }
        let services = Services::start(&directory.path().join("ca.pem"));
        // No other process is in this network namespace.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let hash = bcrypt::hash(PASSWORD, 6).unwrap();
        let (plain, tls) = (services.plain, services.tls);
        let constants = Constants {
            directory: directory.path(),
            addresses: Addresses { plain, tls, proxy },
            hash: hash.clone(),
            listen: address,
        };
        fs::write(path("config.toml"), text(&constants, &Manner::default())).unwrap();
        fs::write(path("clock"), "+0\n").unwrap();
        let prober = Prober::start(directory.path());
        let world = Self { prober, services, names, address, hash, proxy, directory };
        wait_for("the daemon to be ready", || {
            let said = world.prober.said.lock().unwrap();
            let ended = said.lines > 0 && said.last.iter().any(|line| line.contains("problem"));
            assert!(!ended, "{:#?}", said.last);
            drop(said);
            client::ask(world.address, "GET", "/-/ready").is_ok_and(|(status, _)| status == 200).then_some(())
        });
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the configuration, with further sections at its end.
    pub fn configure(&self, manner: &Manner, rest: &str) {
        let addresses = Addresses { plain: self.services.plain, tls: self.services.tls, proxy: self.proxy };
        let constants = Constants {
            directory: self.directory.path(),
            addresses,
            hash: self.hash.clone(),
            listen: self.address,
        };
        fs::write(self.path("being-written"), text(&constants, manner) + rest).unwrap();
        fs::rename(self.path("being-written"), self.path("config.toml")).unwrap();
    }

    /// Sets the daemon's wall clock, relative to the correct time in seconds.
    pub fn set_clock(&self, seconds: i64) {
        fs::write(self.path("being-written"), format!("{seconds:+}\n")).unwrap();
        fs::rename(self.path("being-written"), self.path("clock")).unwrap();
    }
}

/// Writes /etc/resolv.conf, or removes it if the text is `None`.
pub fn resolver_file(text: Option<&str>) {
    // It may be a link into /run, outside of this namespace.
    let _ = fs::remove_file("/etc/resolv.conf");
    if let Some(text) = text {
        fs::write("/etc/resolv.conf", text).unwrap();
    }
}

#[track_caller]
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Prober {
    fn start(directory: &Path) -> Self {
        let library = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = String::from_utf8(library.unwrap().stdout).unwrap();
        let mut command = Command::new(PROBER);
        command.arg("run").arg("--config").arg(directory.join("config.toml"));
        command.env_clear().env("TENANT", format!("tenant-{CANARY}"));
        command.env("LD_PRELOAD", library.trim()).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", directory.join("clock")).env("FAKETIME_CACHE_DURATION", "1");
        // The settings of glibc in the unit.
        let settings = UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
        command.envs(settings);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Said::default()));
        let (stderr, noted) = (child.stderr.take().unwrap(), said.clone());
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = noted.lock().unwrap();
                check(&mut said.broken, "standard error", &line);
                said.lines += 1;
                said.last.push_back(line);
                if said.last.len() > 300 {
                    said.last.pop_front();
                }
            }
        });
        Self { child, said, reader: Some(reader) }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and returns the exit status.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while self.is_running() && std::time::Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let status = self.child.try_wait().unwrap()?;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.code()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the listener's credentials in base64, which are a secret as well.
pub fn listeners_secret() -> String {
    authorization().trim_end().rsplit(' ').next().unwrap_or_default().to_owned()
}
