//! Connections that stay: commands through a session that is open already, and everything that may go wrong with it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use crate::support::*;

/// A labshd, and the agent of a user whose runtime directory is the test's own; ended with the test.
struct Kept(Labshd);

impl Kept {
    fn start() -> Self {
        Self::of(Labshd::start())
    }

    fn of(labshd: Labshd) -> Self {
        fs::create_dir(labshd.path().join("run")).unwrap();
        Self(labshd)
    }

    fn labsh(&self) -> Command {
        let mut labsh = self.0.labsh();
        labsh.env("XDG_RUNTIME_DIR", self.0.path().join("run")).env("LABSH_KEEP", "10m");
        labsh
    }

    fn run(&self, words: &[&str]) -> Command {
        let mut command = self.labsh();
        command.arg("run").arg(self.0.target()).args(words);
        command
    }

    fn output(&self, words: &[&str]) -> Output {
        self.run(words).stdin(Stdio::null()).output().unwrap()
    }

    fn agent(&self, action: &str) -> Output {
        self.labsh().args(["agent", action]).stdin(Stdio::null()).output().unwrap()
    }

    fn list(&self) -> String {
        text(&self.agent("list").stdout)
    }

    /// Runs a command, and waits until a connection is kept.
    fn warm(&self) {
        assert!(self.output(&["true"]).status.success());
        self.idle();
    }

    fn idle(&self) {
        eventually("a connection is kept", || self.list().contains(", idle for "));
    }

    fn pid(&self) -> Option<i32> {
        let said = text(&self.agent("status").stdout);
        said.strip_prefix("process ")?.split(',').next()?.parse().ok()
    }

    fn connections(&self) -> usize {
        self.0.log().count("authenticated")
    }

    fn socket(&self) -> std::path::PathBuf {
        self.0.path().join("run/labsh/agent.sock")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").arg("-9").arg(pid.to_string()).stderr(Stdio::null()).status();
        }
    }
}

#[test]
fn the_second_command_opens_no_connection() {
    let kept = Kept::start();
    kept.warm();
    let before = kept.connections();
    assert!(before >= 2, "{}", kept.0.log().text());
    for number in 0..5 {
        let output = kept.output(&[&format!("echo {number}; echo err >&2; exit {number}")]);
        assert_eq!(text(&output.stdout), format!("{number}\n"));
        assert_eq!(text(&output.stderr), "err\n");
        assert_eq!(output.status.code(), Some(number));
        kept.idle();
    }
    assert_eq!(kept.connections(), before);
}

#[test]
fn everything_arrives_whole_and_input_too() {
    let kept = Kept::start();
    kept.warm();
    let before = kept.connections();
    let output = kept.output(&["seq 1 3000000 & seq 1 2000000 >&2; wait"]);
    assert!(output.status.success());
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines(&output.stdout), lines(&output.stderr)), (3_000_000, 2_000_000));
    assert!(output.stdout.ends_with(b"\n3000000\n") && output.stderr.ends_with(b"\n2000000\n"));
    kept.idle();
    let input = output.stdout;
    let back = feed(&mut kept.run(&["cat"]), &input);
    assert!(back.stdout == input);
    assert_eq!(kept.connections(), before);
}

#[test]
fn a_client_that_is_killed_takes_its_command_along() {
    let kept = Kept::start();
    kept.warm();
    let mut client = Running::start(&mut kept.run(&["echo $$; exec sleep 1000"]));
    let pid = client.pid_line();
    client.signal(9);
    eventually("the command ends", || !is_alive(pid));
    assert!(kept.output(&["true"]).status.success());
}

#[test]
fn a_signal_reaches_the_command() {
    let kept = Kept::start();
    kept.warm();
    let mut client = Running::start(
        &mut kept.run(&["trap 'echo got; exit 7' INT; echo ready; while :; do read x; sleep 0.05; done"]),
    );
    assert_eq!(client.line(), "ready");
    client.signal(2);
    assert_eq!(client.line(), "got");
    assert_eq!(client.finish().status.code(), Some(7));
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let kept = Kept::start();
    kept.warm();
    let output = in_shell("\"$@\" | head -1", &kept.run(&["yes"])).output().unwrap();
    assert_eq!(text(&output.stdout), "y\n");
    assert!(kept.output(&["true"]).status.success());
}

