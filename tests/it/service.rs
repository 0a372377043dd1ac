//! Tests of `check-config` as root and before a reload, with the user of the service.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
    process::Output,
};

use crate::harness::{daemon::PROBER, host::Host};

/// User and group of the service on the test's machine.
const SERVICE: u32 = 4_242;

const KEY: &str = "sk-test-0123456789\n";

/// A machine with the service's user, and a directory of /etc for its configuration.
struct Machine {
    host: Host,
    directory: PathBuf,
}

/// Result of a command.
struct Shown {
    status: Option<i32>,
    text: String,
}

impl Machine {
    fn new() -> Option<Self> {
        let host = Host::new()?;
        host.etc("passwd", "root:x:0:0::/root:/bin/sh\nlangmart-prober:x:4242:4242::/:/usr/sbin/nologin\n");
        host.etc("group", "root:x:0:\nlangmart-prober:x:4242:\n");
        let directory = host.etc_path("prober");
        fs::create_dir_all(directory.join("keys")).unwrap();
        for path in [directory.clone(), directory.join("keys")] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        let machine = Self { host, directory };
        machine.write("keys/langmart", KEY, 0o640, SERVICE);
        Some(machine)
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str, mode: u32, group: u32) {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        chown(&path, Some(0), Some(group)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Writes a configuration with a readable key, and lines before and after its provider.
    fn configure(&self, before: &str, key: &str) {
        let text = format!("{before}\n[provider.langmart]\napi_key = {{ {key} }}\nchecks = [\"auth\"]\n");
        self.write("config.toml", &text.replace("DIR", self.directory.to_str().unwrap()), 0o644, 0);
    }

    /// Checks the configuration as root.
    fn by_root(&self) -> Shown {
        let mut command = self.host.on(PROBER);
        command.args(["check-config", "--config", &self.path("config.toml")]).env_remove("LANGMART_API_KEY");
        shown(&command.output().unwrap())
    }

    /// Checks the configuration as the unit does before a reload.
    fn before_reload(&self) -> Shown {
        let mut command = self.host.on("setpriv");
        command.args(["--reuid=4242", "--regid=4242", "--clear-groups", PROBER]);
        command.args(["check-config", "--strict", "--quiet", "--config", &self.path("config.toml")]);
        shown(&command.output().unwrap())
    }

    /// Runs the commands that a message prints after `run: `.
    #[track_caller]
    fn follow(&self, text: &str) {
        let (_, command) = text.split_once("run: ").unwrap_or_else(|| panic!("no command in: {text}"));
        let command = command.lines().next().unwrap();
        let status = self.host.on("sh").args(["-ec", command]).status().unwrap();
        assert!(status.success(), "{command}");
    }
}

fn shown(output: &Output) -> Shown {
    let text = String::from_utf8_lossy(&output.stderr);
    // `ip netns exec` reports files of the machine that /etc lacks.
    let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("Bind "));
    let text = lines.collect();
    Shown { status: output.status.code(), text }
}

const FILE: &str = "file = \"DIR/keys/langmart\"";

#[test]
fn good_configuration_has_no_warning_as_root() {
    let Some(machine) = Machine::new() else { return };
    machine.configure("", FILE);
    let Shown { status, text } = machine.by_root();
    assert_eq!((status, text.as_str()), (Some(0), ""));
    let Shown { status, text } = machine.before_reload();
    assert_eq!((status, text.as_str()), (Some(0), ""));
}

#[test]
fn file_of_root_is_warned_of_and_fails_the_reload() {
    let Some(machine) = Machine::new() else { return };
    for (name, directory_mode) in [("config.toml", 0o755), ("keys/langmart", 0o755), ("keys/langmart", 0o700)]
    {
        machine.write("keys/langmart", KEY, 0o640, SERVICE);
        machine.configure("", FILE);
        let path = machine.path(name);
        fs::set_permissions(machine.path("keys"), Permissions::from_mode(directory_mode)).unwrap();
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let Shown { status, text } = machine.by_root();
        let message = format!("the service's user langmart-prober cannot read {path}; run: ");
        assert!(status == Some(0) && text.starts_with("warning: ") && text.contains(&message), "{text}");
        let refused = machine.before_reload();
        assert!(refused.status == Some(78) && refused.text.contains("Permission denied"), "{}", refused.text);
        machine.follow(&text);
        let followed = machine.by_root();
        assert_eq!((followed.status, followed.text.as_str()), (Some(0), ""), "{name}");
        let followed = machine.before_reload();
        assert_eq!((followed.status, followed.text.as_str()), (Some(0), ""), "{name}");
    }
}

#[test]
fn sandbox_of_the_unit_is_warned_of_as_root() {
    let Some(machine) = Machine::new() else { return };
    for (before, key, message) in [
        (
            "",
            "file = \"/home/someone/key\"",
            "the unit hides /home from the service (ProtectHome=yes); move ",
        ),
        (
            "[log]\ndirectory = \"/srv/prober-logs\"",
            FILE,
            "add ReadWritePaths=/srv/prober-logs under [Service] with: systemctl edit",
        ),
        (
            "[state]\ndirectory = \"/srv/prober-state\"",
            FILE,
            "/srv/prober-state is read-only for the service (ProtectSystem=strict)",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:80\"",
            FILE,
            "the service may not listen on ports below 1024; use a higher one, such as \"127.0.0.1:10429\"",
        ),
        (
            "",
            "env = \"LANGMART_API_KEY\"",
            "LANGMART_API_KEY is not set for the service; add a line LANGMART_API_KEY=… without export to /etc/default/langmart-prober",
        ),
        (
            "",
            "credential = \"no-such-credential\"",
            "LoadCredential=no-such-credential:/etc/credstore/no-such-credential",
        ),
    ] {
        machine.configure(before, key);
        let Shown { status, text } = machine.by_root();
        assert!(status == Some(0) && text.contains(message), "{key} {before}: {text}");
    }
}

#[test]
fn exposed_key_of_root_is_readable_after_the_remedy() {
    let Some(machine) = Machine::new() else { return };
    machine.write("keys/it's $HOME", KEY, 0o644, 0);
    machine.configure("", "file = \"DIR/keys/it's $HOME\"");
    let Shown { status, text } = machine.by_root();
    assert!(status == Some(78) && text.contains("other users can access"), "{text}");
    machine.follow(&text);
    for followed in [machine.by_root(), machine.before_reload()] {
        assert_eq!((followed.status, followed.text.as_str()), (Some(0), ""));
    }
}

#[test]
fn unlistable_directory_of_a_wildcard_is_warned_of() {
    let Some(machine) = Machine::new() else { return };
    machine.configure("include = [\"conf.d/*.toml\"]", FILE);
    let directory = machine.path("conf.d");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let Shown { status, text } = machine.by_root();
    let message = format!("the service's user langmart-prober cannot read {directory}; run: ");
    assert!(status == Some(0) && text.contains(&message), "{text}");
    assert_eq!(machine.before_reload().status, Some(78));
    machine.follow(&text);
    for followed in [machine.by_root(), machine.before_reload()] {
        assert_eq!((followed.status, followed.text.as_str()), (Some(0), ""));
    }
}

#[test]
fn file_of_another_group_is_copied_by_the_remedy() {
    let Some(machine) = Machine::new() else { return };
    machine.configure("", FILE);
    fs::set_permissions(machine.path("config.toml"), Permissions::from_mode(0o640)).unwrap();
    chown(machine.path("config.toml"), Some(0), Some(4_243)).unwrap();
    let Shown { status, text } = machine.by_root();
    assert!(status == Some(0) && text.contains("; use /etc/langmart-prober/"), "{text}");
    machine.follow(&text.replace("/etc/langmart-prober", &machine.path("etc")));
    let copies: Vec<_> =
        fs::read_dir(machine.path("etc")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [copy] = &copies[..] else { panic!("{copies:?}") };
    assert_eq!(fs::read(copy).unwrap(), fs::read(machine.path("config.toml")).unwrap());
    let output = machine.host.on("stat").args(["-c", "%a:%U:%G"]).arg(copy).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "640:root:langmart-prober\n");
    let original = fs::metadata(machine.path("config.toml")).unwrap();
    assert_eq!(original.gid(), 4_243, "the other group keeps its access");
}

#[test]
fn reload_fails_if_the_service_cannot_write_or_bind() {
    let Some(machine) = Machine::new() else { return };
    for (before, message) in [
        (
            "[log]\ndirectory = \"/srv/prober-logs\"",
            "log.directory: /srv cannot be written: Permission denied",
        ),
        (
            "[state]\ndirectory = \"/srv/prober-state\"",
            "state.directory: /srv cannot be written: Permission denied",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:81\"",
            "\"127.0.0.1:81\" may not be bound by this user: Permission denied",
        ),
    ] {
        machine.configure(before, FILE);
        let Shown { status, text } = machine.before_reload();
        assert!(status == Some(78) && text.contains(message), "{before}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn unit_checks_before_it_reloads() {
    let unit = include_str!("../../systemd/langmart-prober.service");
    let reload: Vec<&str> = unit.lines().filter(|line| line.starts_with("ExecReload=")).collect();
    assert_eq!(
        reload,
        [
            "ExecReload=/usr/bin/langmart-prober check-config --strict --quiet",
            "ExecReload=/bin/kill -HUP $MAINPID"
        ]
    );
}
