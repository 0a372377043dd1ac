//! The settings of the service's systemd unit that matter to its configuration, from the unit file
//! and its drop-ins.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::config::{
    environment::read_file,
    model::{KeySource, is_match},
    shell::quoted,
};

/// The unit that the packages install.
const PACKAGED: &str = include_str!("../../../systemd/langmart-prober.service");

/// Name of the unit file; its drop-ins are in a directory of that name with `.d`.
const FILE_NAME: &str = "langmart-prober.service";

/// The directories of units, by descending precedence (systemd.unit(5)).
const DIRECTORIES: [&str; 6] = [
    "etc/systemd/system.control",
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// Maximum size of a unit file or environment file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The file in which the unit passes a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CredentialFile {
    pub(super) path: PathBuf,
    pub(super) is_encrypted: bool,
}

/// The directories of the system that the unit does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    /// `/home`, `/root` and `/run/user`.
    pub(super) home: bool,
    /// `/tmp` and `/var/tmp`, which are the unit's own.
    pub(super) tmp: bool,
}

/// Whether a set of capabilities has the one that binds any port. `None` if the set has its initial
/// value.
type BindsPorts = Option<bool>;

/// The unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Whether a unit file is installed. If not, the values are those of the packaged unit.
    pub(super) is_installed: bool,
    pub(super) user: String,
    /// Empty if it is the user's.
    pub(super) group: String,
    pub(super) supplementary_groups: Vec<String>,
    pub(super) hides: Hidden,
    /// Whether all other directories are read-only.
    pub(super) is_read_only: bool,
    pub(super) writable: Vec<PathBuf>,
    pub(super) logs_directory: Option<PathBuf>,
    pub(super) state_directory: Option<PathBuf>,
    pub(super) bounding: BindsPorts,
    pub(super) ambient: BindsPorts,
    /// Whether capabilities have no effect outside of the unit's own users.
    pub(super) has_private_users: bool,
    pub(super) credentials: BTreeMap<String, CredentialFile>,
    /// Names of the credentials whose values are in the unit.
    pub(super) set_credentials: Vec<String>,
    /// Patterns of the names of credentials that systemd finds in its stores.
    pub(super) imported_credentials: Vec<String>,
    /// As written: a leading hyphen makes a file optional.
    pub(super) environment_files: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
}

