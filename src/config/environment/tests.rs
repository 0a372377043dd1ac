//! Tests of environment, key files and certificates.

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

fn environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Environment<'_> {
    Environment { variable, system_roots: &Vec::new }
}

#[track_caller]
fn proxy(variables: &[(&str, &str)], target: &str, expected: Option<&str>) {
    let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
    let found = environment(&variable).proxy_for(&Url::parse(target).unwrap());
    assert_eq!(found.map(|(name, _)| name), expected, "{variables:?} {target}");
}

#[test]
fn proxy_variable_depends_on_the_scheme() {
    proxy(&[("HTTPS_PROXY", "p")], "https://a.example", Some("HTTPS_PROXY"));
    proxy(&[("HTTPS_PROXY", "p")], "http://a.example", None);
    proxy(&[("HTTP_PROXY", "p")], "http://a.example", None);
    proxy(&[("http_proxy", "p")], "http://a.example", Some("http_proxy"));
    proxy(&[("https_proxy", ""), ("ALL_PROXY", "p")], "https://a.example", Some("ALL_PROXY"));
}

#[test]
fn local_or_exempt_target_is_not_proxied() {
    for target in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:8", "http://[::ffff:127.0.0.1]/"] {
        proxy(&[("ALL_PROXY", "p")], target, None);
    }
    for (list, target, exempt) in [
        ("a.example", "https://a.example", true),
        ("example", "https://a.example", true),
        (".a.example", "https://b.a.example", true),
        ("*.a.example", "https://b.a.example", true),
        ("b.example, A.example", "https://a.example", true),
        ("ample", "https://a.example", false),
        ("*", "https://a.example", true),
        ("a.example:8443", "https://a.example", false),
        ("a.example:443", "https://a.example", true),
        ("192.0.2.0/24", "https://192.0.2.9", true),
        ("192.0.2.0/24", "https://192.0.3.9", false),
        ("2001:db8::/32", "https://[2001:db8::1]", true),
        ("", "https://a.example", false),
        ("[2001:db8::1]:443", "https://[2001:db8::1]", true),
        ("[2001:db8::1]:8443", "https://[2001:db8::1]", false),
        ("[2001:DB8:0::1]", "https://[2001:db8::1]", true),
        ("192.0.2.0/33", "https://192.0.2.9", false),
        ("0.0.0.0/0", "https://192.0.2.9", true),
        ("*.a.example.", "https://b.a.example.", true),
        ("a.example.:443", "https://a.example", true),
        ("*.", "https://a.example", false),
    ] {
        proxy(&[("ALL_PROXY", "p"), ("no_proxy", list)], target, (!exempt).then_some("ALL_PROXY"));
    }
}

#[test]
fn trailing_newline_of_a_key_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    for (contents, key) in [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k \n", " k ")] {
        std::fs::write(&path, contents).unwrap();
        assert_eq!(
            environment(&|_| None).secret(&KeySource::File(path.clone())),
            Ok(Zeroizing::new(key.to_owned()))
        );
    }
}

#[test]
fn chmod_command_keeps_the_service_group() {
    let path = Path::new("/k");
    let (service, group) = (100, 101);
    let command = |owner, by_root| chmod_command(path, owner, by_root, None);
    assert_eq!(command((0, group), true), "chmod 640 /k", "the group may be the service's");
    assert_eq!(command((0, 0), true), "chmod 600 /k");
    assert_eq!(command((0, 0), false), "chmod 640 /k && chgrp langmart-prober /k");
    assert_eq!(command((0, group), false), "chmod 640 /k");
    assert_eq!(command((service, group), true), "chmod 600 /k");
    assert_eq!(command((service, group), false), "chmod 600 /k");
    let for_service = |owner| chmod_command(Path::new("/a k"), owner, true, Some("g"));
    assert_eq!(for_service((0, 0)), "chmod 640 '/a k' && chgrp g '/a k'");
    assert_eq!(for_service((0, group)), "chmod 640 '/a k'");
    assert_eq!(for_service((service, group)), "chmod 600 '/a k'");
}

