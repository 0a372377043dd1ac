//! What the service's user and sandbox may read, write and bind, judged by another user: root.

use std::{
    fmt::Write,
    fs::{self, Metadata},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::getxattr;

use super::unit::{CredentialFile, Unit};
use crate::config::{
    environment::{read_file, secret_file},
    model::KeySource,
    shell::quoted,
};

/// Bits of a mode, for one of owner, group and others.
const READ: u32 = 4;
const WRITE: u32 = 2;
const ENTER: u32 = 1;

/// Ports below this need a privilege, unless the kernel is configured otherwise.
const DEFAULT_FIRST_FREE_PORT: u16 = 1024;

/// Maximum size of `/etc/passwd` and `/etc/group`, in bytes.
const MAX_USERS_BYTES: u64 = 16 << 20;

/// Directories that `ProtectHome=yes` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// Directories that `PrivateTmp=yes` replaces.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The use of a path, on which its place depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Usage {
    /// A key.
    Key,
    /// A file of the configuration, or of certificates.
    Configuration,
    /// The directory of logs.
    Logs,
    /// The directory of the state.
    State,
}

impl Usage {
    /// Returns the directory for such paths.
    pub(in crate::config) fn place(self) -> &'static str {
        match self {
            Self::Key => "/etc/langmart-prober/keys",
            Self::Configuration => "/etc/langmart-prober",
            Self::Logs => "/var/log/langmart-prober",
            Self::State => "/var/lib/langmart-prober",
        }
    }
}

/// The service as another user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    unit: Unit,
    user: u32,
    /// Its main group.
    group: u32,
    groups: Vec<u32>,
}

