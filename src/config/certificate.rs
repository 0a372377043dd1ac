//! The listener's certificate and its key: two files that whoever renews them may replace at any time.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::surroundings::{LONGEST_SECRET, read_file};

/// Certificates of a chain; more is a bundle of roots by mistake.
const LONGEST_CHAIN: usize = 16;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM: the certificate and what its issuer added to it, in this order.
    pub certificate: PathBuf,
    /// PEM: its private key, as PKCS#8, SEC 1 or PKCS#1.
    pub key: PathBuf,
}

/// What the two files looked like; a change is a reason to read them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp([Option<Look>; 2]);

/// Device, inode, length and time of change; what replaces a file differs in one of them.
type Look = (u64, u64, u64, SystemTime);

impl CertificateFiles {
    /// How the files look now. One that is missing looks like nothing.
    pub fn stamp(&self) -> Stamp {
        let look = |path: &Path| -> io::Result<Look> {
            let metadata = fs::metadata(path)?;
            Ok((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified()?))
        };
        Stamp([&self.certificate, &self.key].map(|path| look(path).ok()))
    }

    /// Reads both, and says what is wrong with them, naming the file.
    pub fn read(&self) -> Result<Arc<CertifiedKey>, String> {
        let chain = read_chain(&self.certificate)?;
        let key = read_key(&self.key)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        certified.map(Arc::new).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "{} is not the key of the certificate in {}",
                self.key.display(),
                self.certificate.display()
            ),
            // Its text tells of the kind of fault, and of nothing in the files.
            error => format!(
                "{} and {} cannot be used together: {error}",
                self.certificate.display(),
                self.key.display()
            ),
        })
    }
}

/// The chain of a PEM file, at least one certificate.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |what: &str| format!("{} {what}; give the certificate and its chain, as PEM", path.display());
    let pem = read_file(path, LONGEST_SECRET).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong("is not PEM"))?;
    match chain.len() {
        0 => Err(wrong("has no certificate")),
        1..=LONGEST_CHAIN => Ok(chain),
        _ => Err(wrong("has more than 16 certificates")),
    }
}

/// The private key of a PEM file.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let wrong = |what: &str| format!("{} {what}; give the private key, as PEM", path.display());
    let pem = read_file(path, LONGEST_SECRET).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong("has no private key that can be read"))
}