impl Unit {
    /// Reads the unit below a root directory, `/` except in tests.
    pub fn read(root: &Path) -> Self {
        let text = |path: PathBuf| {
            let bytes = read_file(&path, MAX_FILE_BYTES).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let installed = DIRECTORIES.iter().find_map(|directory| text(root.join(directory).join(FILE_NAME)));
        let mut unit = Self { is_installed: installed.is_some(), ..Self::default() };
        unit.apply(installed.as_deref().unwrap_or(PACKAGED));
        for drop_in in drop_ins(root).into_values().filter_map(text) {
            unit.apply(&drop_in);
        }
        unit.read_environment(root);
        unit
    }

    /// Returns the value of a variable in the environment of the service.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Returns whether the unit may pass a credential that this process does not read.
    pub(super) fn sets_credential(&self, name: &str) -> bool {
        self.set_credentials.iter().any(|set| set == name)
            || self.imported_credentials.iter().any(|glob| is_match(glob.as_bytes(), name.as_bytes()))
    }

    /// Returns whether the service can bind ports that need a privilege.
    pub(super) fn binds_any_port(&self) -> bool {
        self.ambient.unwrap_or(false) && self.bounding.unwrap_or(true) && !self.has_private_users
    }

    /// Returns the paths of the environment files, of which the first is for keys.
    pub(super) fn environment_files(&self) -> impl Iterator<Item = &str> {
        self.environment_files.iter().map(|path| path.strip_prefix('-').unwrap_or(path))
    }

    /// Applies the assignments of a unit file or drop-in.
    fn apply(&mut self, text: &str) {
        let mut in_service = false;
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                in_service = line == "[Service]";
            } else if let Some((key, value)) = line.split_once('=').filter(|_| in_service)
                && !line.starts_with(['#', ';'])
            {
                self.set(key.trim(), value.trim());
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let below = |base: &str| {
            let first = value.split_whitespace().next()?;
            Some(Path::new(base).join(first.split(':').next()?))
        };
        match key {
            "User" => value.clone_into(&mut self.user),
            "Group" => value.clone_into(&mut self.group),
            "SupplementaryGroups" if value.is_empty() => self.supplementary_groups.clear(),
            "SupplementaryGroups" => {
                self.supplementary_groups.extend(value.split_whitespace().map(str::to_owned));
            }
            "ProtectHome" => self.hides.home = matches!(value, "yes" | "true" | "on" | "1" | "tmpfs"),
            "PrivateTmp" => self.hides.tmp = matches!(value, "yes" | "true" | "on" | "1" | "disconnected"),
            "ProtectSystem" => self.is_read_only = value == "strict",
            "AmbientCapabilities" => self.ambient = merged(self.ambient, false, value),
            "CapabilityBoundingSet" => self.bounding = merged(self.bounding, true, value),
            "PrivateUsers" => self.has_private_users = !matches!(value, "" | "no" | "false" | "off" | "0"),
            "LogsDirectory" => self.logs_directory = below("/var/log"),
            "StateDirectory" => self.state_directory = below("/var/lib"),
            "ReadWritePaths" if value.is_empty() => self.writable.clear(),
            "ReadWritePaths" => self.writable.extend(
                value.split_whitespace().map(|path| PathBuf::from(path.trim_start_matches(['-', '+']))),
            ),
            "EnvironmentFile" if value.is_empty() => self.environment_files.clear(),
            "EnvironmentFile" => self.environment_files.push(value.to_owned()),
            "Environment" => self.environment.extend(
                value.split_whitespace().filter_map(|word| assignment(word.trim_matches(['"', '\'']))),
            ),
            "LoadCredential" | "LoadCredentialEncrypted" => self.load_credential(key, value),
            "SetCredential" | "SetCredentialEncrypted" if value.is_empty() => self.set_credentials.clear(),
            "SetCredential" | "SetCredentialEncrypted" => {
                self.set_credentials.extend(value.split(':').next().map(str::to_owned));
            }
            "ImportCredential" if value.is_empty() => self.imported_credentials.clear(),
            // A second part replaces the beginning of the name.
            "ImportCredential" => self.imported_credentials.push(match value.split_once(':') {
                Some((_, renamed)) => format!("{renamed}*"),
                None => value.to_owned(),
            }),
            _ => {}
        }
    }

    fn load_credential(&mut self, key: &str, value: &str) {
        let is_encrypted = key == "LoadCredentialEncrypted";
        if value.is_empty() {
            self.credentials.retain(|_, file| file.is_encrypted != is_encrypted);
            return;
        }
        // Without a path, systemd searches the credential stores.
        let (name, path) = value.split_once(':').unwrap_or((value, value));
        let store = if is_encrypted { "/etc/credstore.encrypted" } else { "/etc/credstore" };
        let path = Path::new(store).join(path);
        self.credentials.insert(name.to_owned(), CredentialFile { path, is_encrypted });
    }

    /// Reads the environment files. As in systemd, lines that are no assignment, such as those that
    /// begin with `export`, are ignored.
    fn read_environment(&mut self, root: &Path) {
        let files: Vec<PathBuf> =
            self.environment_files().map(|path| root.join(path.trim_start_matches('/'))).collect();
        for file in files {
            let Ok(bytes) = read_file(&file, MAX_FILE_BYTES) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            self.environment.extend(text.lines().filter_map(|line| assignment(line.trim())));
        }
    }
}

/// Merges an assignment of capabilities as systemd does: the first one replaces the initial set,
/// all or none, others add to it, or remove from it after a tilde. Without a name, they reset it.
fn merged(set: BindsPorts, initial: bool, value: &str) -> BindsPorts {
    let (names, is_inverted) = value.strip_prefix('~').map_or((value, false), |names| (names, true));
    let mut names = names.split_whitespace().peekable();
    if names.peek().is_none() {
        return (is_inverted != initial).then_some(is_inverted);
    }
    let is_named = names.any(|name| name.eq_ignore_ascii_case("CAP_NET_BIND_SERVICE"));
    Some(match set {
        None => is_named != is_inverted,
        Some(has) if is_inverted => has && !is_named,
        Some(has) => has || is_named,
    })
}

/// Returns the drop-ins by their file names, which is the order in which they apply. One of a
/// directory of higher precedence replaces others of its name.
fn drop_ins(root: &Path) -> BTreeMap<std::ffi::OsString, PathBuf> {
    let mut found = BTreeMap::new();
    for directory in DIRECTORIES {
        let entries = fs::read_dir(root.join(directory).join(format!("{FILE_NAME}.d")));
        for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.extension() == Some(OsStr::new("conf"))
                && let Some(name) = path.file_name()
            {
                found.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    found
}

/// Parses `NAME=value`, with or without quotes around the value.
fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = !name.is_empty() && name.chars().all(fits);
    let value = value.trim();
    let bare = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    is_name.then(|| (name.to_owned(), bare.unwrap_or(value).to_owned()))
}

/// Returns the command line that runs a command with the keys of the service. `sources` are the
/// sources that this process cannot read. Returns `None` if the service has none of them.
pub fn systemd_run(unit: &Unit, sources: &[KeySource], is_root: bool, command: &str) -> Option<String> {
    let mut properties = Vec::new();
    let mut is_useful = false;
    let mut files = unit.environment_files().filter(|path| Path::new(path).exists()).peekable();
    for source in sources {
        match source {
            KeySource::Credential(name) => {
                let file = unit.credentials.get(name).cloned().unwrap_or_else(|| default_file(name));
                let kind = if file.is_encrypted { "LoadCredentialEncrypted" } else { "LoadCredential" };
                let property = format!("--property={kind}={name}:{}", quoted(&file.path.to_string_lossy()));
                if !properties.contains(&property) {
                    properties.push(property);
                }
                is_useful = true;
            }
            KeySource::Env(_) => is_useful |= files.peek().is_some(),
            KeySource::File(path) => is_useful |= !is_root && (!path.exists() || unit.is_installed),
        }
    }
    properties.extend(files.map(|path| format!("--property=EnvironmentFile={}", quoted(path))));
    let words = ["systemd-run --pipe --wait --collect --quiet".to_owned()].into_iter().chain(properties);
    is_useful.then(|| words.chain([command.to_owned()]).collect::<Vec<_>>().join(" "))
}

/// Returns the file of a credential that the unit does not name.
fn default_file(name: &str) -> CredentialFile {
    let encrypted = Path::new("/etc/credstore.encrypted").join(name);
    if encrypted.exists() {
        CredentialFile { path: encrypted, is_encrypted: true }
    } else {
        CredentialFile { path: Path::new("/etc/credstore").join(name), is_encrypted: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(files: &[(&str, &str)]) -> Unit {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Unit::read(root.path())
    }

    #[test]
    fn packaged_unit_is_the_default() {
        let unit = unit(&[]);
        assert!(!unit.is_installed && unit.hides.home && unit.hides.tmp && unit.is_read_only);
        assert_eq!((unit.user.as_str(), unit.group.as_str()), ("langmart-prober", "langmart-prober"));
        assert_eq!(unit.logs_directory.as_deref(), Some(Path::new("/var/log/langmart-prober")));
        assert_eq!(unit.state_directory.as_deref(), Some(Path::new("/var/lib/langmart-prober")));
        assert_eq!(unit.environment_files().collect::<Vec<_>>(), ["/etc/default/langmart-prober"]);
        assert!(!unit.binds_any_port() && unit.credentials.is_empty());
    }

    #[test]
    fn drop_ins_extend_and_reset_the_unit() {
        let unit = unit(&[
            (
                "lib/systemd/system/langmart-prober.service",
                "[Service]\nUser=a\nReadWritePaths=/a\n[Install]\nUser=no\n",
            ),
            ("usr/lib/systemd/system/langmart-prober.service.d/a.conf", "[Service]\nUser=b\n"),
            (
                "etc/systemd/system/langmart-prober.service.d/a.conf",
                "[Service]\n# User=no\nReadWritePaths=/b \\\n -/c\n",
            ),
            (
                "etc/systemd/system/langmart-prober.service.d/b.conf",
                "[Service]\nLoadCredential=one:/k/one\nLoadCredential=\nLoadCredential=two\n\
                 LoadCredentialEncrypted=three:/k/three\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n",
            ),
            ("etc/systemd/system/langmart-prober.service.d/ignored", "[Service]\nUser=no\n"),
        ]);
        assert!(unit.is_installed && unit.binds_any_port() && !unit.hides.home);
        assert_eq!(unit.user, "a");
        assert_eq!(unit.writable, ["/a", "/b", "/c"].map(PathBuf::from));
        let file = |path: &str, is_encrypted| CredentialFile { path: path.into(), is_encrypted };
        assert_eq!(
            Vec::from_iter(unit.credentials),
            [
                ("three".to_owned(), file("/k/three", true)),
                ("two".to_owned(), file("/etc/credstore/two", false))
            ]
        );
    }

    #[test]
    fn low_port_needs_ambient_and_bounding_capability() {
        let binds = |text: &str| {
            let file = ("lib/systemd/system/langmart-prober.service", format!("[Service]\n{text}\n"));
            unit(&[(file.0, &file.1)]).binds_any_port()
        };
        let ambient = "AmbientCapabilities=CAP_NET_BIND_SERVICE";
        for (others, expected) in [
            ("", true),
            ("CapabilityBoundingSet=", false),
            ("CapabilityBoundingSet=~", true),
            ("CapabilityBoundingSet=CAP_KILL", false),
            ("CapabilityBoundingSet=CAP_KILL\nCapabilityBoundingSet=cap_net_bind_service", true),
            ("CapabilityBoundingSet=~CAP_NET_BIND_SERVICE CAP_KILL", false),
            ("CapabilityBoundingSet=~CAP_KILL", true),
            ("PrivateUsers=yes", false),
            ("PrivateUsers=yes\nPrivateUsers=no", true),
            ("AmbientCapabilities=CAP_KILL", true),
            ("AmbientCapabilities=", false),
            ("AmbientCapabilities=~CAP_NET_BIND_SERVICE", false),
        ] {
            assert_eq!(binds(&format!("{ambient}\n{others}")), expected, "{others}");
        }
        assert!(!binds("AmbientCapabilities=CAP_NET_BIND_SERVICE_OTHER"));
        assert!(binds("AmbientCapabilities=~CAP_KILL"));
    }

    #[test]
    fn environment_is_read_as_systemd_reads_it() {
        let file = "# A=0\nA=\"a b\"\nexport B=b\nC = c\nD='d'\nE=e\n";
        let unit = unit(&[("etc/default/langmart-prober", file)]);
        let values = ["A", "B", "C", "D", "E", "MALLOC_ARENA_MAX"].map(|name| unit.variable(name));
        assert_eq!(values, [Some("a b"), None, None, Some("d"), Some("e"), Some("1")]);
    }

    #[test]
    fn command_line_has_the_files_of_the_unit() {
        let unit = unit(&[(
            "etc/systemd/system/langmart-prober.service",
            "[Service]\nLoadCredentialEncrypted=one:/etc/credstore.encrypted/one\nEnvironmentFile=-/dev/null\n",
        )]);
        let credential = |name: &str| KeySource::Credential(name.to_owned());
        let line = |sources: &[KeySource], root| systemd_run(&unit, sources, root, "c");
        let run = "systemd-run --pipe --wait --collect --quiet";
        let environment = "--property=EnvironmentFile=/dev/null";
        assert_eq!(
            line(&[credential("one"), credential("one"), credential("two")], true).unwrap(),
            format!(
                "{run} --property=LoadCredentialEncrypted=one:/etc/credstore.encrypted/one \
                 --property=LoadCredential=two:/etc/credstore/two {environment} c"
            )
        );
        assert_eq!(line(&[KeySource::Env("A".to_owned())], true).unwrap(), format!("{run} {environment} c"));
        let file = KeySource::File("/k".into());
        assert_eq!(line(std::slice::from_ref(&file), false).unwrap(), format!("{run} {environment} c"));
        assert_eq!((line(&[file], true), line(&[], false)), (None, None));
    }
}
