//! SIGHUP: new keys count, removed ones end their sessions, mistakes change nothing.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{HOST, LABSHD, Labshd, am_root, enroll, eventually, is_alive, labsh_in, run, text};

fn remove_key(labshd: &Labshd, host: &str) {
    let mut command = Command::new(LABSHD);
    command.arg("--config").arg(labshd.path().join("labshd.toml"));
    run(command.args(["key", "remove", "test", "--host", host]));
}

#[test]
fn a_new_key_counts_after_a_reload() {
    let labshd = Labshd::start();
    run(labsh_in(labshd.path()).args(["key", "new", "second"]));
    let attempt = || {
        let mut command = labshd.labsh();
        command.args(["run", "--key", "second", &labshd.target(), "true"]).output().unwrap().status.code()
    };
    assert_eq!(attempt(), Some(255));
    enroll(labshd.path(), "second", HOST);
    labshd.reload();
    assert_eq!(attempt(), Some(0));
}

#[test]
fn removing_a_key_ends_its_sessions_and_their_commands() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    let marker = labshd.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", marker.display());
    let client = labshd.run(&[&script]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the command runs", || fs::read_to_string(&marker).is_ok_and(|pid| pid.ends_with('\n')));
    let pid: i32 = fs::read_to_string(&marker).unwrap().trim().parse().unwrap();

    remove_key(&labshd, HOST);
    assert!(is_alive(pid));
    labshd.reload();

    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("its key was removed"), "{}", text(&output.stderr));
    eventually("the command is gone", || !is_alive(pid));
    assert_eq!(labshd.output(&["true"]).status.code(), Some(255));
}

#[test]
fn a_key_that_stays_keeps_its_sessions() {
    let labshd = Labshd::start();
    let marker = labshd.path().join("go");
    let script = format!("echo on; until [ -e {} ]; do sleep 0.02; done; echo off", marker.display());
    let client = labshd.run(&[&script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    labshd.log().wait_for("command started");
    remove_key(&labshd, "localhost");
    labshd.reload();
    fs::write(&marker, "").unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "on\noff\n"));
}

#[test]
fn a_mistake_keeps_the_old_configuration_and_is_told_with_its_line() {
    let labshd = Labshd::start();
    labshd.configure("max_channels = 3\nmax_chanels = 4");
    labshd.signal(1);
    let line = labshd.log().wait_for("not reloaded");
    assert!(line.contains("labshd.toml:2") && line.contains("max_chanels"), "{line}");
    assert_eq!(labshd.output(&["exit 5"]).status.code(), Some(5));
}

#[test]
fn a_broken_key_file_keeps_the_old_keys() {
    let labshd = Labshd::start();
    let key = labshd.path().join("keys.d/broken.toml");
    fs::write(&key, "key = 'labsh-host-1 x'\n").unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    labshd.signal(1);
    let line = labshd.log().wait_for("broken.toml:1");
    assert!(line.contains("not reloaded"), "{line}");
    assert_eq!(labshd.output(&["exit 5"]).status.code(), Some(5));
}

#[test]
fn a_changed_listen_takes_a_restart_and_says_so() {
    let labshd = Labshd::start();
    fs::write(labshd.path().join("labshd.toml"), "listen = ['127.0.0.1:0']\n").unwrap();
    labshd.reload();
    labshd.log().wait_for("that takes a restart");
    assert_eq!(labshd.output(&["exit 5"]).status.code(), Some(5));
}

#[test]
fn as_root_an_entry_names_its_user() {
    let labshd = Labshd::start();
    let list = run(Command::new(LABSHD)
        .arg("--config")
        .arg(labshd.path().join("labshd.toml"))
        .args(["key", "list"]));
    let shown = text(&list.stdout);
    assert_eq!(shown.contains("root"), am_root(), "{shown}");
}
