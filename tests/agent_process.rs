//! The agent as a process: when it starts and ends, what it holds on to, and who can use it.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::support::agent::Kept;
use crate::support::*;

/// Any account that is not root's.
const SOMEBODY_ELSE: u32 = 65534;

#[test]
fn it_is_started_in_a_login_session_only_and_where_it_was_asked_for() {
    let kept = Kept::start();
    let unasked = || {
        let mut command = kept.run(&["true"]);
        command.env_remove("LABSH_KEEP");
        command
    };
    run(kept.run(&["true"]).env("LABSH_KEEP", "off"));
    run(unasked().env_remove("XDG_RUNTIME_DIR"));
    run(unasked().env("XDG_RUNTIME_DIR", "run"));
    run(kept.labsh().args(["run", "--keep", "off", &kept.0.target(), "true"]));
    // Each of them has made a connection, and nobody else has.
    kept.0.log().wait_for_nth("command ended", 4);
    assert_eq!(kept.connections(), 4);
    assert!(!kept.runtime().join("labsh").exists());
    assert!(kept.agents().is_empty());
    assert_eq!(kept.agent("status").status.code(), Some(3));
    assert!(kept.agent("stop").status.success());
    assert_eq!(kept.list(), "");

    let in_a_service = fs::read_to_string("/proc/self/cgroup")
        .unwrap()
        .lines()
        .any(|line| line.ends_with(".service"));
    run(&mut unasked());
    if in_a_service {
        assert!(kept.agents().is_empty());
        kept.warm_up();
    }
    kept.idle();
    let list = kept.list();
    for part in [&kept.0.target(), "host id 127.0.0.1", "key test", "open for ", "idle for "] {
        assert!(list.contains(part), "{part} in {list}");
    }
}

#[test]
fn it_ends_when_it_is_told_to_and_another_one_follows() {
    let kept = Kept::warm();
    let agent = kept.pid().unwrap();
    let mut client = kept.through_the_agent(|| {
        let mut client = kept.run(&sh("echo ready; read line; echo $line"));
        let mut client = Running::adopt(client.stdin(Stdio::piped()));
        assert_eq!(client.line(), "ready");
        client
    });
    assert!(kept.agent("stop").status.success());
    assert!(!kept.socket().exists());
    assert_eq!(kept.agent("status").status.code(), Some(3));
    kept.warm_up();
    assert_ne!(kept.pid(), Some(agent));
    // What goes through it goes on.
    assert!(is_alive(agent));
    client.child.stdin.as_mut().unwrap().write_all(b"word\n").unwrap();
    assert_eq!(client.line(), "word");
    assert!(client.finish().status.success());
    eventually("the agent ends", || !is_alive(agent));
}

#[test]
fn it_ends_by_itself() {
    let kept = Kept::start();
    run(kept.run(&["true"]).env("LABSH_KEEP", "2s"));
    // The command's connection, and the agent's. Nobody asks it anything, which would keep it.
    kept.0.log().wait_for_nth("authenticated", 2);
    eventually("the agent ends", || kept.agents().is_empty());
    assert!(!kept.socket().exists());
}

