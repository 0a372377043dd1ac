//! What the service's user and sandbox may read, write and bind, judged by another user: root.

use std::{
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

/// The service as another user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    unit: Unit,
    user: u32,
    groups: Vec<u32>,
}

impl Service {
    /// Returns the service of this machine. Returns `None` if its user does not exist.
    pub fn find(unit: Unit) -> Option<Self> {
        let read = |path: &str| {
            let bytes = read_file(Path::new(path), MAX_USERS_BYTES).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (users, groups) = (read("/etc/passwd")?, read("/etc/group")?);
        let (user, group) = user(&users, &unit.user)?;
        let mut groups = groups_of(&groups, &unit.user, &unit.group);
        groups.push(group);
        Some(Self { unit, user, groups })
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
                None => Err(missing_credential(name)),
                Some(CredentialFile { path, .. }) if !path.exists() => Err(format!(
                    "credential {name}: {} does not exist, so that the unit cannot start; store the key there",
                    path.display()
                )),
                Some(CredentialFile { path, is_encrypted: false }) => secret_file(path).map(Some),
                Some(CredentialFile { is_encrypted: true, .. }) => Ok(None),
            },
        }
    }

    /// Returns why the service cannot read a file, with the remedy. Returns `None` if it can, or if
    /// the file does not exist.
    pub(in crate::config) fn read_problem(&self, path: &Path) -> Option<String> {
        if let Some(problem) = self.hidden(path) {
            return Some(problem);
        }
        let target = path.canonicalize().ok()?;
        if let Some(problem) = self.hidden(&target) {
            return Some(problem);
        }
        let Unit { user, group, .. } = &self.unit;
        let mut remedies: Vec<String> = self
            .closed_directories(path, &target)
            .map(|directory| {
                let directory = directory.display();
                format!("chgrp {group} {directory} && chmod g+x {directory}")
            })
            .collect();
        let metadata = target.metadata().ok()?;
        if !self.may(&target, &metadata, READ) {
            let target = target.display();
            remedies.push(format!("chown root:{group} {target} && chmod 640 {target}"));
        }
        (!remedies.is_empty()).then(|| {
            format!(
                "the service's user {user} cannot read {}; run: {}",
                path.display(),
                remedies.join(" && ")
            )
        })
    }

    /// Returns why the service cannot write to a directory, which it creates if necessary, with the
    /// remedy. Returns `None` if it can.
    pub(in crate::config) fn write_problem(&self, directory: &Path) -> Option<String> {
        let Unit { user, group, writable, logs_directory, state_directory, .. } = &self.unit;
        // systemd creates these for the user.
        let mut own = logs_directory.iter().chain(state_directory);
        if own.any(|own| directory.starts_with(own)) {
            return None;
        }
        if let Some(problem) = self.hidden(directory) {
            return Some(problem);
        }
        let is_read_only = self.unit.is_read_only && !writable.iter().any(|path| directory.starts_with(path));
        let existing = directory.ancestors().find(|path| path.exists())?;
        let metadata = existing.metadata().ok()?;
        let is_closed = !self.may(existing, &metadata, WRITE | ENTER)
            || self.closed_directories(existing, existing).next().is_some();
        let directory = directory.display();
        let create = format!("install -d -o {user} -g {group} -m 0750 {directory}");
        let allow =
            format!("add ReadWritePaths={directory} under [Service] with: systemctl edit langmart-prober");
        match (is_read_only, is_closed) {
            (true, true) => Some(format!(
                "{directory} is read-only for the service (ProtectSystem=strict); run: {create}; then {allow}"
            )),
            (true, false) => {
                Some(format!("{directory} is read-only for the service (ProtectSystem=strict); {allow}"))
            }
            (false, true) => {
                Some(format!("the service's user {user} cannot write to {directory}; run: {create}"))
            }
            (false, false) => None,
        }
    }

    /// Returns why the service cannot listen on an address, with the remedy. Returns `None` if it
    /// can.
    pub(in crate::config) fn listen_problem(&self, address: SocketAddr) -> Option<String> {
        let first = first_free_port();
        let needs_privilege = address.port() != 0 && address.port() < first;
        (needs_privilege && !self.unit.binds_any_port).then(|| {
            let mut free = address;
            free.set_port(10_429);
            format!("the service may not listen on ports below {first}; use a higher one, such as \"{free}\"")
        })
    }

    /// Returns that the sandbox hides a path, and where to put it.
    fn hidden(&self, path: &Path) -> Option<String> {
        let within = |roots: &[&'static str]| roots.iter().find(|root| path.starts_with(root)).copied();
        let homes = within(&HOMES).filter(|_| self.unit.hides.home).map(|root| (root, "ProtectHome=yes"));
        let temporary =
            within(&TEMPORARY).filter(|_| self.unit.hides.tmp).map(|root| (root, "PrivateTmp=yes"));
        let (root, setting) = homes.or(temporary)?;
        Some(hidden_message(path, root, setting))
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

/// Returns the message for a path that the sandbox hides from the service.
pub(in crate::config) fn hidden_message(path: &Path, root: &str, setting: &str) -> String {
    format!(
        "the unit hides {root} from the service ({setting}); move {} to /etc/langmart-prober/keys, or to /var/log or \
         /var/lib/langmart-prober if the service writes it",
        path.display()
    )
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

/// Returns the IDs of the groups of a user from the text of `/etc/group`, that of its unit
/// included.
fn groups_of(groups: &str, user: &str, own: &str) -> Vec<u32> {
    let fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let is_member = |fields: &Vec<&str>| {
        let members = fields.get(3).copied().unwrap_or_default();
        fields.first() == Some(&own) || members.split(',').any(|member| member == user)
    };
    fields.filter(is_member).filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::service::unit::Hidden;

    /// Returns a service whose user and group own none of the files.
    fn service(unit: Unit) -> Service {
        Service { unit, user: 4_000_001, groups: vec![4_000_001] }
    }

    fn packaged() -> Unit {
        Unit { hides: Hidden { home: true, tmp: false }, ..Unit::read(Path::new("/nonexistent")) }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn unreadable_file_has_commands_for_every_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o755);
        let keys = directory.path().canonicalize().unwrap().join("keys");
        fs::create_dir(&keys).unwrap();
        let key = keys.join("langmart");
        fs::write(&key, "k").unwrap();
        let problem = |directory, file| {
            set_mode(&keys, directory);
            set_mode(&key, file);
            service(packaged()).read_problem(&key)
        };
        assert_eq!(problem(0o755, 0o644), None);
        let (keys, key) = (keys.display(), key.display());
        assert_eq!(
            problem(0o755, 0o640).unwrap(),
            format!(
                "the service's user langmart-prober cannot read {key}; run: chown root:langmart-prober {key} && \
                 chmod 640 {key}"
            )
        );
        assert_eq!(
            problem(0o700, 0o600).unwrap(),
            format!(
                "the service's user langmart-prober cannot read {key}; run: chgrp langmart-prober {keys} && \
                 chmod g+x {keys} && chown root:langmart-prober {key} && chmod 640 {key}"
            )
        );
        assert_eq!(service(packaged()).read_problem(Path::new("/nonexistent")), None);
    }

    #[test]
    fn home_is_hidden_unless_the_unit_shows_it() {
        let hidden = service(packaged());
        assert!(hidden.hidden(Path::new("/home/alice/key")).unwrap().contains("ProtectHome=yes"));
        assert!(hidden.write_problem(Path::new("/root/logs")).unwrap().contains("ProtectHome=yes"));
        let open = service(Unit { hides: Hidden::default(), ..packaged() });
        assert_eq!(open.hidden(Path::new("/home/alice/key")), None);
        assert_eq!(hidden.hidden(Path::new("/homes/key")), None);
    }

    #[test]
    fn directory_outside_the_sandbox_needs_read_write_paths() {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o777);
        let logs = directory.path().join("logs");
        let read_only = service(packaged()).write_problem(&logs).unwrap();
        assert!(read_only.contains(&format!("add ReadWritePaths={}", logs.display())), "{read_only}");
        let allowed = Unit { writable: vec![directory.path().to_owned()], ..packaged() };
        assert_eq!(service(allowed.clone()).write_problem(&logs), None);
        set_mode(directory.path(), 0o755);
        let closed = service(allowed).write_problem(&logs).unwrap();
        assert!(closed.contains("run: install -d -o langmart-prober"), "{closed}");
        assert_eq!(service(packaged()).write_problem(Path::new("/var/log/langmart-prober/a")), None);
    }

    #[test]
    fn low_port_needs_a_capability() {
        let listen = |unit, address: &str| service(unit).listen_problem(address.parse().unwrap());
        if first_free_port() > 80 {
            assert!(listen(packaged(), "0.0.0.0:80").unwrap().contains("\"0.0.0.0:10429\""));
        }
        assert_eq!(listen(packaged(), "127.0.0.1:10429"), None);
        assert_eq!(listen(packaged(), "127.0.0.1:0"), None);
        assert_eq!(listen(Unit { binds_any_port: true, ..packaged() }, "0.0.0.0:80"), None);
    }

    #[test]
    fn keys_are_read_as_the_unit_passes_them() {
        let root = tempfile::tempdir().unwrap();
        let plain = root.path().join("plain");
        fs::write(&plain, "k\n").unwrap();
        let drop_in = root.path().join("etc/systemd/system/langmart-prober.service.d");
        fs::create_dir_all(&drop_in).unwrap();
        let text = format!(
            "[Service]\nEnvironment=A=a\nLoadCredential=plain:{}\nLoadCredential=lost:/nonexistent\n\
             LoadCredentialEncrypted=sealed:/dev/null\n",
            plain.display()
        );
        fs::write(drop_in.join("a.conf"), text).unwrap();
        let service = service(Unit::read(root.path()));
        let secret =
            |source: KeySource| service.secret(&source).map(|text| text.map(|text| text.to_string()));
        let credential = |name: &str| KeySource::Credential(name.to_owned());
        assert_eq!(secret(KeySource::Env("A".to_owned())), Ok(Some("a".to_owned())));
        assert_eq!(secret(credential("plain")), Ok(Some("k".to_owned())));
        assert_eq!(secret(credential("sealed")), Ok(None));
        assert!(secret(credential("lost")).unwrap_err().contains("/nonexistent does not exist"));
        assert!(secret(credential("other")).unwrap_err().contains("LoadCredential=other:"));
        assert!(secret(KeySource::Env("B".to_owned())).unwrap_err().contains("B=… without export"));
    }

    #[test]
    fn user_has_its_groups() {
        assert_eq!(
            user("root:x:0:0::\nlangmart-prober:x:997:996::/:/x\n", "langmart-prober"),
            Some((997, 996))
        );
        assert_eq!(user("root:x:0:0::\n", "langmart-prober"), None);
        let groups =
            "root:x:0:\nssl-cert:x:110:www,langmart-prober\nlangmart-prober:x:996:\nother:x:5:prober\n";
        assert_eq!(groups_of(groups, "langmart-prober", "langmart-prober"), [110, 996]);
    }
}
