//! What the configuration depends on besides its file: environment, key files, credentials, certificates.
//!
//! With the file itself, in `load`, this is all the input that a load has.

use std::{
    env,
    ffi::OsString,
    fs::{File, Metadata},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::model::KeySource;

/// The most that a key file or credential may hold, in bytes.
pub(super) const LONGEST_SECRET: u64 = 64 << 10;

/// Above most files that are read here, in bytes.
const USUAL: u64 = 64 << 10;

/// The most that a file of certificates may hold, in bytes.
const LONGEST_CA_FILE: u64 = 16 << 20;

/// What to do about keys and secret header values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys<'a> {
    /// One that cannot be read is a problem of the file.
    Required,
    /// One that cannot be read is a warning, and empty in the configuration.
    Reported,
    /// The same for what these providers need, by their names; the others' are not read.
    ReportedOf(&'a [String]),
    /// None is read; all are empty in the configuration.
    Skipped,
}

/// Where a load looks things up; tests have their own.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The system's trusted roots.
    pub system_roots: &'a dyn Fn() -> Vec<CertificateDer<'static>>,
}

impl Surroundings<'static> {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self {
            variable: &|name| env::var_os(name),
            // Roots that cannot be read are warned of where none is left.
            system_roots: &|| rustls_native_certs::load_native_certs().certs,
        }
    }
}

impl Surroundings<'_> {
    /// The text of a secret, or why it cannot be had. One newline at the end of a file is every editor's, not the key's.
    pub(super) fn secret(&self, source: &KeySource) -> Result<Zeroizing<String>, String> {
        match source {
            KeySource::Env(name) => {
                let value = (self.variable)(name).ok_or_else(|| {
                    format!("environment variable {name} is not set; export it, or keep it in a file")
                })?;
                let text = value.into_string();
                text.map(Zeroizing::new).map_err(|_| format!("environment variable {name} is not UTF-8"))
            }
            KeySource::File(path) => secret_file(path),
            KeySource::Credential(name) => {
                let directory = self.credentials_directory().ok_or_else(|| {
                    format!("credential {name} exists only inside the systemd unit: CREDENTIALS_DIRECTORY is not set")
                })?;
                secret_file(&directory.join(name))
            }
        }
    }

    /// The system's trusted roots. The error is that `SSL_CERT_FILE`, which replaces them, names no regular file.
    pub(super) fn trusted_roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let path = (self.variable)("SSL_CERT_FILE").map(PathBuf::from);
        match path.filter(|path| path.metadata().is_ok_and(|metadata| !metadata.is_file())) {
            Some(path) => Err(format!(
                "the environment's SSL_CERT_FILE, {}, is not a regular file; name a PEM file, or unset it",
                path.display()
            )),
            None => Ok((self.system_roots)()),
        }
    }

    /// Where systemd keeps the credentials of the unit that this process is in; `None` outside of one that has any.
    pub fn credentials_directory(&self) -> Option<PathBuf> {
        (self.variable)("CREDENTIALS_DIRECTORY").filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The first of `$LOGS_DIRECTORY`, which systemd separates by colons.
    pub(super) fn logs_directory(&self) -> Option<PathBuf> {
        let value = (self.variable)("LOGS_DIRECTORY")?;
        env::split_paths(&value).next().filter(|path| path.is_absolute())
    }

    /// The first of `$STATE_DIRECTORY`, which systemd separates by colons.
    pub(super) fn state_directory(&self) -> Option<PathBuf> {
        let value = (self.variable)("STATE_DIRECTORY")?;
        env::split_paths(&value).next().filter(|path| path.is_absolute())
    }

    /// The variable and value of the environment's proxy for this target, by the usual names; `None`: go there directly.
    ///
    /// As in Go, what is on this machine is never reached through it. `HTTP_PROXY` in capitals is not read, since a CGI
    /// server sets it from a request's header (CVE-2016-5385).
    pub(super) fn proxy_for(&self, target: &Url) -> Option<(&'static str, OsString)> {
        if is_loopback(target) || self.is_exempt(target) {
            return None;
        }
        let names: &[&str] = match target.scheme() {
            "https" => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
            _ => &["http_proxy", "all_proxy", "ALL_PROXY"],
        };
        let set =
            |name: &&'static str| Some((*name, (self.variable)(name).filter(|value| !value.is_empty())?));
        names.iter().find_map(set)
    }

    /// Whether `no_proxy` names the target. The list is curl's: separated by commas, spaces and tabs.
    fn is_exempt(&self, target: &Url) -> bool {
        let set = |name: &&str| (self.variable)(name).filter(|value| !value.is_empty());
        let list = ["no_proxy", "NO_PROXY"].iter().find_map(set).unwrap_or_default();
        let list = list.to_string_lossy().to_ascii_lowercase();
        list.split([',', ' ', '\t']).any(|entry| exempts(entry, target))
    }
}

