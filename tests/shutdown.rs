//! How labshd starts and stops: with running commands, connected clients and a service manager.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;

use labsh_client::CommandError;
use labsh_proto::frame::Kind;
use labsh_proto::message::{Ping, RefuseCode};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::peer::{Peer, message, open};
use crate::support::{
    LABSHD, Labshd, Running, TEST_TIMEOUT, children, eventually, in_shell, is_alive, kill, program,
    run, sh, stop, temp_dir, text,
};

const TERM: i32 = 15;

#[test]
fn a_running_command_may_finish_while_nothing_new_is_accepted() {
    let mut labshd = Labshd::start();
    let mut client =
        Running::adopt(labshd.run(&sh("echo ready; cat; seq 1 300000")).stdin(Stdio::piped()));
    assert_eq!(client.line(), "ready");
    labshd.signal(TERM);
    labshd.log().wait_for("running commands may end first");
    eventually("new connections are refused", || TcpStream::connect(labshd.tls).is_err());
    let late = labshd.output(&["true"]);
    assert_eq!(late.status.code(), Some(255), "{}", text(&late.stderr));
    assert!(labshd.child.try_wait().unwrap().is_none(), "the command still runs");

    let output = client.finish();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), 1_988_895, "the output is not whole");
    assert!(text(&output.stdout).ends_with("299999\n300000\n"));
    assert_eq!(labshd.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_command_on_an_old_connection_is_refused_with_the_reason() {
    let mut labshd = Labshd::start();
    let session = labshd.session().await;
    let running = session.command("cat").stdin(labsh_client::Stdio::Piped).spawn().await.unwrap();
    labshd.signal(TERM);
    eventually("new connections are refused", || TcpStream::connect(labshd.tls).is_err());
    match session.command("true").output().await {
        Err(CommandError::Refused(refuse)) => {
            assert_eq!(refuse.code, RefuseCode::STOPPING);
            assert!(!refuse.remedy.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert!(running.wait_with_output().await.unwrap().status.success());
    drop(session);
    assert_eq!(labshd.wait(), Some(0));
}

#[test]
fn a_slow_reader_gets_its_complete_output_before_labshd_ends() {
    let mut labshd = Labshd::start();
    let mut client = Running::start(&mut labshd.run(&sh("echo ready; head -c 3000000 /dev/zero")));
    assert_eq!(client.line(), "ready");
    labshd.signal(TERM);
    labshd.log().wait_for("running commands may end first");
    let output = client.finish();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), 3_000_000);
    assert_eq!(labshd.wait(), Some(0));
}

#[test]
fn a_command_that_exceeds_the_drain_timeout_is_ended() {
    let mut labshd = Labshd::with("drain_timeout = '100ms'\ntermination_grace = '100ms'");
    let mut client =
        Running::start(&mut labshd.run(&sh("trap '' TERM; echo $$; while :; do sleep 0.1; done")));
    let pid = client.pid_line();
    labshd.signal(TERM);
    assert_eq!(labshd.wait(), Some(0));
    assert!(!is_alive(pid), "labshd has gone, its command has not");
    let output = client.finish();
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
    labshd.log().wait_for("commands still run: ending them");
}

#[test]
fn a_second_sigterm_ends_running_commands() {
    let mut labshd = Labshd::with("drain_timeout = '1h'");
    let mut client = Running::start(&mut labshd.run(&sh("echo $$; exec sleep 300")));
    let pid = client.pid_line();
    labshd.signal(TERM);
    labshd.log().wait_for("running commands may end first");
    labshd.signal(TERM);
    assert_eq!(client.finish().status.code(), Some(143));
    assert_eq!(labshd.wait(), Some(0));
    assert!(!is_alive(pid));
}

#[test]
fn a_command_that_was_killed_does_not_delay_the_end() {
    let mut labshd = Labshd::with("termination_grace = '50ms'\ndrain_timeout = '1h'");
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let output = labshd.output_with(&["--timeout", "50ms"], &sh(stubborn));
    assert_eq!(output.status.code(), Some(124));
    labshd.signal(TERM);
    assert_eq!(labshd.wait(), Some(0));
}

#[test]
fn a_crash_of_labshd_leaves_no_command_running() {
    let mut labshd = Labshd::start();
    let family = "trap '' HUP TERM; echo $$; bash -c 'echo $$; exec sleep 300' & wait; sleep 300";
    let mut client = Running::start(&mut labshd.run(&sh(family)));
    let pids = [client.pid_line(), client.pid_line()];
    labshd.signal(9);
    labshd.wait();
    eventually("all are gone", || !pids.into_iter().any(is_alive));
    assert_eq!(client.finish().status.code(), Some(255));
}

#[test]
fn a_crash_of_the_spawner_leaves_no_command_running_and_ends_labshd() {
    let mut labshd = Labshd::start();
    let family = "trap '' HUP TERM; echo $$; bash -c 'echo $$; exec sleep 300' & wait; sleep 300";
    let mut client = Running::start(&mut labshd.run(&sh(family)));
    let pids = [client.pid_line(), client.pid_line()];
    let [spawner] = children(labshd.pid())[..] else { panic!("labshd has one child, its spawner") };
    kill(spawner, 9);
    assert_eq!(labshd.wait(), Some(1));
    eventually("all are gone", || !pids.into_iter().any(is_alive));
    assert_eq!(client.finish().status.code(), Some(255));
}

#[test]
fn a_unix_socket_is_removed_at_the_end_and_replaced_after_a_crash() {
    let mut labshd = Labshd::start();
    assert!(labshd.unix_path().exists());
    let over_socket = |labshd: &Labshd| {
        let target = format!("unix:{}", labshd.unix_path().display());
        labshd.labsh().args(["run", &target, "echo here"]).output().unwrap()
    };
    assert_eq!(text(&over_socket(&labshd).stdout), "here\n");
    labshd.signal(9);
    labshd.wait();
    assert!(labshd.unix_path().exists(), "a crash leaves it behind");

    let mut again = program(LABSHD);
    again.arg("--config").arg(labshd.path().join("labshd.toml"));
    labshd.child = again.stderr(Stdio::null()).spawn().unwrap();
    eventually("it listens again", || over_socket(&labshd).status.success());
    labshd.signal(TERM);
    assert_eq!(labshd.wait(), Some(0));
    assert!(!labshd.unix_path().exists(), "a clean end does not");
}

#[test]
fn a_unix_socket_in_use_is_not_replaced() {
    let labshd = Labshd::start();
    let config = labshd.path().join("second.toml");
    fs::write(&config, format!("listen = ['unix:{}']\n", labshd.unix_path().display())).unwrap();
    let second = program(LABSHD).arg("--config").arg(&config).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("another program listens there"),
        "{}",
        text(&second.stderr)
    );
    let target = format!("unix:{}", labshd.unix_path().display());
    run(labshd.labsh().args(["run", &target, "true"]));
}

#[test]
fn a_file_at_the_path_of_a_unix_socket_is_left_and_named() {
    let dir = temp_dir();
    let (config, file) = (dir.path().join("labshd.toml"), dir.path().join("precious"));
    fs::write(&config, format!("listen = ['unix:{}']\n", file.display())).unwrap();
    fs::write(&file, "data").unwrap();
    let labshd = program(LABSHD).arg("--config").arg(&config).output().unwrap();
    let stderr = text(&labshd.stderr);
    assert_eq!(labshd.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(&file.display().to_string()) && stderr.contains("is not a socket"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn another_programs_unix_socket_is_not_removed_at_the_end() {
    let mut labshd = Labshd::start();
    fs::remove_file(labshd.unix_path()).unwrap();
    let _other = UnixListener::bind(labshd.unix_path()).unwrap();
    labshd.signal(TERM);
    assert_eq!(labshd.wait(), Some(0));
    assert!(labshd.unix_path().exists(), "it belongs to another program");
}

#[test]
fn a_unix_socket_with_a_full_queue_does_not_delay_the_start() {
    let dir = temp_dir();
    let path = dir.path().join("socket");
    let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(4).unwrap();
    let mut waiting = Vec::new();
    eventually("its queue is full", || {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let outcome = client.connect(&SockAddr::unix(&path).unwrap());
        waiting.push(client);
        outcome.is_err()
    });
    let config = dir.path().join("labshd.toml");
    fs::write(&config, format!("listen = ['unix:{}']\n", path.display())).unwrap();
    let output = program(LABSHD).arg("--config").arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("another program listens there"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_command_that_does_not_start_does_not_delay_the_end() {
    let mut labshd = Labshd::with("drain_timeout = '1h'");
    let mut peer = Peer::authenticated(&labshd);
    let [spawner] = children(labshd.pid())[..] else { panic!("labshd has one child, its spawner") };
    stop(spawner);
    peer.send(&[open(1, &["true"]), message(&Ping { token: 1 }, 0)].concat());
    peer.until(Kind::Pong, 0);
    labshd.signal(TERM);
    labshd.log().wait_for("running commands may end first");
    labshd.signal(TERM);
    assert_eq!(peer.refused(1).code, RefuseCode::STOPPING);
    let status = labshd.wait();
    kill(spawner, 18);
    assert_eq!(status, Some(0));
}

#[test]
fn the_service_manager_is_notified_of_each_state() {
    let dir = temp_dir();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let notice = || {
        let mut buffer = [0; 4096];
        let count = manager.recv(&mut buffer).unwrap();
        text(&buffer[..count])
    };
    let mut labshd = Labshd::launch("", |labshd| {
        labshd.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(notice().trim_end(), "READY=1");
    labshd.reload();
    let reloading = notice();
    let (state, time) = reloading.trim_end().split_once('\n').expect("both in one datagram");
    assert_eq!(state, "RELOADING=1");
    assert!(
        time.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0,
        "{reloading}"
    );
    assert_eq!(notice().trim_end(), "READY=1");
    // A refused reload ends as well.
    labshd.configure("backlog = 0");
    labshd.reload();
    assert!(notice().starts_with("RELOADING=1\n"));
    assert_eq!(notice().trim_end(), "READY=1");
    labshd.signal(TERM);
    assert_eq!(notice().trim_end(), "STOPPING=1");
    assert_eq!(labshd.wait(), Some(0));
}

#[test]
fn sockets_from_the_service_manager_are_served() {
    let tls = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [tls.local_addr().unwrap(), plain.local_addr().unwrap()];
    let mut labshd = Labshd::launch("", |labshd| {
        // The sockets are descriptors 3 and 4. LISTEN_PID is the shell's own id, since the shell
        // becomes labshd.
        let script = "exec 3<&0 4<&1 </dev/null >/dev/null; \
                      LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=tls:plain exec \"$@\"";
        let mut shell = in_shell(script, labshd);
        shell.stdin(OwnedFd::from(tls)).stdout(OwnedFd::from(plain)).stderr(Stdio::piped());
        *labshd = shell;
    });
    assert_eq!([labshd.tls, labshd.plain], addresses);
    assert!(!labshd.unix_path().exists(), "the configured addresses are not bound as well");
    let environment = text(&run(&mut labshd.run(&["env", "-0"])).stdout);
    assert!(!environment.contains("LISTEN_"), "{environment}");
    let plain = labshd.plain.to_string();
    run(labshd.labsh().args(["run", "--plain", &plain, "true"]));
    labshd.signal(TERM);
    assert_eq!(labshd.wait(), Some(0));
}

#[test]
fn a_plain_socket_that_other_machines_can_reach_is_refused() {
    let labshd = Labshd::start();
    let exposed = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut command = program(LABSHD);
    command.arg("--config").arg(labshd.path().join("labshd.toml"));
    let script =
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=plain exec \"$@\"";
    let output = in_shell(script, &command).stdin(OwnedFd::from(exposed)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("allow_plain_on_network"), "{}", text(&output.stderr));
}
