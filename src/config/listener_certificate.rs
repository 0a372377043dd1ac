//! The listener's certificate and its key: two files that may be renewed at any time.

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

use super::environment::{MAX_SECRET_BYTES, read_file};

/// Maximum number of certificates of a chain; a longer one is probably a bundle of roots.
const MAX_CHAIN_LENGTH: usize = 16;

/// The paths of certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM file with the certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with the private key, as PKCS#8, SEC 1 or PKCS#1.
    pub key: PathBuf,
}

/// Identifies the versions of both files; a changed stamp is a reason to read them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp([Option<FileVersion>; 2]);

/// Device, inode, length and time of change; a replaced file differs in at least one of them.
type FileVersion = (u64, u64, u64, SystemTime);

impl CertificateFiles {
    /// Returns the current stamp. A missing file has no version.
    pub fn stamp(&self) -> Stamp {
        let version = |path: &Path| -> io::Result<FileVersion> {
            let metadata = fs::metadata(path)?;
            Ok((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified()?))
        };
        Stamp([&self.certificate, &self.key].map(|path| version(path).ok()))
    }

    /// Reads both files. Error messages name the file.
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
            // The text names the kind of error, and nothing from the files.
            error => format!(
                "{} and {} cannot be used together: {error}",
                self.certificate.display(),
                self.key.display()
            ),
        })
    }
}

/// Reads the certificate chain of a PEM file, at least one certificate.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong =
        |what: &str| format!("{} {what}; provide the certificate and its chain as PEM", path.display());
    let pem =
        read_file(path, MAX_SECRET_BYTES).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong("is not PEM"))?;
    match chain.len() {
        0 => Err(wrong("has no certificate")),
        1..=MAX_CHAIN_LENGTH => Ok(chain),
        _ => Err(wrong("has more than 16 certificates")),
    }
}

/// Reads the private key of a PEM file.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let wrong = |what: &str| format!("{} {what}; provide the private key as PEM", path.display());
    let pem =
        read_file(path, MAX_SECRET_BYTES).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong("has no readable private key"))
}
