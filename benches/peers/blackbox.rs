//! The peer: prometheus-blackbox-exporter, and its Prometheus, which asks at a steady pace.

use std::{
    error::Error,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use reqwest::Client;
use tokio::time::sleep_until;

use super::{Manner, page, process::Running};

const PROGRAM: &str = "prometheus-blackbox-exporter";

/// One that runs.
pub(crate) struct Blackbox {
    pub(crate) running: Running,
    address: SocketAddr,
}

impl Blackbox {
    /// What it calls itself; `None`: it is not installed.
    pub(crate) fn version() -> Option<String> {
        let output = Command::new(PROGRAM).arg("--version").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&text).lines().next()?.split(" (").next()?.to_owned())
    }

    pub(crate) fn start(directory: &Path, ca_file: &Path) -> Result<Self, Box<dyn Error>> {
        let configuration = directory.join("blackbox.yml");
        let ca_file = ca_file.display();
        fs::write(
            &configuration,
            format!(
                "modules:\n  http: {{ prober: http, http: {{ preferred_ip_protocol: ip4, tls_config: {{ ca_file: {ca_file} }} }} }}\n  \
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

    /// Asks for so many probes a second; the values are the measured durations in milliseconds.
    pub(crate) fn probe(
        &self,
        manner: Manner,
        target: SocketAddr,
        rate: u32,
        seconds: u32,
    ) -> Result<Vec<f64>, Box<dyn Error>> {
        let (module, target) = match manner {
            Manner::Http => ("http", format!("http://{target}/health")),
            Manner::Https | Manner::HttpsPq => ("http", format!("https://{target}/health")),
            Manner::Network => ("tcp", target.to_string()),
        };
        let url = format!("http://{}/probe?module={module}&target={target}", self.address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::builder().no_proxy().tls_backend_preconfigured(super::no_tls()?).build()?;
        runtime.block_on(async {
            let begin = Instant::now();
            let tasks: Vec<_> = (0..rate * seconds)
                .map(|number| {
                    let due = begin + Duration::from_secs(1) * number / rate;
                    let request = client.get(&url);
                    tokio::spawn(async move {
                        sleep_until(due.into()).await;
                        duration(&request.send().await.ok()?.text().await.ok()?)
                    })
                })
                .collect();
            let mut durations = Vec::new();
            for task in tasks {
                durations.push(task.await?.ok_or("blackbox_exporter's probe failed")?);
            }
            Ok(durations)
        })
    }
}

/// In milliseconds; `None`: the probe failed.
fn duration(page: &str) -> Option<f64> {
    let value = |name| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    value("probe_success ").filter(|success| *success > 0.5)?;
    Some(value("probe_duration_seconds ")? * 1e3)
}
