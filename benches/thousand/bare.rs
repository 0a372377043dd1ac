//! The baseline: the same requests at the same rate with reqwest alone, without schedule, phases,
//! verdict, metrics and records.
//! records.

use std::{
    error::Error,
    path::Path,
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Client, Url};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::sleep_until;

use super::process::Usage;

/// Maximum duration in seconds.
const SECONDS: u64 = 10;

/// Cost of the loop.
pub(crate) struct Bare {
    /// CPU seconds.
    pub(crate) seconds: f64,
    /// Answered requests.
    pub(crate) requests: u64,
}

/// Sends `loops` requests per second, each on a connection of its own, from one thread.
pub(crate) fn run(url: &str, ca_file: &Path, loops: u32, seconds: u64) -> Result<Bare, Box<dyn Error>> {
    let client = client(ca_file)?;
    let url: Url = url.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let before = Usage::of(process::id())?;
    let requests = runtime.block_on(async {
        let begin = Instant::now();
        let tasks = (0..loops).map(|number| {
            let first = begin + Duration::from_secs(1) * number / loops;
            tokio::spawn(repeat(client.clone(), url.clone(), first, seconds.min(SECONDS)))
        });
        let mut requests = 0;
        for task in tasks.collect::<Vec<_>>() {
            requests += task.await?;
        }
        Ok::<_, tokio::task::JoinError>(requests)
    })?;
    if requests == 0 {
        return Err("the bare loop got no answer".into());
    }
    let after = Usage::of(process::id())?;
    Ok(Bare { seconds: after.user + after.system - before.user - before.system, requests })
}

async fn repeat(client: Client, url: Url, first: Instant, times: u64) -> u64 {
    let mut answered = 0;
    for time in 0..times {
        sleep_until((first + Duration::from_secs(time)).into()).await;
        let response = client.get(url.clone()).send().await;
        if let Ok(response) = response
            && response.bytes().await.is_ok()
        {
            answered += 1;
        }
    }
    answered
}

fn client(ca_file: &Path) -> Result<Client, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file)?)?;
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls.resumption = Resumption::disabled();
    let client = Client::builder().tls_backend_preconfigured(tls).pool_max_idle_per_host(0).no_proxy();
    Ok(client.build()?)
}