/// Whether an entry of `no_proxy`, in lower case, names the target. Beside what curl understands, an entry may have a
/// port, brackets around an IPv6 address, and `*` for every target or in place of a first label, as in Go.
fn exempts(entry: &str, target: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let with_port = |(name, port): (_, &str)| Some((name, port.parse::<u16>().ok()?));
    let has_port = |(name, _): &(&str, u16)| !name.contains(':') || name.ends_with(']');
    let (name, port) = match entry.rsplit_once(':').and_then(with_port).filter(has_port) {
        Some((name, port)) => (name, Some(port)),
        None => (entry, None),
    };
    if port.is_some_and(|port| Some(port) != target.port_or_known_default()) {
        return false;
    }
    match target.host() {
        Some(Host::Domain(host)) => is_domain_of(name, host),
        Some(Host::Ipv4(address)) => is_within(address.into(), name),
        Some(Host::Ipv6(address)) => is_within(address.into(), name),
        None => false,
    }
}

/// Whether the entry is the host or a domain above it. One dot at the end of either does not count, nor does one at the
/// beginning of the entry.
fn is_domain_of(entry: &str, host: &str) -> bool {
    let [entry, host] = [entry, host].map(|name| name.strip_suffix('.').unwrap_or(name));
    let domain = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
    let above = |rest: &str| rest.is_empty() || rest.ends_with('.');
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(above)
}

/// The command that gives a command by hand the credentials that otherwise only the unit has.
pub fn systemd_run<'a>(credentials: impl IntoIterator<Item = &'a str>, command: &str) -> String {
    let property = |name| format!(" --property=LoadCredential={name}:/etc/credstore/{name}");
    let properties: String = credentials.into_iter().map(property).collect();
    format!("systemd-run --pipe --wait --collect --quiet{properties} {command}")
}

/// Why a secret's file protects nothing, and the command that mends it; `None`: there is nothing to say. A credential's
/// directory is systemd's to protect, and what cannot be looked at is told by whoever reads it.
pub(super) fn exposure(source: &KeySource) -> Option<String> {
    let KeySource::File(path) = source else { return None };
    readable_by_others(path).or_else(|| replaceable_by_others(path))
}

/// Whether others may put another file in the place of this one or of a link to it, and the command that prevents it.
fn replaceable_by_others(path: &Path) -> Option<String> {
    let target = path.canonicalize().ok()?;
    let (directory, mode) = open_directory(path).or_else(|| open_directory(&target))?;
    let directory = directory.display();
    Some(format!(
        "others than its owner can replace {}: the mode of {directory} is {mode:04o}; run: chmod go-w {directory}",
        path.display()
    ))
}

