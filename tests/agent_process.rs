//! The agent as a process: when it starts and ends, what it inherits, and who can use it.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::support::agent::Login;
use crate::support::*;

/// The uid of an account that is not root's.
const OTHER_USER: u32 = 65534;

#[test]
fn the_agent_starts_only_in_a_login_session_and_where_it_is_enabled() {
    let login = Login::start();
    let unasked = || {
        let mut command = login.run(&["true"]);
        command.env_remove("LABSH_KEEP");
        command
    };
    run(login.run(&["true"]).env("LABSH_KEEP", "off"));
    run(unasked().env_remove("XDG_RUNTIME_DIR"));
    run(unasked().env("XDG_RUNTIME_DIR", "run"));
    run(login.labsh().args(["run", "--keep", "off", &login.0.target(), "true"]));
    // Each of them made its own connection; there are no others.
    login.0.log().wait_for_nth("command ended", 4);
    assert_eq!(login.connections(), 4);
    assert!(!login.runtime().join("labsh").exists());
    assert!(login.agents().is_empty());
    assert_eq!(login.agent("status").status.code(), Some(3));
    assert!(login.agent("stop").status.success());
    assert_eq!(login.list(), "");

    let in_a_service = fs::read_to_string("/proc/self/cgroup")
        .unwrap()
        .lines()
        .any(|line| line.ends_with(".service"));
    run(&mut unasked());
    if in_a_service {
        assert!(login.agents().is_empty());
        login.warm_up();
    }
    login.idle();
    let list = login.list();
    for part in [&login.0.target(), "host id 127.0.0.1", "key test", "open for ", "idle for "] {
        assert!(list.contains(part), "{part} in {list}");
    }
}

#[test]
fn agent_stop_ends_the_agent_and_the_next_command_starts_another() {
    let login = Login::warm();
    let agent = login.pid().unwrap();
    let mut client = login.through_the_agent(|| {
        let mut client = login.run(&sh("echo ready; read line; echo $line"));
        let mut client = Running::adopt(client.stdin(Stdio::piped()));
        assert_eq!(client.line(), "ready");
        client
    });
    assert!(login.agent("stop").status.success());
    assert!(!login.socket().exists());
    assert_eq!(login.agent("status").status.code(), Some(3));
    login.warm_up();
    assert_ne!(login.pid(), Some(agent));
    // A command that it relays goes on.
    assert!(is_alive(agent));
    client.child.stdin.as_mut().unwrap().write_all(b"word\n").unwrap();
    assert_eq!(client.line(), "word");
    assert!(client.finish().status.success());
    eventually("the agent ends", || !is_alive(agent));
}

#[test]
fn an_idle_agent_ends() {
    let login = Login::start();
    run(login.run(&["true"]).env("LABSH_KEEP", "2s"));
    // The command's connection, and the agent's. Asking the agent would restart its time.
    login.0.log().wait_for_nth("authenticated", 2);
    eventually("the agent ends", || login.agents().is_empty());
    assert!(!login.socket().exists());
}

