//! The inputs of the configuration besides its file: environment, key files, credentials,
//! certificates.
//!
//! Together with the file itself, which `load` reads, this is all the input of a load.

use std::{
    env,
    ffi::OsString,
    fs::{File, Metadata},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use rustix::{fs::OFlags, process::geteuid};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{
    model::KeySource,
    service::{Service, Usage, hidden_message, home_of, missing_credential, missing_variable},
    shell::quoted,
};

/// Maximum size of a key file or credential, in bytes.
pub(super) const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Initial capacity of a read, above the size of most files, in bytes.
const READ_CAPACITY: u64 = 64 << 10;

/// Maximum size of a file of certificates, in bytes.
const MAX_CA_FILE_BYTES: u64 = 16 << 20;

/// The treatment of keys and secret header values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys<'a> {
    /// A key that cannot be read is an error.
    Required,
    /// A key that cannot be read is a warning, and empty in the configuration.
    Reported,
    /// The same for these providers; keys of others are not read.
    ReportedOf(&'a [String]),
    /// No key is read; all are empty in the configuration.
    Skipped,
    /// As `Reported`, but a file that this process cannot read, a directory that it cannot write to
    /// and an address that it may not bind are errors.
    Strict,
    /// As `Reported`, but keys are those that the service gets, and what it cannot read, write or
    /// bind is a warning.
    ReportedFor(&'a Service),
}

/// The environment of a load; tests provide their own.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Returns the value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Returns the system's trusted roots.
    pub system_roots: &'a dyn Fn() -> Vec<CertificateDer<'static>>,
}

impl Environment<'static> {
    /// Returns the environment of this process.
    pub fn from_process() -> Self {
        Self {
            variable: &|name| env::var_os(name),
            // Unreadable roots cause a warning only if no root is left.
            system_roots: &|| rustls_native_certs::load_native_certs().certs,
        }
    }
}

impl Environment<'_> {
    /// Reads a secret. One newline at the end of a file is removed, because editors add it.
    pub(super) fn secret(&self, source: &KeySource) -> Result<Zeroizing<String>, String> {
        match source {
            KeySource::Env(name) => {
                let value = (self.variable)(name).ok_or_else(|| {
                    if self.is_service() {
                        return missing_variable(name, None);
                    }
                    format!("environment variable {name} is not set; export it, or use a key file")
                })?;
                let text = value.into_string();
                text.map(Zeroizing::new).map_err(|_| format!("environment variable {name} is not UTF-8"))
            }
            KeySource::File(path) => {
                secret_file(path).map_err(|message| match home_of(path).filter(|_| self.is_service()) {
                    Some(root) => hidden_message(path, root, "ProtectHome=yes", Usage::Key),
                    None => message,
                })
            }
            KeySource::Credential(name) => match self.credentials_directory() {
                _ if self.is_not_passed(name) => Err(missing_credential(name)),
                Some(directory) => secret_file(&directory.join(name)),
                None => Err(format!(
                    "credential {name} is available only inside the systemd unit: CREDENTIALS_DIRECTORY is not set"
                )),
            },
        }
    }

    /// Returns whether systemd started this process, in the service or its `ExecReload=`.
    pub fn is_service(&self) -> bool {
        let started = (self.variable)("SYSTEMD_EXEC_PID");
        started.is_some_and(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(process::id()))
    }

    /// Returns whether this is the service, and its unit does not pass a credential. systemd 252
    /// hides the files of others from `ExecReload=`, so that an unreadable directory counts as
    /// having it.
    fn is_not_passed(&self, credential: &str) -> bool {
        let is_absent = |directory: PathBuf| !directory.join(credential).try_exists().unwrap_or(true);
        self.is_service() && self.credentials_directory().is_none_or(is_absent)
    }

    /// Returns the system's trusted roots. Fails if `SSL_CERT_FILE`, which replaces them, is not a
    /// regular file.
    pub(super) fn trusted_roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let path = (self.variable)("SSL_CERT_FILE").map(PathBuf::from);
        match path.filter(|path| path.metadata().is_ok_and(|metadata| !metadata.is_file())) {
            Some(path) => Err(format!(
                "the environment's SSL_CERT_FILE, {}, is not a regular file; set the path of a PEM file, or unset it",
                path.display()
            )),
            None => Ok((self.system_roots)()),
        }
    }

    /// Returns the directory of the unit's systemd credentials. Returns `None` outside of a unit
    /// with credentials.
    pub fn credentials_directory(&self) -> Option<PathBuf> {
        (self.variable)("CREDENTIALS_DIRECTORY").filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// Returns the first directory of `$LOGS_DIRECTORY`, a list separated by colons.
    pub(super) fn logs_directory(&self) -> Option<PathBuf> {
        let value = (self.variable)("LOGS_DIRECTORY")?;
        env::split_paths(&value).next().filter(|path| path.is_absolute())
    }

    /// Returns the first directory of `$STATE_DIRECTORY`, a list separated by colons.
    pub(super) fn state_directory(&self) -> Option<PathBuf> {
        let value = (self.variable)("STATE_DIRECTORY")?;
        env::split_paths(&value).next().filter(|path| path.is_absolute())
    }

    /// Returns variable and value of the environment's proxy for this target. Returns `None` for a
    /// direct connection.
    ///
    /// As in Go, targets on this machine are never proxied. `HTTP_PROXY` in capitals is ignored,
    /// because a CGI server sets it from a request header (CVE-2016-5385).
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

    /// Returns whether `no_proxy` contains the target. As in curl, commas, spaces and tabs separate
    /// entries.
    fn is_exempt(&self, target: &Url) -> bool {
        let set = |name: &&str| (self.variable)(name).filter(|value| !value.is_empty());
        let list = ["no_proxy", "NO_PROXY"].iter().find_map(set).unwrap_or_default();
        let list = list.to_string_lossy().to_ascii_lowercase();
        list.split([',', ' ', '\t']).any(|entry| exempts(entry, target))
    }
}

