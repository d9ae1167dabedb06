//! How labshd ends: draining, hurrying, crashing; and what the service manager hears.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::support::{LABSHD, Labshd, PATIENCE, eventually, is_alive, text};

const TERM: i32 = 15;
const KILL: i32 = 9;

/// Starts a command that tells its pid and then runs until a file appears (or for ever).
fn long_command(labshd: &Labshd) -> (std::process::Child, i32) {
    let marker = labshd.path().join("pid");
    let go = labshd.path().join("go");
    let script = format!(
        "echo $$ > {}; until [ -e {} ]; do sleep 0.02; done; seq 1 100000",
        marker.display(),
        go.display()
    );
    let client = labshd
        .run(&[&script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the command runs", || fs::read_to_string(&marker).is_ok_and(|pid| pid.ends_with('\n')));
    let pid = fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    (client, pid)
}

#[test]
fn a_running_command_finishes_and_its_output_is_whole() {
    let mut labshd = Labshd::start();
    let (client, _) = long_command(&labshd);
    labshd.signal(TERM);
    labshd.log().wait_for("stopping");
    // Nothing new is taken: the port is closed, or says why.
    eventually("new clients are turned away", || labshd.output(&["true"]).status.code() != Some(0));
    fs::write(labshd.path().join("go"), "").unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let whole: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(text(&output.stdout) == whole, "{} bytes", output.stdout.len());
    assert_eq!(labshd.wait(), Some(0));
    assert!(!labshd.unix_path().exists());
}

#[test]
fn the_drain_timeout_ends_what_still_runs_and_says_how() {
    let mut labshd = Labshd::with("drain_timeout = '200ms'\ntermination_grace = '100ms'");
    let (client, pid) = long_command(&labshd);
    labshd.signal(TERM);
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + TERM), "{}", text(&output.stderr));
    assert_eq!(labshd.wait(), Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn a_second_signal_hurries() {
    let mut labshd = Labshd::with("drain_timeout = '1h'\ntermination_grace = '100ms'");
    let (client, pid) = long_command(&labshd);
    labshd.signal(TERM);
    labshd.log().wait_for("stopping");
    labshd.signal(TERM);
    assert_eq!(client.wait_with_output().unwrap().status.code(), Some(128 + TERM));
    assert_eq!(labshd.wait(), Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn an_idle_session_is_told_goodbye() {
    let mut labshd = Labshd::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = labshd.session().await;
        labshd.signal(TERM);
        let wait = async {
            while session.ping().await.is_ok() {
                tokio::task::yield_now().await;
            }
            session.ping().await.unwrap_err()
        };
        let error = tokio::time::timeout(PATIENCE, wait).await.unwrap();
        assert!(error.to_string().contains("labshd is stopping"), "{error}");
    });
    assert_eq!(labshd.wait(), Some(0));
}

#[test]
fn a_killed_labshd_leaves_no_command_running() {
    let mut labshd = Labshd::start();
    let (client, pid) = long_command(&labshd);
    labshd.signal(KILL);
    labshd.wait();
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    eventually("the spawner has ended the command", || !is_alive(pid));
}

#[test]
fn a_socket_file_left_over_from_a_crash_is_no_obstacle_and_a_live_one_is() {
    let mut labshd = Labshd::start();
    let socket = labshd.unix_path();
    let directory = labshd.path().to_owned();
    let other = |expect: &str| {
        let config = directory.join("other.toml");
        fs::write(&config, format!("keys_dir = 'keys.d'\nlisten = ['unix:{}']\n", socket.display())).unwrap();
        let mut child =
            Command::new(LABSHD).arg("--config").arg(&config).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let mut said = String::new();
        let mut buffer = [0; 4096];
        while !said.contains(expect) {
            let count = stderr.read(&mut buffer).unwrap();
            assert!(count > 0, "no {expect:?} in: {said}");
            said += &text(&buffer[..count]);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    other("another program listens there");
    labshd.child.kill().unwrap();
    labshd.child.wait().unwrap();
    assert!(socket.exists());
    other("labshd is ready");
}

#[test]
fn a_port_in_use_is_named() {
    let labshd = Labshd::start();
    let config = labshd.path().join("other.toml");
    fs::write(&config, format!("keys_dir = 'keys.d'\nlisten = ['{}']\n", labshd.tls)).unwrap();
    let output = Command::new(LABSHD).arg("--config").arg(&config).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains(&labshd.tls.to_string()) && said.contains("another program listens there"),
        "{said}"
    );
}

#[test]
fn the_service_manager_hears_ready_reloading_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 4096];
        let count = manager.recv(&mut buffer).unwrap();
        text(&buffer[..count])
    };
    let mut labshd = Labshd::launch("", |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert!(hear().contains("READY=1"));
    labshd.signal(1);
    let reloading = hear();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(hear().contains("READY=1"));
    labshd.signal(TERM);
    assert!(hear().contains("STOPPING=1"));
    assert_eq!(labshd.wait(), Some(0));
}

/// Hands a listening socket over as systemd does: descriptor 3, LISTEN_FDS, LISTEN_PID.
const HANDOVER: &str = "
import os, socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.bind(('127.0.0.1', 0))
listener.listen(16)
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn sockets_from_the_service_manager_are_taken() {
    let labshd = Labshd::start();
    let config = labshd.path().join("activated.toml");
    fs::write(&config, "keys_dir = 'keys.d'\n").unwrap();
    let mut activated = Command::new("python3")
        .args(["-c", HANDOVER, LABSHD, "--config"])
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = activated.stderr.take().unwrap();
    let mut said = String::new();
    while !said.contains("labshd is ready") {
        let mut buffer = [0; 4096];
        let count = stderr.read(&mut buffer).unwrap();
        assert!(count > 0, "{said}");
        said += &text(&buffer[..count]);
    }
    let target = said.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    let output = labshd.labsh().args(["run", target, "exit 6"]).output().unwrap();
    activated.kill().unwrap();
    activated.wait().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
}
