//! Tests of what the service may access.

use std::os::unix::fs::{PermissionsExt, chown};

use rustix::process::geteuid;

use super::*;
use crate::config::service::unit::Hidden;

/// Returns a service whose user and group own none of the files.
fn service(unit: Unit) -> Service {
    Service { unit, user: 4_000_001, group: 4_000_001, groups: vec![4_000_001] }
}

fn packaged() -> Unit {
    Unit { hides: Hidden { home: true, tmp: false }, ..Unit::read(Path::new("/nonexistent")) }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn unreadable_file_has_commands_for_every_obstacle() {
    if !geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    let keys = directory.path().canonicalize().unwrap().join("keys");
    fs::create_dir(&keys).unwrap();
    let key = keys.join("langmart");
    fs::write(&key, "k").unwrap();
    let problem = |directory, file| {
        set_mode(&keys, directory);
        set_mode(&key, file);
        service(packaged()).read_problem(&key, Usage::Key)
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
    assert_eq!(service(packaged()).read_problem(Path::new("/nonexistent"), Usage::Key), None);
}

#[test]
fn home_is_hidden_unless_the_unit_shows_it() {
    let hidden = service(packaged());
    assert!(hidden.hidden(Path::new("/home/alice/key"), Usage::Key).unwrap().contains("ProtectHome=yes"));
    assert!(hidden.write_problem(Path::new("/root/logs"), Usage::Logs).unwrap().contains("ProtectHome=yes"));
    let open = service(Unit { hides: Hidden::default(), ..packaged() });
    assert_eq!(open.hidden(Path::new("/home/alice/key"), Usage::Key), None);
    assert_eq!(hidden.hidden(Path::new("/homes/key"), Usage::Key), None);
}

#[test]
fn directory_outside_the_sandbox_needs_read_write_paths() {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o777);
    let logs = directory.path().join("logs");
    let read_only = service(packaged()).write_problem(&logs, Usage::Logs).unwrap();
    assert!(read_only.contains(&format!("add ReadWritePaths={}", logs.display())), "{read_only}");
    let allowed = Unit { writable: vec![directory.path().to_owned()], ..packaged() };
    assert_eq!(service(allowed.clone()).write_problem(&logs, Usage::Logs), None);
    set_mode(directory.path(), 0o755);
    let closed = service(allowed).write_problem(&logs, Usage::Logs).unwrap();
    assert!(closed.contains("run: install -d -o langmart-prober"), "{closed}");
    assert_eq!(service(packaged()).write_problem(Path::new("/var/log/langmart-prober/a"), Usage::Logs), None);
}

#[test]
fn low_port_needs_a_capability() {
    let listen = |unit, address: &str| service(unit).listen_problem(address.parse().unwrap());
    if first_free_port() > 80 {
        assert!(listen(packaged(), "0.0.0.0:80").unwrap().contains("\"0.0.0.0:10429\""));
    }
    assert_eq!(listen(packaged(), "127.0.0.1:10429"), None);
    assert_eq!(listen(packaged(), "127.0.0.1:0"), None);
    let open = Unit { ambient: Some(true), bounding: None, has_private_users: false, ..packaged() };
    assert_eq!(listen(open, "0.0.0.0:80"), None);
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
         LoadCredentialEncrypted=sealed:/dev/null\nLoadCredential=preset:/nonexistent\n\
         SetCredential=preset:v\nSetCredentialEncrypted=set: v\nImportCredential=shop.*\n\
         ImportCredential=old.*:new.\n",
        plain.display()
    );
    fs::write(drop_in.join("a.conf"), text).unwrap();
    let service = service(Unit::read(root.path()));
    let secret = |source: KeySource| service.secret(&source).map(|text| text.map(|text| text.to_string()));
    let credential = |name: &str| KeySource::Credential(name.to_owned());
    assert_eq!(secret(KeySource::Env("A".to_owned())), Ok(Some("a".to_owned())));
    assert_eq!(secret(credential("plain")), Ok(Some("k".to_owned())));
    for name in ["sealed", "preset", "set", "shop.key", "new.key"] {
        assert_eq!(secret(credential(name)), Ok(None), "{name}");
    }
    assert!(secret(credential("lost")).unwrap_err().contains("/nonexistent does not exist"));
    assert!(secret(credential("other")).unwrap_err().contains("LoadCredential=other:"));
    assert!(secret(KeySource::Env("B".to_owned())).unwrap_err().contains("B=… without export"));
}

#[test]
fn user_has_its_groups() {
    assert_eq!(user("root:x:0:0::\nlangmart-prober:x:997:996::/:/x\n", "langmart-prober"), Some((997, 996)));
    assert_eq!(user("root:x:0:0::\n", "langmart-prober"), None);
    let groups = "root:x:0:\nssl-cert:x:110:www,langmart-prober\nlangmart-prober:x:996:\nother:x:5:prober\n";
    assert_eq!(groups_of(groups, "langmart-prober", &[]), [110]);
    assert_eq!(groups_of(groups, "langmart-prober", &["other".to_owned(), "0".to_owned()]), [0, 110, 5]);
    assert_eq!(
        (group(groups, "ssl-cert"), group(groups, "7"), group(groups, "x")),
        (Some(110), Some(7), None)
    );
}

/// Returns a directory that everyone can enter, at its real path.
fn open_directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    let path = directory.path().canonicalize().unwrap();
    (directory, path)
}