#[test]
fn of_many_that_are_started_at_once_one_remains() {
    let kept = Kept::start();
    let clients: Vec<Running> = (0..12).map(|_| Running::start(&mut kept.run(&["true"]))).collect();
    for client in clients {
        let output = client.finish();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    kept.idle();
    eventually("one is left", || matches!(kept.agents()[..], [only] if kept.pid() == Some(only)));
}

#[test]
fn it_holds_nothing_of_who_started_it() {
    let kept = Kept::start();
    let (mut from, to) = std::io::pipe().unwrap();
    let mut client = in_shell("umask 0; exec 7>&1; \"$@\" >&7", &kept.run(&["true"]));
    client.current_dir(kept.0.path()).env("A_SECRET", "word").stdin(Stdio::null()).stdout(to);
    assert!(client.status().unwrap().success());
    drop(client);
    // The end comes with the last process that holds the other side.
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");

    kept.idle();
    let agent = kept.pid().unwrap();
    let of = |file: &str| format!("/proc/{agent}/{file}");
    assert_eq!(fs::read_link(of("cwd")).unwrap().to_str(), Some("/"));
    assert!(!text(&fs::read(of("environ")).unwrap()).contains("A_SECRET"));
    assert!(fs::read_to_string(of("status")).unwrap().contains("Umask:\t0077\n"));
    let stat = fs::read_to_string(of("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!(
        (fields[3], fields[4]),
        (agent.to_string().as_str(), "0"),
        "its session; no terminal"
    );
    assert_eq!(fs::metadata(kept.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = kept.socket().parent().unwrap().to_owned();
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn commands_do_without_one_that_does_not_answer() {
    let kept = Kept::warm();
    let agent = kept.pid().unwrap();
    kill(agent, 19);
    assert_eq!(text(&kept.output(&sh("echo by itself")).stdout), "by itself\n");
    kill(agent, 18);
    let output = kept.through_the_agent(|| kept.output(&sh("echo again")));
    assert_eq!(text(&output.stdout), "again\n");
    assert_eq!(kept.pid(), Some(agent));
}

#[test]
fn one_whose_directory_was_removed_ends_and_leaves_the_next_alone() {
    let kept = Kept::warm();
    let agent = kept.pid().unwrap();
    fs::remove_dir_all(kept.socket().parent().unwrap()).unwrap();
    kept.warm_up();
    eventually("it ends", || !is_alive(agent));
    let other = kept.pid().unwrap();
    assert_ne!(other, agent);
    assert!(kept.socket().exists());
}

#[test]
fn running_out_of_descriptors_neither_ends_it_nor_has_it_spin() {
    let kept = Kept::start();
    assert!(in_shell("ulimit -n 24; \"$@\"", &kept.run(&["true"])).status().unwrap().success());
    kept.idle();
    let agent = kept.pid().unwrap();
    let idlers: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(kept.socket()).unwrap()).collect();
    let before = processor_time(agent);
    for _ in 0..3 {
        assert_eq!(text(&kept.output(&sh("echo all the same")).stdout), "all the same\n");
    }
    drop(idlers);
    kept.through_the_agent(|| assert!(kept.output(&["true"]).status.success()));
    assert_eq!(kept.pid(), Some(agent));
    // Three seconds and more in which nobody was answered would be as many hundreds.
    let used = processor_time(agent) - before;
    assert!(used < 100, "{used} hundredths of a second");
}

#[test]
fn a_place_that_others_could_change_is_not_used() {
    let kept = Kept::start();
    let place = kept.runtime().join("labsh");
    fs::create_dir(&place).unwrap();
    let refused = || {
        for _ in 0..3 {
            assert!(kept.output(&["true"]).status.success());
        }
        eventually("the agents end", || kept.agents().is_empty());
        assert!(!kept.socket().exists());
        assert_eq!(kept.agent("status").status.code(), Some(3));
    };
    fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
    refused();
    let told = text(&kept.agent("status").stderr);
    assert!(told.contains("must be a directory of this user with mode 0700"), "{told}");
    fs::remove_dir(&place).unwrap();
    let elsewhere = kept.0.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    refused();
    fs::remove_file(&place).unwrap();
    fs::set_permissions(kept.runtime(), Permissions::from_mode(0o777)).unwrap();
    // No login session's directory: as if there were none.
    let unasked = || run(kept.run(&["true"]).env_remove("LABSH_KEEP"));
    unasked();
    assert!(!place.exists());
    if am_root() {
        fs::set_permissions(kept.runtime(), Permissions::from_mode(0o700)).unwrap();
        chown(kept.runtime(), Some(SOMEBODY_ELSE), None).unwrap();
        unasked();
        assert!(!place.exists());
    }
    assert!(kept.agents().is_empty());
}

#[test]
fn another_user_cannot_use_it() {
    let Some(python) = tools::python().filter(|_| am_root()) else { return };
    let kept = Kept::warm();
    // Even where every door to it stands open.
    for open in [kept.0.path().to_owned(), kept.runtime(), kept.runtime().join("labsh")] {
        fs::set_permissions(open, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(kept.socket(), Permissions::from_mode(0o666)).unwrap();
    let script = "
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(sys.argv[1])
    try:
        agent.sendall(b'\\0\\0\\0\\x06\"List\"')
        print(agent.recv(100))
    except (BrokenPipeError, ConnectionResetError):
        print(b'')
";
    let ask = |user: u32| {
        let mut python = program(&python);
        text(&run(python.args(["-c", script]).arg(kept.socket()).arg(user.to_string())).stdout)
    };
    assert_eq!(ask(SOMEBODY_ELSE), "b''\n");
    assert!(ask(0).contains("List"), "{}", ask(0));
}

#[test]
fn another_network_is_another_host() {
    let kept = Kept::warm();
    let mut elsewhere = program("unshare");
    elsewhere.args(["--net", "true"]);
    if !am_root() || !elsewhere.status().is_ok_and(|status| status.success()) {
        return;
    }
    let output = in_shell("unshare --net \"$@\"", &kept.run(&["true"])).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("cannot connect to"), "{}", text(&output.stderr));
}
