//! A machine in a network namespace of its own, with resolver files, name servers and servers. The
//! product runs on it, with glibc and curl as references.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    daemon::{Daemon, PROBER, records},
    parts,
    scrape::Scrape,
};

/// The key that every probe sends and no output may contain.
const SECRET: &str = "sk-test-canary";

/// Addresses of the machine's link, in addition to loopback. The first is the source of its
/// packets.
pub const ADDRESSES: [&str; 4] = ["10.77.0.65/24", "10.77.0.2/24", "fd00:77::65/64", "fd00:77::2/64"];

/// Addresses on the link whose packets are dropped. glibc sorts them before 10.77.0.2 and
/// `fd00:77::2`, because they share a longer prefix with the source.
pub const SILENT: [&str; 5] = ["10.77.0.66", "10.77.0.67", "10.77.0.64", "fd00:77::66", "fd00:77::67"];

/// Address of the daemon's listener.
const LISTEN: &str = "127.0.0.1:10429";

/// Variables that would make a command use another network configuration.
const FOREIGN_VARIABLES: [&str; 4] = ["RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES", "CURL_HOME"];

/// Configuration of one run of the product.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub url: &'a str,
    /// Checks of the provider.
    pub checks: &'a [&'a str],
    pub timeout: &'a str,
    /// Further lines of the provider's section.
    pub provider: &'a str,
    /// Further sections.
    pub sections: &'a str,
    pub variables: &'a [(&'a str, &'a str)],
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            url: "http://api.corp.test:8080/v1",
            checks: &["auth"],
            timeout: "10s",
            provider: "",
            sections: "",
            variables: &[],
        }
    }
}

impl Ask<'_> {
    /// Returns the configuration of a provider `p`.
    pub fn config(&self) -> String {
        let Self { url, checks, timeout, provider, sections, .. } = self;
        format!(
            "[defaults]\ntimeout = \"{timeout}\"\n[defaults.generation]\ntimeout = \"{timeout}\"\n[provider.p]\n\
             api = \"openai\"\nbase_url = \"{url}\"\napi_key = {{ env = \"SIM_KEY\" }}\nallow_plain_http = true\n\
             checks = {checks:?}\n{provider}\n{sections}\n"
        )
    }
}

/// Result of curl.
#[derive(Debug)]
pub struct Curl {
    /// Exit status; 0 if it got a response.
    pub exit: i32,
    pub status: u16,
    pub address: String,
    pub seconds: f64,
}

impl std::fmt::Display for Curl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { exit, status, address, seconds } = self;
        write!(formatter, "curl: exit {exit}, {status} from {address:?} in {seconds:.2} s")
    }
}

/// The machine, which is removed when it is dropped.
pub struct Host {
    name: String,
    scripts: BTreeMap<String, Child>,
    directory: TempDir,
}