#[test]
fn of_several_agents_started_at_once_one_remains() {
    let login = Login::start();
    let clients: Vec<Running> =
        (0..12).map(|_| Running::start(&mut login.run(&["true"]))).collect();
    for client in clients {
        let output = client.finish();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    login.idle();
    eventually("one is left", || matches!(login.agents()[..], [only] if login.pid() == Some(only)));
}

#[test]
fn the_agent_inherits_nothing_from_the_command_that_started_it() {
    let login = Login::start();
    let (mut from, to) = std::io::pipe().unwrap();
    let mut client = in_shell("umask 0; exec 7>&1; \"$@\" >&7", &login.run(&["true"]));
    client.current_dir(login.0.path()).env("A_SECRET", "word").stdin(Stdio::null()).stdout(to);
    assert!(client.status().unwrap().success());
    drop(client);
    // The pipe ends when the last process that holds its other end has closed it.
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");

    login.idle();
    let agent = login.pid().unwrap();
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
    assert_eq!(fs::metadata(login.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = login.socket().parent().unwrap().to_owned();
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn commands_work_without_an_agent_that_does_not_answer() {
    let login = Login::warm();
    let agent = login.pid().unwrap();
    kill(agent, 19);
    assert_eq!(text(&login.output(&sh("echo by itself")).stdout), "by itself\n");
    kill(agent, 18);
    let output = login.through_the_agent(|| login.output(&sh("echo again")));
    assert_eq!(text(&output.stdout), "again\n");
    assert_eq!(login.pid(), Some(agent));
}

#[test]
fn an_agent_whose_directory_was_removed_ends() {
    let login = Login::warm();
    let agent = login.pid().unwrap();
    fs::remove_dir_all(login.socket().parent().unwrap()).unwrap();
    login.warm_up();
    eventually("it ends", || !is_alive(agent));
    let other = login.pid().unwrap();
    assert_ne!(other, agent);
    assert!(login.socket().exists());
}

#[test]
fn an_agent_out_of_descriptors_neither_ends_nor_spins() {
    let login = Login::start();
    assert!(in_shell("ulimit -n 24; \"$@\"", &login.run(&["true"])).status().unwrap().success());
    login.idle();
    let agent = login.pid().unwrap();
    let idlers: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(login.socket()).unwrap()).collect();
    let before = processor_time(agent);
    for _ in 0..3 {
        assert_eq!(text(&login.output(&sh("echo all the same")).stdout), "all the same\n");
    }
    drop(idlers);
    login.through_the_agent(|| assert!(login.output(&["true"]).status.success()));
    assert_eq!(login.pid(), Some(agent));
    // Spinning for the three seconds in which clients wait would take 300 hundredths.
    let used = processor_time(agent) - before;
    assert!(used < 100, "{used} hundredths of a second");
}

#[test]
fn a_directory_that_others_can_change_is_not_used() {
    let login = Login::start();
    let place = login.runtime().join("labsh");
    fs::create_dir(&place).unwrap();
    let refused = || {
        for _ in 0..3 {
            assert!(login.output(&["true"]).status.success());
        }
        eventually("the agents end", || login.agents().is_empty());
        assert!(!login.socket().exists());
        assert_eq!(login.agent("status").status.code(), Some(3));
    };
    fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
    refused();
    let stderr = text(&login.agent("status").stderr);
    assert!(stderr.contains("must be a directory of this user with mode 0700"), "{stderr}");
    fs::remove_dir(&place).unwrap();
    let elsewhere = login.0.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    refused();
    fs::remove_file(&place).unwrap();
    fs::set_permissions(login.runtime(), Permissions::from_mode(0o777)).unwrap();
    // A runtime directory that others can change counts as none.
    let unasked = || run(login.run(&["true"]).env_remove("LABSH_KEEP"));
    unasked();
    assert!(!place.exists());
    if am_root() {
        fs::set_permissions(login.runtime(), Permissions::from_mode(0o700)).unwrap();
        chown(login.runtime(), Some(OTHER_USER), None).unwrap();
        unasked();
        assert!(!place.exists());
    }
    assert!(login.agents().is_empty());
}

#[test]
fn another_user_cannot_use_the_agent() {
    let Some(python) = tools::python().filter(|_| am_root()) else { return };
    let login = Login::warm();
    // Even if the modes of the directories and of the socket let everyone in.
    for open in [login.0.path().to_owned(), login.runtime(), login.runtime().join("labsh")] {
        fs::set_permissions(open, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(login.socket(), Permissions::from_mode(0o666)).unwrap();
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
        text(&run(python.args(["-c", script]).arg(login.socket()).arg(user.to_string())).stdout)
    };
    assert_eq!(ask(OTHER_USER), "b''\n");
    assert!(ask(0).contains("List"), "{}", ask(0));
}

#[test]
fn a_connection_is_not_used_from_another_network_namespace() {
    let login = Login::warm();
    let mut elsewhere = program("unshare");
    elsewhere.args(["--net", "true"]);
    if !am_root() || !elsewhere.status().is_ok_and(|status| status.success()) {
        return;
    }
    let output = in_shell("unshare --net \"$@\"", &login.run(&["true"])).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("cannot connect to"), "{}", text(&output.stderr));
}