#[test]
fn an_agent_that_is_killed_is_a_lost_connection_and_then_replaced() {
    let kept = Kept::start();
    kept.warm();
    let agent = kept.pid().unwrap();
    let mut client = Running::start(&mut kept.run(&["echo $$; exec sleep 1000"]));
    let command = client.pid_line();
    kill(agent, 9);
    let end = client.finish();
    assert_eq!(end.status.code(), Some(255), "{}", text(&end.stderr));
    assert!(text(&end.stderr).contains("the connection was lost"), "{}", text(&end.stderr));
    eventually("the command ends", || !is_alive(command));
    assert!(kept.socket().exists());
    kept.warm();
    assert_ne!(kept.pid(), Some(agent));
}

#[test]
fn a_host_that_goes_is_a_lost_connection_and_is_forgotten() {
    let mut kept = Kept::start();
    kept.warm();
    let mut client = Running::start(&mut kept.run(&["echo $$; exec sleep 1000"]));
    client.pid_line();
    kept.0.child.kill().unwrap();
    kept.0.wait();
    assert_eq!(client.finish().status.code(), Some(255));
    eventually("nothing is kept", || kept.list().is_empty());
    let output = kept.output(&["true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("cannot connect to"), "{}", text(&output.stderr));
}

#[test]
fn a_key_that_is_removed_over_there_is_not_used_any_more() {
    let kept = Kept::start();
    kept.warm();
    for entry in fs::read_dir(kept.0.path().join("keys.d")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    kept.0.reload();
    let output = kept.output(&["true"]);
    assert!(!output.status.success());
}

#[test]
fn two_hundred_commands_from_as_many_processes() {
    let kept = Kept::start();
    kept.warm();
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let kept = &kept;
            scope.spawn(move || {
                for number in 0..25 {
                    let word = format!("{lane}.{number}");
                    let output = kept.output(&["echo", &word]);
                    assert_eq!(text(&output.stdout), word + "\n", "{}", text(&output.stderr));
                    assert!(output.status.success());
                }
            });
        }
    });
}

#[test]
fn garbage_from_a_local_client_harms_nobody() {
    let kept = Kept::start();
    kept.warm();
    let agent = kept.pid();
    for garbage in [&[0xff; 100][..], b"\0\0\0\x02{}", b"\0\0\0\x00", b"GET / HTTP/1.0\r\n\r\n"] {
        let mut stream = UnixStream::connect(kept.socket()).unwrap();
        stream.write_all(garbage).unwrap();
    }
    assert_eq!(text(&kept.output(&["echo still"]).stdout), "still\n");
    assert_eq!(kept.pid(), agent);
}

#[test]
fn it_can_be_stopped_and_is_used_only_where_that_was_said() {
    let kept = Kept::start();
    assert!(kept.run(&["true"]).env("LABSH_KEEP", "off").stdin(Stdio::null()).status().unwrap().success());
    assert_eq!(kept.agent("status").status.code(), Some(3));
    kept.warm();
    let agent = kept.pid().unwrap();
    let mut client = Running::start(&mut kept.run(&["echo ready; read line; echo $line"]));
    assert_eq!(client.line(), "ready");
    assert!(client.finish().status.success());
    assert!(kept.agent("stop").status.success());
    eventually("the agent ends", || !is_alive(agent));
    assert_eq!(kept.agent("status").status.code(), Some(3));
}

#[test]
fn it_ends_by_itself() {
    let kept = Kept::start();
    let short = |words: &[&str]| {
        let output = kept.run(words).env("LABSH_KEEP", "2s").stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    short(&["true"]);
    let mut agent = None;
    eventually("the agent runs", || {
        agent = kept.pid();
        agent.is_some()
    });
    // Nobody asks it anything, which would keep it.
    eventually("the agent ends", || !is_alive(agent.unwrap()));
    assert!(!kept.socket().exists());
}

#[test]
fn a_place_that_others_could_change_is_not_used() {
    let kept = Kept::start();
    let place = kept.0.path().join("run/labsh");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    for _ in 0..3 {
        assert!(kept.output(&["true"]).status.success());
    }
    assert!(!kept.socket().exists());
    assert_eq!(kept.agent("status").status.code(), Some(3));
}