/// Returns whether an entry of `no_proxy`, in lower case, matches the target. In addition to curl's
/// syntax, an entry may have a port, brackets around an IPv6 address, and, as in Go, `*` for every
/// target or as the first label.
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

/// Returns whether the entry is the host or a parent domain. A trailing dot of either and a leading
/// dot of the entry are ignored.
fn is_domain_of(entry: &str, host: &str) -> bool {
    let [entry, host] = [entry, host].map(|name| name.strip_suffix('.').unwrap_or(name));
    let domain = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
    let above = |rest: &str| rest.is_empty() || rest.ends_with('.');
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(above)
}

/// Returns a warning with a remedy if other users can read or replace a secret's file. Credentials
/// are protected by systemd, and files that cannot be checked are reported when they are read.
/// `service_group` is the group of the service for which the file is checked.
pub(super) fn exposure(source: &KeySource, service_group: Option<&str>) -> Option<String> {
    let KeySource::File(path) = source else { return None };
    readable_by_others(path, service_group).or_else(|| replaceable_by_others(path))
}

/// Returns a warning with a remedy if other users can replace the file or a link to it.
fn replaceable_by_others(path: &Path) -> Option<String> {
    let target = path.canonicalize().ok()?;
    let (directory, mode) = open_directory(path).or_else(|| open_directory(&target))?;
    // Others need the directories of the system.
    let is_ours = directory.starts_with(Usage::Configuration.place()) && mode & 0o1000 == 0;
    let remedy = if is_ours {
        format!("run: chmod go-w {}", quoted(&directory.to_string_lossy()))
    } else {
        let place = Usage::Key.place();
        format!("move the file to {place}, or to another directory in which only its owner can write")
    };
    Some(format!(
        "other users can replace {}: the mode of {} is {mode:04o}; {remedy}",
        path.display(),
        directory.display()
    ))
}

/// Returns the directory above `path` that other users can write to, and its mode. For the
/// directory of the file itself, group members count as other users. A sticky directory is safe for
/// files of root, of this user and of the directory's owner.
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

fn readable_by_others(path: &Path, service_group: Option<&str>) -> Option<String> {
    let metadata = path.metadata().ok().filter(Metadata::is_file)?;
    // Packages install keys like this: owned by root, readable by the group of the service.
    let of_root = metadata.uid() == 0;
    let forbidden = if of_root { 0o037 } else { 0o077 };
    let mode = metadata.mode() & 0o777;
    (mode & forbidden != 0).then(|| {
        let remedy =
            chmod_command(path, (metadata.uid(), metadata.gid()), geteuid().is_root(), service_group);
        format!("other users can access {}, whose mode is {mode:04o}; run: {remedy}", path.display())
    })
}

/// Returns the command that removes the permissions of others. The group is kept unless it is
/// root's, because the service may read the file through it.
fn chmod_command(path: &Path, owner: (u32, u32), by_root: bool, service_group: Option<&str>) -> String {
    let path = quoted(&path.to_string_lossy());
    let group = if by_root { service_group } else { Some("langmart-prober") };
    match (owner, group) {
        ((0, 1..), _) => format!("chmod 640 {path}"),
        ((0, _), Some(group)) => format!("chmod 640 {path} && chgrp {group} {path}"),
        _ => format!("chmod 600 {path}"),
    }
}

/// Returns whether the URL is on this machine.
pub(super) fn is_loopback(target: &Url) -> bool {
    match target.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// Returns whether the entry is the address or a network that contains it, such as `192.0.2.0/24`.
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

/// Reads the certificates of a PEM file, at least one, each usable as a trusted root.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path, MAX_CA_FILE_BYTES).map_err(|error| {
        format!("cannot be read: {error}; provide a PEM file that the prober's user can read")
    })?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| "is not PEM; provide a file of -----BEGIN CERTIFICATE----- blocks".to_owned())?;
    if certificates.is_empty() {
        return Err("has no certificate; provide a file of -----BEGIN CERTIFICATE----- blocks".to_owned());
    }
    let mut roots = rustls::RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let problem = || format!("has a certificate that is not usable as a root, number {}", index + 1);
        roots.add(certificate.clone()).map_err(|_| problem())?;
    }
    Ok(certificates)
}

/// Reads a secret from a file.
pub(super) fn secret_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = read_file(path, MAX_SECRET_BYTES).map_err(|error| {
        format!("{} cannot be read: {error}; provide a file that the prober's user can read", path.display())
    })?;
    let text = str::from_utf8(&bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a regular file. Fails if it has more than `most` bytes.
pub(super) fn read_file(path: &Path, max_bytes: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    read_bounded(open_regular(path)?, max_bytes)
}

/// Opens a regular file. Fails for other kinds of files, because opening or reading them could
/// block.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let regular = |metadata: &Metadata| {
        if metadata.is_file() { Ok(()) } else { Err(io::Error::other("not a regular file")) }
    };
    // Opening some devices has side effects.
    regular(&path.metadata()?)?;
    let open = |flags: OFlags| File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match open(OFlags::NONBLOCK | OFlags::NOCTTY) {
        // Another process holds a lease; opening without O_NONBLOCK waits until the kernel has
        // broken it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => open(OFlags::NOCTTY)?,
        opened => opened?,
    };
    // The file may have been replaced in between.
    regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads everything. Fails if it is more than `most` bytes.
fn read_bounded(source: impl Read, max_bytes: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Large enough for most files, because growing would leave copies of secrets in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_bytes.min(READ_CAPACITY) as usize));
    source.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
