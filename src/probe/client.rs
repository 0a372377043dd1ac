//! The HTTP client of a provider: one attempt, no redirect, a new connection each run unless the probe keeps its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Client, Proxy, Url, redirect};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tower::{Layer, Service};

use super::{
    clock::mark,
    resolver::{Marked, Resolver},
    tls,
};
use crate::config::{Connection, Provider};

/// Bytes of headers that a response over HTTP/2 may have; over HTTP/1.1 hyper's own buffer is the bound.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Headers that a response may have.
const MAX_HEADERS: usize = 128;

/// How long a kept connection is silent before it is probed, how far apart the probes are, and after how many
/// unanswered ones it is dead.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[error("provider {provider}: no HTTP client: {cause}")]
pub struct ClientError {
    provider: String,
    cause: String,
}

impl ClientError {
    pub(super) fn new(provider: &Provider, cause: impl Into<String>) -> Self {
        Self { provider: provider.name.clone(), cause: cause.into() }
    }
}

/// How a provider's probes speak TLS.
pub(super) fn tls(
    provider: &Provider,
    system_roots: &[CertificateDer<'static>],
) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    // System stores hold certificates that nobody can use any more; the rest still counts.
    roots.add_parsable_certificates(system_roots.iter().chain(&provider.ca_certificates).cloned());
    tls::client_config(&roots).map_err(|cause| ClientError::new(provider, cause.to_string()))
}

/// The client for a provider's probes, or for one probe that keeps its connection.
pub(super) fn client(
    provider: &Provider,
    tls: ClientConfig,
    resolver: Arc<Resolver>,
    connection: Connection,
) -> Result<Client, ClientError> {
    let kept = connection == Connection::Warm;
    let proxy_host = provider.proxy.as_ref().and_then(Url::host_str).map(Into::into);
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Marked { resolver, proxy: proxy_host })
        .connector_layer(ConnectorMark)
        .user_agent(concat!("langmart-prober/", env!("CARGO_PKG_VERSION")))
        // The server decides how long a kept one lives.
        .pool_max_idle_per_host(usize::from(kept))
        .pool_idle_timeout(None)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // A silent peer is for our own deadline to end, not for the kernel, which would do so after 30 s by default and
        // look like a connection that was closed. A kept one is probed, so that middleboxes do not forget it between two
        // runs, and that a dead one is found before it is used.
        .tcp_keepalive(kept.then_some(KEEPALIVE))
        .tcp_keepalive_interval(kept.then_some(KEEPALIVE))
        .tcp_keepalive_retries(kept.then_some(KEEPALIVE_RETRIES))
        .tcp_user_timeout(None)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .no_proxy();
    if let Some(url) = &provider.proxy {
        // The cause would show the URL, in which the client keeps the credentials from the next step on.
        let mut proxy = Proxy::all(url.clone())
            .map_err(|_| ClientError::new(provider, "the proxy's URL cannot be used"))?;
        if let Some((user, password)) = provider.proxy_credentials() {
            proxy = proxy.basic_auth(user, password);
        }
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|cause| ClientError::new(provider, cause.to_string()))
}

/// Marks the moment at which the connection, TLS and proxy included, is ready for the request.
#[derive(Clone, Debug)]
struct ConnectorMark;

impl<S> Layer<S> for ConnectorMark {
    type Service = MarkedConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MarkedConnector(inner)
    }
}

#[derive(Clone, Debug)]
struct MarkedConnector<S>(S);

impl<S, R> Service<R> for MarkedConnector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, destination: R) -> Self::Future {
        let now = Instant::now();
        mark(|seen| seen.dialled = Some(now));
        let connecting = self.0.call(destination);
        Box::pin(async move {
            let connection = connecting.await?;
            let now = Instant::now();
            mark(|seen| seen.connected = Some(now));
            Ok(connection)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
        time::Duration,
    };

    use super::*;
    use crate::{config::testing::provider, outcome::Api};

    /// The kernel's timer of the open connection between two ports: `00` none, `01` retransmission, `02` keep-alive
    /// (`proc_net_tcp` in the kernel's documentation).
    fn timer(from: u16, to: u16) -> String {
        const ESTABLISHED: &str = "01";
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let [from, to] = [from, to].map(|port| format!(":{port:04X}"));
        let ours = |fields: &Vec<&str>| {
            fields.len() > 5
                && fields[1].ends_with(&from)
                && fields[2].ends_with(&to)
                && fields[3] == ESTABLISHED
        };
        let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(ours);
        line.expect("the connection is open")[5][..2].to_owned()
    }

    #[test]
    fn the_kernel_ends_no_silent_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let provider = provider("p", Api::Openai, &url);
        let tls = tls(&provider, &[]).unwrap();
        let client = client(&provider, tls, Arc::new(Resolver::new()), Connection::Cold).unwrap();
        let silent = thread::spawn(move || {
            let (stream, from) = listener.accept().unwrap();
            let timer = || timer(from.port(), stream.local_addr().unwrap().port());
            let head = BufReader::new(&stream).lines().take_while(|line| !line.as_ref().unwrap().is_empty());
            assert!(head.count() > 0);
            // The acknowledgement of the request may still be on its way.
            while timer() == "01" {
                thread::sleep(Duration::from_millis(1));
            }
            timer()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.get(url).send()).unwrap_err();
        assert_eq!(silent.join().unwrap(), "00");
    }
}