impl Service {
    /// Returns the service of this machine. Returns `None` if its user does not exist.
    pub fn find(mut unit: Unit) -> Option<Self> {
        let read = |path: &str| {
            let bytes = read_file(Path::new(path), MAX_USERS_BYTES).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (users, groups) = (read("/etc/passwd")?, read("/etc/group")?);
        let (user, primary) = user(&users, &unit.user)?;
        let group = if unit.group.is_empty() { primary } else { group(&groups, &unit.group)? };
        // Commands accept a number as well.
        unit.group = if unit.group.is_empty() { group.to_string() } else { unit.group };
        let mut groups = groups_of(&groups, &unit.user, &unit.supplementary_groups);
        groups.push(group);
        Some(Self { unit, user, group, groups })
    }

    /// Returns the value of a variable in the environment of the service.
    pub fn variable(&self, name: &str) -> Option<String> {
        let directory = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        match name {
            "LOGS_DIRECTORY" => directory(&self.unit.logs_directory),
            "STATE_DIRECTORY" => directory(&self.unit.state_directory),
            _ => self.unit.variable(name).map(str::to_owned),
        }
    }

    /// Reads a secret as systemd passes it to the service. Returns `None` if only systemd can read
    /// it.
    pub(in crate::config) fn secret(
        &self,
        source: &KeySource,
    ) -> Result<Option<zeroize::Zeroizing<String>>, String> {
        match source {
            KeySource::Env(name) => match self.unit.variable(name) {
                Some(value) => Ok(Some(value.to_owned().into())),
                None => Err(missing_variable(name, self.unit.environment_files().next())),
            },
            KeySource::File(path) => secret_file(path).map(Some),
            KeySource::Credential(name) => match self.unit.credentials.get(name) {
                Some(CredentialFile { path, is_encrypted }) if path.exists() => {
                    if *is_encrypted {
                        Ok(None)
                    } else {
                        secret_file(path).map(Some)
                    }
                }
                _ if self.unit.sets_credential(name) => Ok(None),
                Some(CredentialFile { path, .. }) => Err(format!(
                    "credential {name}: {} does not exist, so that the unit cannot start; store the key there",
                    path.display()
                )),
                None => Err(missing_credential(name)),
            },
        }
    }

    /// Returns the group of the service.
    pub(in crate::config) fn group(&self) -> &str {
        &self.unit.group
    }

    /// Returns why the service cannot read a file or list a directory, with the remedy. Returns
    /// `None` if it can, or if the path does not exist.
    pub(in crate::config) fn read_problem(&self, path: &Path, usage: Usage) -> Option<String> {
        if let Some(problem) = self.hidden(path, usage) {
            return Some(problem);
        }
        let target = path.canonicalize().ok()?;
        if let Some(problem) = self.hidden(&target, usage) {
            return Some(problem);
        }
        let metadata = target.metadata().ok()?;
        let bits = if metadata.is_dir() { READ | ENTER } else { READ };
        let closed = self.closed_directories(path, &target).map(|directory| (directory, ENTER));
        let closed: Vec<_> =
            closed.chain((!self.may(&target, &metadata, bits)).then_some((&*target, bits))).collect();
        if closed.is_empty() {
            return None;
        }
        let commands: Option<Vec<_>> =
            closed.into_iter().map(|(path, bits)| self.opening(path, bits)).collect();
        let remedy = match commands {
            Some(commands) => format!("run: {}", commands.join(" && ")),
            None if metadata.is_dir() => format!("move the files to a directory in {}", usage.place()),
            None => self.copy(path, &target, usage),
        };
        Some(format!("the service's user {} cannot read {}; {remedy}", self.unit.user, path.display()))
    }

    /// Returns why the service cannot write to a directory, which it creates if necessary, with the
    /// remedy. Returns `None` if it can.
    pub(in crate::config) fn write_problem(&self, directory: &Path, usage: Usage) -> Option<String> {
        if let Some(problem) = self.hidden(directory, usage) {
            return Some(problem);
        }
        let existing = directory.ancestors().find(|path| path.exists())?;
        let own = self.own(directory);
        // systemd creates it for the user.
        if own.is_some_and(|own| own.starts_with(existing)) {
            return None;
        }
        let is_writable = self.may(existing, &existing.metadata().ok()?, WRITE | ENTER);
        let is_read_only = self.unit.is_read_only && own.is_none() && !self.is_opened(directory);
        let real = existing.canonicalize().ok()?.join(directory.strip_prefix(existing).ok()?);
        let parents = self.closed_directories(directory, &real);
        let commands: Option<Vec<_>> = parents.map(|parent| self.opening(parent, ENTER)).collect();
        if is_writable && !is_read_only && commands.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let Unit { user, group, .. } = &self.unit;
        let mut message = if is_read_only {
            format!("{} is read-only for the service (ProtectSystem=strict)", directory.display())
        } else {
            format!("the service's user {user} cannot write to {}", directory.display())
        };
        // A directory of others keeps its owner and mode.
        let is_foreign = !is_writable && existing == directory && own.is_none();
        let advised = if is_foreign { directory.join("langmart-prober") } else { directory.to_owned() };
        let Some(mut commands) = commands.filter(|_| own.is_some() || self.own(&advised).is_none()) else {
            return Some(format!("{message}; use {} instead", usage.place()));
        };
        if is_foreign {
            let _ = write!(message, "; use {} instead", advised.display());
        }
        if is_read_only && !self.is_opened(&advised) {
            let _ = write!(
                message,
                "; add ReadWritePaths={} under [Service] with: systemctl edit langmart-prober",
                advised.display()
            );
        }
        // The unit does not start without a directory in ReadWritePaths=.
        if !is_writable || is_read_only && existing != directory {
            commands.push(format!("install -d -o {user} -g {group} -m 0750 {}", word(&advised)));
        }
        if !commands.is_empty() {
            let _ = write!(message, "; run: {}", commands.join(" && "));
        }
        Some(message)
    }

    /// Returns why the service cannot listen on an address, with the remedy. Returns `None` if it
    /// can.
    pub(in crate::config) fn listen_problem(&self, address: SocketAddr) -> Option<String> {
        let first = first_free_port();
        let needs_privilege = address.port() != 0 && address.port() < first;
        (needs_privilege && !self.unit.binds_any_port()).then(|| {
            let mut free = address;
            free.set_port(10_429);
            format!("the service may not listen on ports below {first}; use a higher one, such as \"{free}\"")
        })
    }

    /// Returns that the sandbox hides a path, and where to put it.
    fn hidden(&self, path: &Path, usage: Usage) -> Option<String> {
        let home = home_of(path).filter(|_| self.unit.hides.home).map(|root| (root, "ProtectHome=yes"));
        let temporary = TEMPORARY.into_iter().find(|root| self.unit.hides.tmp && path.starts_with(root));
        let (root, setting) = home.or(temporary.map(|root| (root, "PrivateTmp=yes")))?;
        Some(hidden_message(path, root, setting, usage))
    }

    /// Returns the directory of the service that contains a path.
    fn own(&self, path: &Path) -> Option<&Path> {
        let Unit { logs_directory, state_directory, .. } = &self.unit;
        let mut own = logs_directory.iter().chain(state_directory).map(PathBuf::as_path);
        own.find(|own| path.starts_with(own))
    }

    /// Returns whether the unit makes a path writable.
    fn is_opened(&self, path: &Path) -> bool {
        self.unit.writable.iter().any(|writable| path.starts_with(writable))
    }

    /// Returns the command that grants the service access to an existing path. Returns `None` if
    /// it would remove the access of others, whose group the path has.
    fn opening(&self, path: &Path, bits: u32) -> Option<String> {
        let metadata = path.metadata().ok()?;
        let (group, path_word) = (&self.unit.group, word(path));
        let added: String =
            [(READ, 'r'), (ENTER, 'x')].iter().filter(|(bit, _)| bits & bit != 0).map(|(_, c)| c).collect();
        if metadata.uid() == self.user {
            return Some(format!("chmod u+{added} {path_word}"));
        }
        // The members of its other groups gain no access.
        if metadata.gid() == self.group {
            return Some(format!("chmod g+{added} {path_word}"));
        }
        let is_ours = path.starts_with(Usage::Configuration.place());
        if metadata.is_dir() {
            let is_free = is_ours || metadata.gid() == 0;
            return is_free.then(|| format!("chgrp {group} {path_word} && chmod g+{added} {path_word}"));
        }
        let is_free = is_ours || (metadata.uid(), metadata.gid()) == (0, 0);
        is_free.then(|| format!("chown root:{group} {path_word} && chmod 640 {path_word}"))
    }

    /// Returns the remedy for a file of others: a copy for the service.
    fn copy(&self, path: &Path, target: &Path, usage: Usage) -> String {
        // Of the whole path, because keys of several providers may have one name.
        let copy = Path::new(usage.place()).join(path.to_string_lossy().trim_matches('/').replace('/', "-"));
        format!(
            "use {} instead, and run: install -D -m 0640 -o root -g {} {} {}",
            copy.display(),
            self.unit.group,
            word(target),
            word(&copy)
        )
    }

    /// Returns the directories above a path and its target that the user may not enter, from the
    /// root on.
    fn closed_directories<'a>(&self, path: &'a Path, target: &'a Path) -> impl Iterator<Item = &'a Path> {
        let mut directories: Vec<&Path> = path.ancestors().chain(target.ancestors()).collect();
        directories.sort_by_key(|directory| (directory.components().count(), *directory));
        directories.dedup();
        directories.retain(|directory| {
            *directory != path
                && *directory != target
                && directory
                    .metadata()
                    .is_ok_and(|metadata| metadata.is_dir() && !self.may(directory, &metadata, ENTER))
        });
        directories.into_iter()
    }

    /// Returns whether the mode of a file permits this. Access control lists are not evaluated: a
    /// file with one counts as accessible.
    fn may(&self, path: &Path, metadata: &Metadata, bits: u32) -> bool {
        let shift = if metadata.uid() == self.user {
            6
        } else if self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        let has_list = || getxattr(path, "system.posix_acl_access", &mut [0_u8; 0]).is_ok();
        self.user == 0 || (metadata.mode() >> shift) & bits == bits || has_list()
    }
}

/// Returns the directory of homes that contains a path.
pub(in crate::config) fn home_of(path: &Path) -> Option<&'static str> {
    HOMES.into_iter().find(|root| path.starts_with(root))
}