#[test]
fn key_file_readable_by_others_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, "k").unwrap();
    let of_root = path.metadata().unwrap().uid() == 0;
    for (mode, exposed) in [
        (0o600, false),
        (0o400, false),
        (0o640, !of_root),
        (0o440, !of_root),
        (0o660, true),
        (0o644, true),
        (0o604, true),
        (0o602, true),
    ] {
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let warning = exposure(&KeySource::File(path.clone()), None);
        assert_eq!(warning.is_some(), exposed, "{mode:o}: {warning:?}");
        if let Some(warning) = warning {
            assert!(
                warning.contains(&format!("is {mode:04o}; run: chmod 600 {}", path.display())),
                "{warning}"
            );
        }
    }
    let other = KeySource::File(directory.path().join("missing"));
    assert_eq!(exposure(&other, None), None, "reported when it is read");
}

#[test]
fn key_file_in_a_writable_directory_is_reported() {
    let top = tempfile::tempdir().unwrap();
    let [middle, inner] = ["middle", "middle/inner"].map(|name| top.path().join(name));
    std::fs::create_dir_all(&inner).unwrap();
    let key = inner.join("key");
    std::fs::write(&key, "k").unwrap();
    let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set(&key, 0o600);
    let link = top.path().join("link");
    std::os::unix::fs::symlink(&key, &link).unwrap();
    for (middle_mode, inner_mode, open) in [
        (0o755, 0o755, None),
        (0o755, 0o750, None),
        (0o755, 0o777, Some(&inner)),
        (0o755, 0o757, Some(&inner)),
        (0o755, 0o770, Some(&inner)),
        (0o755, 0o1777, None),
        (0o777, 0o755, Some(&middle)),
        (0o775, 0o755, None),
        (0o1777, 0o755, None),
    ] {
        set(&middle, middle_mode);
        set(&inner, inner_mode);
        for path in [&key, &link] {
            let warning = exposure(&KeySource::File(path.clone()), None);
            assert_eq!(warning.is_some(), open.is_some(), "{middle_mode:o} {inner_mode:o}: {warning:?}");
            if let (Some(open), Some(warning)) = (open, warning) {
                assert!(warning.contains(&format!("the mode of {} is ", open.display())), "{warning}");
                // Others may need the directory as it is.
                assert!(warning.contains("; move the file to /etc/langmart-prober/keys"), "{warning}");
            }
        }
    }
    // The directory of the link is checked, too.
    set(&inner, 0o755);
    set(top.path(), 0o777);
    assert!(exposure(&KeySource::File(link), None).unwrap().contains("can replace"));
}

#[test]
fn sticky_directory_protects_own_files_only() {
    if !geteuid().is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    std::fs::set_permissions(top.path(), Permissions::from_mode(0o1777)).unwrap();
    let key = top.path().join("key");
    std::fs::write(&key, "k").unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(exposure(&KeySource::File(key.clone()), None), None);
    std::os::unix::fs::chown(&key, Some(65_534), None).unwrap();
    assert!(exposure(&KeySource::File(key), None).unwrap().contains("can replace"));
}

#[test]
fn credential_is_read_from_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("langmart"), "k").unwrap();
    let variable = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.path().into());
    let source = KeySource::Credential("langmart".to_owned());
    assert_eq!(environment(&variable).secret(&source), Ok(Zeroizing::new("k".to_owned())));
    assert!(environment(&|_| None).secret(&source).unwrap_err().contains("CREDENTIALS_DIRECTORY is not set"));
}

#[test]
fn other_file_types_are_rejected_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let [pipe, link, socket] = ["pipe", "link", "socket"].map(|name| directory.path().join(name));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [directory.path(), Path::new("/dev/zero"), &pipe, &link, &socket] {
        assert!(open_regular(path).is_err(), "{}", path.display());
        assert!(environment(&|_| None).secret(&KeySource::File(path.to_owned())).is_err());
    }
}

#[test]
fn certificate_file_without_certificates_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let none = |contents: &str| {
        std::fs::write(&path, contents).unwrap();
        certificates(&path).unwrap_err()
    };
    assert!(none("").contains("no certificate"));
    assert!(none("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("number 1"));
    let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    std::fs::write(&path, made.cert.pem()).unwrap();
    assert_eq!(certificates(&path).unwrap(), [made.cert.der().clone()]);
}