impl Host {
    /// Builds the machine: loopback, a link with [`ADDRESSES`] and [`SILENT`], a hosts file with
    /// `localhost` only, and 127.0.0.53 as its name server. Returns `None` if a required program is
    /// missing.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !parts::has(&["ip", "python3", "curl", "sysctl"], true) {
            return None;
        }
        let name = format!("host{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let host = Self { name, scripts: BTreeMap::new(), directory: TempDir::new().unwrap() };
        let name = &host.name;
        run(Command::new("ip").args(["netns", "add", name]));
        host.ip("link set lo up");
        host.ip("link add eth0 type veth peer name peer0");
        host.ip("link set eth0 up");
        host.ip("link set peer0 up");
        for address in ADDRESSES {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            host.ip(&format!("addr add {address} dev eth0{nodad}"));
        }
        for address in SILENT {
            host.ip(&format!("neigh add {address} lladdr 02:00:00:00:00:66 dev eth0 nud permanent"));
        }
        fs::create_dir_all(host.etc_directory()).unwrap();
        host.etc("resolv.conf", "nameserver 127.0.0.53\n");
        host.etc("hosts", "127.0.0.1 localhost\n::1 localhost\n");
        host.etc("nsswitch.conf", "hosts: files dns\n");
        Some(host)
    }

    /// Writes a file of /etc, for later commands.
    pub fn etc(&self, file: &str, text: &str) {
        fs::write(self.etc_directory().join(file), text).unwrap();
    }

    /// Returns the path of a file of /etc, as other machines see it.
    pub fn etc_path(&self, file: &str) -> PathBuf {
        self.etc_directory().join(file)
    }

    /// Returns the path of a file in a directory of the machine.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Writes a file there and returns its path.
    pub fn write(&self, file: &str, text: &str) -> String {
        fs::write(self.path(file), text).unwrap();
        self.path(file).to_str().unwrap().to_owned()
    }

    /// Returns a command that runs on the machine.
    pub fn on(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.to_ascii_lowercase().ends_with("_proxy") || FOREIGN_VARIABLES.contains(&&*text) {
                command.env_remove(&name);
            }
        }
        command
    }

    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        run(self.on("ip").args(arguments.split(' ')));
    }

    #[track_caller]
    pub fn sysctl(&self, setting: &str) {
        run(self.on("sysctl").args(["-qw", setting]));
    }

    /// Starts the name servers of a specification (tests/lab/zone.py).
    #[track_caller]
    pub fn name_servers(&mut self, specification: &Value) {
        self.script("zone.py", "zones", specification, "queries");
    }

    /// Returns the queries so far, each as `SERVER PROTOCOL NAME TYPE`.
    pub fn queries(&self) -> Vec<String> {
        fs::read_to_string(self.path("queries")).unwrap().lines().map(str::to_owned).collect()
    }

    /// Starts the servers of a specification (tests/lab/play.py).
    #[track_caller]
    pub fn servers(&mut self, specification: &Value) {
        self.script("play.py", "servers", specification, "requests");
    }

    /// Returns the requests so far, as play.py logs them.
    pub fn requests(&self) -> Vec<Value> {
        records(fs::read_to_string(self.path("requests")).unwrap())
    }

    #[track_caller]
    fn script(&mut self, script: &str, file: &str, specification: &Value, log: &str) {
        let specification = self.write(file, &specification.to_string());
        let mut command = self.on("python3");
        command.arg(format!("{}/tests/lab/{script}", env!("CARGO_MANIFEST_DIR")));
        // Replace the servers of an earlier specification.
        if let Some(mut earlier) = self.scripts.remove(script) {
            earlier.kill().unwrap();
            earlier.wait().unwrap();
        }
        let mut child =
            command.arg(specification).arg(self.path(log)).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        self.scripts.insert(script.to_owned(), child);
        assert!(!line.is_empty(), "{script} ended before it was ready");
    }

    /// Returns a command of the product with a configuration.
    pub fn prober(&self, subcommand: &str, ask: &Ask<'_>) -> Command {
        let mut command = self.command(subcommand, &ask.config());
        command.envs(ask.variables.iter().copied());
        command
    }

    fn command(&self, subcommand: &str, config: &str) -> Command {
        let path = self.write("config.toml", config);
        let mut command = self.on(PROBER);
        command.args([subcommand, "--config", &path]).env("SIM_KEY", SECRET);
        command
    }

    /// Runs all probes once and returns their records.
    #[track_caller]
    pub fn once(&self, ask: &Ask<'_>) -> Vec<Value> {
        let output = self.prober("once", ask).arg("--json").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(
            !shown.contains("canary") && !said.contains("canary"),
            "the output contains a secret: {shown}{said}"
        );
        assert!(!shown.is_empty(), "no record, {}: {said}", output.status);
        records(&output.stdout)
    }

    /// Starts the daemon, which writes its records to `logs`.
    #[track_caller]
    pub fn daemon(&self, config: &str) -> Daemon {
        let logs = self.path("logs");
        fs::create_dir_all(&logs).unwrap();
        let own = format!("[server]\nlisten = \"{LISTEN}\"\n[log]\ndirectory = \"{}\"\n", logs.display());
        Daemon::start(self.command("run", &format!("{config}\n{own}")))
    }

    /// Requests the daemon's metrics.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let page = self.on("curl").args(["-sS", &format!("http://{LISTEN}/metrics")]).output().unwrap();
        Scrape::parse(&String::from_utf8(page.stdout).unwrap())
    }

    /// Returns the daemon's records of a probe.
    pub fn results(&self, probe: &str) -> Vec<Value> {
        let Ok(entries) = fs::read_dir(self.path("logs")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        let results = paths.filter(|path| path.to_string_lossy().contains("results.jsonl"));
        let text: String = results.map(|path| fs::read_to_string(path).unwrap()).collect();
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        records(whole).into_iter().filter(|record| record["probe"] == probe).collect()
    }

    /// Returns the result of `getaddrinfo` for a name: addresses, or its error.
    #[track_caller]
    pub fn getaddrinfo(&self, name: &str, variables: &[(&str, &str)]) -> Result<BTreeSet<String>, String> {
        let script = "import socket, sys\ntry:\n \
                      found = socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)\n \
                      print('\\n'.join(item[4][0] for item in found))\nexcept OSError as error:\n \
                      print('error', error)";
        let mut python = self.on("python3");
        let output = python.args(["-c", script, name]).envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        match text.strip_prefix("error ") {
            Some(error) => Err(error.trim().to_owned()),
            None => Ok(text.lines().map(str::to_owned).collect()),
        }
    }

    /// Sends the same request with curl, with a timeout of 12 seconds.
    #[track_caller]
    pub fn curl(&self, arguments: &[&str], variables: &[(&str, &str)], url: &str) -> Curl {
        let mut curl = self.on("curl");
        curl.args(["-s", "-o", "/dev/null", "-m", "12", "-w", "%{http_code} %{time_total} %{remote_ip}"]);
        let output = curl
            .args(arguments)
            .arg(url)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut words = text.splitn(3, ' ');
        Curl {
            exit: output.status.code().unwrap(),
            status: words.next().unwrap().parse().unwrap(),
            seconds: words.next().unwrap().parse().unwrap(),
            address: words.next().unwrap().to_owned(),
        }
    }

    fn etc_directory(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in self.scripts.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = fs::remove_dir_all(self.etc_directory());
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
