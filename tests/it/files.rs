//! Tests of files of the wrong type, and of process information that others can read.

use std::{
    fs::{self, Permissions},
    io::Read,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::{
    daemon::{KEY, LISTEN, PROBER, Place},
    parts,
    simulate::simulator,
};

fn pipe(place: &Place, name: &str) -> String {
    let path = place.path(name);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path.display().to_string()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn fifo_in_place_of_file_is_an_immediate_error() {
    let place = Place::new("");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("cert.pem", &made.cert.pem());
    let [pipe, certificate] = [pipe(&place, "pipe"), place.path("cert.pem").display().to_string()];
    let tls = |certificate: &str, key: &str| {
        format!("[server]\ntls = {{ cert_file = \"{certificate}\", key_file = \"{key}\" }}\n")
    };
    let provider = |line: &str| format!("[provider.langmart]\nchecks = [\"health\"]\n{line}\n");
    for (key, text) in [
        ("api_key", provider(&format!("api_key = {{ file = \"{pipe}\" }}"))),
        ("ca_file", provider(&format!("ca_file = \"{pipe}\""))),
        (
            "proxy_auth",
            provider(&format!("proxy = \"http://p.example\"\nproxy_auth = {{ file = \"{pipe}\" }}")),
        ),
        ("headers.x", provider(&format!("headers = {{ x = {{ file = \"{pipe}\" }} }}"))),
        ("cert_file", tls(&pipe, &pipe)),
        ("key_file", tls(&certificate, &pipe)),
    ] {
        place.write("config.toml", &text);
        for command in ["run", "once"] {
            let said = error(&place.run(command, &[]));
            assert!(said.contains(key) && said.contains("not a regular file"), "{key}, {command}: {said}");
        }
    }
    place.write("config.toml", &provider(""));
    for command in ["run", "once", "doctor", "check-config"] {
        let said = error(&place.command(command).env("SSL_CERT_FILE", &pipe).output().unwrap());
        assert!(said.contains("SSL_CERT_FILE") && said.contains("not a regular file"), "{command}: {said}");
    }
    // Through a link, and in place of the configuration itself.
    fs::remove_file(place.path("config.toml")).unwrap();
    symlink(&pipe, place.path("config.toml")).unwrap();
    for command in ["run", "once", "doctor", "check-config", "report"] {
        let said = error(&place.run(command, &[]));
        assert!(said.contains("config.toml: cannot be read: not a regular file"), "{command}: {said}");
    }
}

#[test]
fn fifo_in_place_of_configuration_fails_a_reload() {
    let simulator = simulator("");
    let config = format!(
        "{LISTEN}[provider.openai]\nbase_url = \"http://{}/openai/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
        simulator.address()
    );
    let place = Place::new(&config);
    let mut daemon = place.daemon();
    fs::remove_file(place.path("config.toml")).unwrap();
    pipe(&place, "config.toml");
    let answer = daemon.request("POST", "/-/reload");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("not a regular file"), "{answer:?}");
    place.write("config.toml", &config);
    assert_eq!(daemon.request("POST", "/-/reload").status, 200);
    daemon.stop();
}

#[test]
fn fifo_among_records_is_an_immediate_error() {
    let place = Place::new("");
    fs::create_dir(place.path("logs")).unwrap();
    place.write("config.toml", &format!("[log]\ndirectory = \"{}\"\n", place.path("logs").display()));
    pipe(&place, "logs/results.jsonl.2999-01-01");
    let output = place.run("report", &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not a regular file"), "{:?}: {said}", output.status);
}

#[test]
fn planted_links_and_fifos_in_state_are_harmless() {
    for name in ["state.json", "state.json.new"] {
        for plant in ["link", "pipe"] {
            let place = Place::new("");
            let [state, victim] = ["state", "victim"].map(|name| place.path(name));
            fs::create_dir(&state).unwrap();
            fs::write(&victim, "victim").unwrap();
            match plant {
                "link" => symlink(&victim, state.join(name)).unwrap(),
                _ => drop(pipe(&place, &format!("state/{name}"))),
            }
            place.write("config.toml", &format!("{LISTEN}[state]\ndirectory = \"{}\"\n", state.display()));
            let mut daemon = place.daemon();
            daemon.stop();
            assert_eq!(fs::read_to_string(&victim).unwrap(), "victim", "{name}, {plant}");
            let written = fs::symlink_metadata(state.join("state.json")).unwrap();
            assert!(written.is_file(), "{name}, {plant}");
        }
    }
}

#[test]
fn key_in_a_directory_writable_by_others_is_rejected() {
    let place = Place::new("");
    fs::create_dir(place.path("keys")).unwrap();
    place.write("keys/key", "sk-canary-0123456789");
    let line = format!("api_key = {{ file = \"{}\" }}", place.path("keys/key").display());
    place.write("config.toml", &format!("[provider.langmart]\nchecks = [\"auth\"]\n{line}\n"));
    let check = |mode| {
        fs::set_permissions(place.path("keys"), Permissions::from_mode(mode)).unwrap();
        place.run("check-config", &[])
    };
    for mode in [0o777, 0o757, 0o770, 0o722] {
        let said = error(&check(mode));
        let remedy = "; move the file to /etc/langmart-prober/keys, or to another directory in which only its owner can";
        assert!(said.contains("other users can replace") && said.contains(remedy), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
    for mode in [0o700, 0o755, 0o1777] {
        assert_eq!(check(mode).status.code(), Some(0), "{mode:o}");
    }
}

/// Returns the owner of a process' environment in /proc, which is root if no other process of its
/// user may read it.
fn environment_owner(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid()
}

#[test]
fn commands_that_read_keys_are_not_dumpable() {
    const NOBODY: u32 = 65_534;
    let program = Path::new(PROBER).metadata().unwrap();
    if !parts::has(&["id"], true) || program.mode() & 0o005 != 0o005 {
        return;
    }
    // It accepts connections and never answers, so that the commands run until they are killed.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::new(&format!(
        "[provider.openai]\nbase_url = \"http://{}/v1\"\n{KEY}\nchecks = [\"auth\"]\n",
        silent.local_addr().unwrap()
    ));
    fs::set_permissions(place.path("."), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.path("config.toml"), Permissions::from_mode(0o644)).unwrap();
    let mut sleep = Command::new("sleep").arg("60").uid(NOBODY).spawn().unwrap();
    let other = environment_owner(sleep.id());
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert_eq!(other, NOBODY, "the owner without protection");
    for command in ["once", "doctor"] {
        let mut process = place.command(command);
        let mut process = process.uid(NOBODY).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It has read the key by now.
        let (mut connection, _) = silent.accept().unwrap();
        let owner = environment_owner(process.id());
        process.kill().unwrap();
        process.wait().unwrap();
        let _ = connection.read(&mut [0; 1024]);
        assert_eq!(owner, 0, "{command}");
    }
}