/// The directory above `path` that others may write, and its mode. Group members are others for the one that the file is
/// in. A sticky directory is as good as a closed one for what is root's, ours, or the directory's owner's.
fn open_directory(path: &Path) -> Option<(&Path, u32)> {
    let ours = geteuid().as_raw();
    path.ancestors().zip(path.ancestors().skip(1)).enumerate().find_map(|(level, (entry, directory))| {
        let metadata = directory.metadata().ok()?;
        let owner = entry.symlink_metadata().ok()?.uid();
        let is_sticky = metadata.mode() & 0o1000 != 0 && [0, ours, metadata.uid()].contains(&owner);
        let forbidden = if level == 0 { 0o022 } else { 0o002 };
        let mode = metadata.mode() & 0o7777;
        (mode & forbidden != 0 && !is_sticky).then_some((directory, mode))
    })
}

fn readable_by_others(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok().filter(Metadata::is_file)?;
    // As packages do it: root's, and readable for the group of the service.
    let of_root = metadata.uid() == 0;
    let forbidden = if of_root { 0o037 } else { 0o077 };
    let mode = metadata.mode() & 0o777;
    (mode & forbidden != 0).then(|| {
        let remedy = closing(path, metadata.uid(), metadata.gid(), geteuid().is_root());
        format!(
            "others than its owner can get at {}, whose mode is {mode:04o}; run: {remedy}",
            path.display()
        )
    })
}

/// The command that closes a key file of this owner and group to others. A group other than root's is kept: it may be
/// how the service reads the file, which whoever looks as root would not notice to be locked out.
fn closing(path: &Path, owner: u32, group: u32, by_root: bool) -> String {
    let path = path.display();
    match (owner, group, by_root) {
        (0, _, false) => format!("chmod 640 {path} && chgrp langmart-prober {path}"),
        (0, 1.., true) => format!("chmod 640 {path}"),
        _ => format!("chmod 600 {path}"),
    }
}

/// Whether the URL leads to this machine itself.
pub(super) fn is_loopback(target: &Url) -> bool {
    match target.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// Whether the entry is the address or a network that it is in, written as `192.0.2.0/24`.
fn is_within(address: IpAddr, entry: &str) -> bool {
    let (base, length) = entry.split_once('/').unwrap_or((entry, "128"));
    let (Ok(base), Ok(length)) = (base.trim_matches(['[', ']']).parse(), length.parse::<u32>()) else {
        return false;
    };
    let common = match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    address == base || common >= length
}

/// The certificates of a PEM file, at least one, each fit to be a trusted root.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path, LONGEST_CA_FILE).map_err(|error| {
        format!("cannot be read: {error}; give a PEM file that the prober's user may read")
    })?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "is not PEM; give a file of -----BEGIN CERTIFICATE----- blocks".to_owned())?;
    if certificates.is_empty() {
        return Err("has no certificate; give a file of -----BEGIN CERTIFICATE----- blocks".to_owned());
    }
    let mut roots = rustls::RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let problem = || format!("has a certificate that cannot be a root, number {}", index + 1);
        roots.add(certificate.clone()).map_err(|_| problem())?;
    }
    Ok(certificates)
}

fn secret_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = read_file(path, LONGEST_SECRET).map_err(|error| {
        format!("{} cannot be read: {error}; give a file that the prober's user may read", path.display())
    })?;
    let text = str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(text.to_owned()))
}

/// The contents of a regular file, or an error if it has more than `most` bytes.
pub(super) fn read_file(path: &Path, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    read_bounded(open_regular(path)?, most)
}

/// Opens a regular file. Another kind is an error at once: opening or reading it could block for ever.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let regular = |metadata: &Metadata| {
        if metadata.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
    };
    // Opening alone has an effect on some devices.
    regular(&path.metadata()?)?;
    let open = |flags: OFlags| File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match open(OFlags::NONBLOCK | OFlags::NOCTTY) {
        // Another process holds a lease on it, which the kernel asks back.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => open(OFlags::NOCTTY)?,
        opened => opened?,
    };
    // It may have been replaced in between.
    regular(&file.metadata()?)?;
    Ok(file)
}

/// All that there is to read, or an error where it is more than `most` bytes.
fn read_bounded(source: impl Read, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all usual files: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most.min(USUAL) as usize));
    source.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