/// Returns the message for a path that the sandbox hides from the service.
pub(in crate::config) fn hidden_message(path: &Path, root: &str, setting: &str, usage: Usage) -> String {
    let (path, place) = (path.display(), usage.place());
    match usage {
        Usage::Key | Usage::Configuration => {
            format!("the unit hides {root} from the service ({setting}); move {path} to {place}")
        }
        Usage::Logs | Usage::State => {
            format!("the unit hides {root} from the service ({setting}); use {place} instead of {path}")
        }
    }
}

/// Returns a path as one word of a shell.
fn word(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Returns the message for a variable that the service does not have.
pub(in crate::config) fn missing_variable(name: &str, file: Option<&str>) -> String {
    let file = file.unwrap_or("/etc/default/langmart-prober");
    format!(
        "environment variable {name} is not set for the service; add a line {name}=… without export to {file}, \
         then run: systemctl restart langmart-prober"
    )
}

/// Returns the message for a credential that the unit does not pass.
pub(in crate::config) fn missing_credential(name: &str) -> String {
    format!(
        "credential {name} is not passed by the unit; copy credentials.conf from \
         /usr/share/doc/langmart-prober/examples to /etc/systemd/system/langmart-prober.service.d, with a line \
         LoadCredential={name}:/etc/credstore/{name}, then run: systemctl daemon-reload && systemctl restart \
         langmart-prober"
    )
}

/// Returns the first port that needs no privilege.
pub(in crate::config) fn first_free_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT_FIRST_FREE_PORT)
}

/// Returns the IDs of a user and its group from the text of `/etc/passwd`.
fn user(users: &str, name: &str) -> Option<(u32, u32)> {
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&name))?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

/// Returns the ID of a group, which may be given by it, from the text of `/etc/group`.
fn group(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = lines.find(|fields| fields.first() == Some(&name));
    named.map_or(name, |fields| fields.get(2).copied().unwrap_or_default()).parse().ok()
}

/// Returns the IDs of the supplementary groups of a user from the text of `/etc/group`, those of
/// its unit included.
fn groups_of(groups: &str, user: &str, own: &[String]) -> Vec<u32> {
    let fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let is_member = |fields: &Vec<&str>| {
        let members = fields.get(3).copied().unwrap_or_default();
        own.iter().any(|own| fields.first() == Some(&own.as_str()) || fields.get(2) == Some(&own.as_str()))
            || members.split(',').any(|member| member == user)
    };
    fields.filter(is_member).filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
