//! TLS servers in the test process, with any chain, and a proxy with TLS between client and proxy.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A root, an intermediate that expires in 2040, and a certificate for `localhost`, `127.0.0.1` and
/// `::1` that expires in 2050.
pub struct Chain {
    pub root: CertificateDer<'static>,
    /// The root, as in a `ca_file`.
    pub root_pem: String,
    pub intermediate: CertificateDer<'static>,
    pub leaf: CertificateDer<'static>,
    key: KeyPair,
}

impl Chain {
    pub fn new() -> Self {
        let authority = |name: &str, end: i32| {
            let mut parameters = CertificateParams::new(Vec::new()).unwrap();
            parameters.distinguished_name.push(DnType::CommonName, name);
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            parameters.not_before = date_time_ymd(2019, 1, 1);
            parameters.not_after = date_time_ymd(end, 1, 1);
            parameters
        };
        let root =
            CertifiedIssuer::self_signed(authority("root", 2090), KeyPair::generate().unwrap()).unwrap();
        let intermediate =
            CertifiedIssuer::signed_by(authority("intermediate", 2040), KeyPair::generate().unwrap(), &root)
                .unwrap();
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.not_before = date_time_ymd(2019, 1, 1);
        leaf.not_after = date_time_ymd(2050, 1, 1);
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &intermediate).unwrap().der().clone();
        let (root, root_pem) = (root.der().clone(), root.pem());
        let intermediate = intermediate.der().clone();
        Self { root, root_pem, intermediate, leaf, key }
    }

    /// Returns a server configuration with these certificates.
    fn presenting(&self, chain: Vec<CertificateDer<'static>>) -> TlsAcceptor {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Reaction of a proxy to a request for a tunnel.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Opens it for any client.
    Open,
    /// Opens it with these credentials in base64, and answers 407 otherwise.
    Guarded(&'static str),
}

/// A TLS server that runs until the test process ends.
pub struct TlsServer {
    pub address: SocketAddr,
    /// Heads of the requests read, if it is a proxy.
    pub heads: Arc<Mutex<Vec<String>>>,
}

impl TlsServer {
    /// Performs handshakes with these certificates and waits for the client to close.
    pub fn start(chain: &Chain, certificates: Vec<CertificateDer<'static>>) -> Self {
        Self::serve(chain.presenting(certificates), None)
    }

    /// Starts a proxy for CONNECT with the whole chain.
    pub fn proxy(chain: &Chain, manner: Manner) -> Self {
        let certificates = vec![chain.leaf.clone(), chain.intermediate.clone()];
        Self::serve(chain.presenting(certificates), Some(manner))
    }

    fn serve(acceptor: TlsAcceptor, manner: Option<Manner>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = heads.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, noted) = (acceptor.clone(), noted.clone());
                    tokio::spawn(async move {
                        // A client may reject the certificate.
                        let Ok(mut stream) = acceptor.accept(stream).await else { return };
                        let _ = match manner {
                            None => stream.read(&mut [0; 1]).await.map(|_| ()),
                            Some(manner) => tunnel(&mut stream, manner, &noted).await,
                        };
                    });
                }
            });
        });
        Self { address, heads }
    }
}

async fn tunnel(
    client: &mut TlsStream<TcpStream>,
    manner: Manner,
    heads: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let welcome = match manner {
        Manner::Open => true,
        Manner::Guarded(credentials) => {
            let header = format!("proxy-authorization: basic {credentials}\r\n").to_ascii_lowercase();
            head.to_ascii_lowercase().contains(&header)
        }
    };
    heads.lock().unwrap().push(head);
    if !welcome {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    }
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(client, &mut server).await.map(|_| ())
}
