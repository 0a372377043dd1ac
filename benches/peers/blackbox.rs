//! The peer: prometheus-blackbox-exporter, and a client that takes the place of Prometheus with
//! steady requests.

use std::{
    error::Error,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::time::sleep_until;

use super::{page, process::Running};

const PROGRAM: &str = "prometheus-blackbox-exporter";

/// A running exporter.
pub(crate) struct Blackbox {
    pub(crate) running: Running,
    address: SocketAddr,
}

impl Blackbox {
    /// Returns its version. Returns `None` if it is not installed.
    pub(crate) fn version() -> Option<String> {
        let output = Command::new(PROGRAM).arg("--version").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&text).lines().next()?.split(" (").next()?.to_owned())
    }

    /// Starts it, with that certificate as trusted root if there is one.
    pub(crate) fn start(directory: &Path, ca_file: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let configuration = directory.join("blackbox.yml");
        let tls = ca_file.map_or_else(String::new, |ca_file| {
            format!(", tls_config: {{ ca_file: {} }}", ca_file.display())
        });
        fs::write(
            &configuration,
            format!(
                "modules:\n  http: {{ prober: http, http: {{ preferred_ip_protocol: ip4{tls} }} }}\n  \
                 tcp: {{ prober: tcp, tcp: {{ preferred_ip_protocol: ip4 }} }}\n"
            ),
        )?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let running = Running::start(
            "blackbox_exporter",
            Command::new(PROGRAM)
                .arg(format!("--config.file={}", configuration.display()))
                .arg(format!("--web.listen-address={address}"))
                .stderr(Stdio::null()),
        )?;
        let mut blackbox = Self { running, address };
        let deadline = Instant::now() + Duration::from_secs(10);
        while page::body(address, "/-/healthy").is_err() {
            blackbox.running.check_alive()?;
            if Instant::now() > deadline {
                return Err("blackbox_exporter is not ready".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(blackbox)
    }

    /// Requests a probe of each target at its time, with that module. Returns the measured
    /// durations in milliseconds, in the order of the targets.
    pub(crate) fn ask(
        &self,
        module: &str,
        schedule: Vec<(Instant, String)>,
    ) -> Result<Vec<f64>, Box<dyn Error>> {
        let base = format!("http://{}/probe", self.address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::builder().no_proxy().tls_backend_preconfigured(no_tls()?).build()?;
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for (due, target) in schedule {
                let url = Url::parse_with_params(&base, [("module", module), ("target", &target)])?;
                let request = client.get(url);
                tasks.push(tokio::spawn(async move {
                    sleep_until(due.into()).await;
                    duration(&request.send().await.ok()?.text().await.ok()?)
                }));
            }
            let mut durations = Vec::new();
            for task in tasks {
                durations.push(task.await?.ok_or("blackbox_exporter's probe failed")?);
            }
            Ok(durations)
        })
    }
}

/// Returns the TLS settings that reqwest requires even for plain HTTP.
fn no_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Returns the duration in milliseconds. Returns `None` if the probe failed.
fn duration(page: &str) -> Option<f64> {
    let value = |name| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    value("probe_success ").filter(|success| *success > 0.5)?;
    Some(value("probe_duration_seconds ")? * 1e3)
}