#[test]
fn path_of_another_group_is_copied() {
    if !geteuid().is_root() {
        return;
    }
    let (_directory, top) = open_directory();
    let private = top.join("private keys");
    fs::create_dir(&private).unwrap();
    let key = private.join("tls.key");
    fs::write(&key, "k").unwrap();
    let copy = format!(
        "the service's user langmart-prober cannot read {0}; use /etc/langmart-prober/{1} instead, and run: \
         install -D -m 0640 -o root -g langmart-prober '{0}' '/etc/langmart-prober/{1}'",
        key.display(),
        key.display().to_string()[1..].replace('/', "-")
    );
    for (directory_mode, directory_group, owner, group) in
        [(0o710, 4_000_002, 0, 0), (0o755, 0, 0, 4_000_002), (0o755, 0, 4_000_002, 0)]
    {
        set_mode(&private, directory_mode);
        chown(&private, Some(0), Some(directory_group)).unwrap();
        set_mode(&key, 0o640);
        chown(&key, Some(owner), Some(group)).unwrap();
        let problem = service(packaged()).read_problem(&key, Usage::Configuration);
        assert_eq!(problem.as_deref(), Some(copy.as_str()));
    }
    // Its own group needs no other.
    chown(&key, Some(0), Some(4_000_001)).unwrap();
    set_mode(&key, 0o600);
    let problem = service(packaged()).read_problem(&key, Usage::Configuration).unwrap();
    assert!(problem.ends_with(&format!("run: chmod g+r '{}'", key.display())), "{problem}");
}

#[test]
fn listed_directory_must_be_readable() {
    if !geteuid().is_root() {
        return;
    }
    let (_directory, top) = open_directory();
    let problem = |mode| {
        set_mode(&top, mode);
        service(packaged()).read_problem(&top, Usage::Configuration)
    };
    assert_eq!(problem(0o755), None);
    let remedy = format!("run: chgrp langmart-prober {0} && chmod g+rx {0}", top.display());
    assert!(problem(0o751).unwrap().ends_with(&remedy));
    assert!(problem(0o754).unwrap().ends_with(&remedy));
}

#[test]
fn existing_directory_keeps_its_owner_and_mode() {
    let (_directory, top) = open_directory();
    let allowed = || Unit { writable: vec![top.clone()], ..packaged() };
    let problem = service(allowed()).write_problem(&top, Usage::State).unwrap();
    let advised = top.join("langmart-prober");
    let expected = format!(
        "the service's user langmart-prober cannot write to {}; use {1} instead; run: install -d -o langmart-prober \
         -g langmart-prober -m 0750 {1}",
        top.display(),
        advised.display()
    );
    assert_eq!(problem, expected);
    let problem = service(packaged()).write_problem(&top, Usage::State).unwrap();
    assert!(problem.contains(&format!("ReadWritePaths={} under", advised.display())), "{problem}");
    let problem = service(packaged()).write_problem(Path::new("/var/log"), Usage::Logs).unwrap();
    assert!(problem.ends_with("; use /var/log/langmart-prober instead"), "{problem}");
    assert!(!problem.contains("install"), "{problem}");
}

#[test]
fn closed_parent_of_a_written_directory_is_opened() {
    if !geteuid().is_root() {
        return;
    }
    let (_directory, top) = open_directory();
    let (parent, logs) = (top.join("parent"), top.join("parent/logs"));
    fs::create_dir_all(&logs).unwrap();
    set_mode(&logs, 0o777);
    set_mode(&parent, 0o700);
    let allowed = || Unit { writable: vec![top.clone()], ..packaged() };
    let problem = |path: &Path| service(allowed()).write_problem(path, Usage::Logs).unwrap();
    let chgrp = format!("; run: chgrp langmart-prober {0} && chmod g+x {0}", parent.display());
    assert!(problem(&logs).ends_with(&chgrp), "{}", problem(&logs));
    let new = parent.join("new");
    let install = format!(" && install -d -o langmart-prober -g langmart-prober -m 0750 {}", new.display());
    assert!(problem(&new).ends_with(&format!("{chgrp}{install}")), "{}", problem(&new));
    chown(&parent, Some(0), Some(4_000_002)).unwrap();
    assert!(problem(&logs).ends_with("; use /var/log/langmart-prober instead"), "{}", problem(&logs));
}

#[test]
fn closed_directory_below_its_own_is_reported() {
    let (_directory, top) = open_directory();
    let unit = || Unit { logs_directory: Some(top.clone()), ..packaged() };
    let problem = |name: &str| service(unit()).write_problem(&top.join(name), Usage::Logs);
    assert_eq!(problem(""), None);
    assert_eq!(problem("new/logs"), None);
    let closed = top.join("closed");
    fs::create_dir(&closed).unwrap();
    set_mode(&closed, 0o755);
    for name in ["closed", "closed/logs"] {
        let problem = problem(name).unwrap();
        let remedy = format!("-m 0750 {}", top.join(name).display());
        assert!(problem.contains("cannot write to") && problem.ends_with(&remedy), "{problem}");
        assert!(!problem.contains("ReadWritePaths"), "{problem}");
    }
    set_mode(&closed, 0o777);
    assert_eq!(problem("closed/logs"), None);
}

#[test]
fn hidden_path_has_a_place_by_its_usage() {
    let place = |usage| service(packaged()).hidden(Path::new("/home/a/x"), usage).unwrap();
    assert!(place(Usage::Key).ends_with("; move /home/a/x to /etc/langmart-prober/keys"));
    assert!(place(Usage::Configuration).ends_with("; move /home/a/x to /etc/langmart-prober"));
    assert!(place(Usage::Logs).ends_with("; use /var/log/langmart-prober instead of /home/a/x"));
    assert!(place(Usage::State).ends_with("; use /var/lib/langmart-prober instead of /home/a/x"));
}
