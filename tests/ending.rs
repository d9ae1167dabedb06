//! Signals that end labsh, in every phase: while it connects, while the host starts the command,
//! and while only other processes hold the output open. Signals that labsh was started to ignore.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use labsh_proto::frame::{ChannelId, Kind};
use labsh_proto::message::{Body, Ended, Ping, Status};

use crate::many_hosts::Lab;
use crate::peer::fake_server::{Victim, start, welcome};
use crate::peer::{Peer, message};
use crate::support::{
    Background, Labshd, Running, TEST_TIMEOUT, eventually, in_shell, kill, labsh_in, sh, text,
};

/// The command lines that wait for a host, with the exit status that a signal adds to; none if all
/// signals give 255.
fn command_lines(target: &str, file: &str) -> Vec<(Vec<String>, Option<i32>)> {
    let (host, port) = target.split_once(':').unwrap();
    let copy = format!("{host}:/nosuch/");
    [
        (vec!["run", "--plain", target, "cat"], Some(128)),
        (vec!["run", "--plain", "--max-status", target, "cat"], Some(128)),
        (vec!["run", "--plain", "-tt", target, "cat"], Some(128)),
        (vec!["shell", "--plain", "--force-tty", target], Some(128)),
        (vec!["cp", "--plain", "-p", port, file, &copy], Some(128)),
        (vec!["rsh", "--plain", "-p", port, host, "cat"], None),
        (vec!["rsh", "--plain", "-o", "SendEnv=PATH", "-p", port, host, "cat"], None),
    ]
    .map(|(words, base)| (words.into_iter().map(str::to_owned).collect(), base))
    .into()
}

/// Sends labsh each signal once it waits for a server that runs this script, which reports when
/// that is so.
fn signal_at(script: fn(&mut Peer, &labsh_proto::key::HostKey)) {
    let victim = Victim::new();
    let file = victim.dir.path().join("file");
    fs::write(&file, "content").unwrap();
    let count = command_lines("h:1", "f").len();
    for (index, signal) in (0..count).flat_map(|index| [(index, 15), (index, 1), (index, 2)]) {
        // The first SIGINT to a run on a set only shows who runs.
        if signal == 2 && command_lines("h:1", "f")[index].0.contains(&"--max-status".to_owned()) {
            continue;
        }
        let (waits, is_waiting) = mpsc::channel();
        let (address, server) = victim.serve(move |mut peer, key| {
            script(&mut peer, &key);
            waits.send(()).unwrap();
            // Until labsh has gone.
            let _ = peer.stream.read_to_end(&mut Vec::new());
        });
        let lines = command_lines(&address.to_string(), &file.display().to_string());
        let (words, base) = &lines[index];
        let mut labsh = labsh_in(victim.dir.path());
        let labsh = Running::adopt(labsh.args(words).stdin(Stdio::piped()));
        is_waiting.recv_timeout(TEST_TIMEOUT).unwrap();
        labsh.signal(signal);
        let output = labsh.finish();
        let expected = base.map_or(255, |base| base + signal);
        assert_eq!(output.status.code(), Some(expected), "{words:?} {signal}: {output:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_signal_ends_labsh_while_it_connects() {
    signal_at(|_, _| {});
}

#[test]
fn a_signal_ends_labsh_while_a_host_does_not_start_the_command() {
    signal_at(|peer, key| {
        welcome(peer, key, 8);
        peer.until(Kind::Open, 1);
    });
}

#[test]
fn an_early_signal_ends_the_wait_for_processes_that_the_command_left_behind() {
    let victim = Victim::new();
    for signal in [1, 2, 15] {
        let (ended, has_ended) = mpsc::channel();
        let (address, server) = victim.serve(move |mut peer, key| {
            welcome(&mut peer, &key, 8);
            start(&mut peer);
            let status = Status::Exited(3);
            peer.send(&message(&Ended { status }, 1));
            // The answer shows that labsh has received all of that.
            peer.send_frame(&Ping { token: 7 }.frame(ChannelId::CONNECTION));
            peer.until(Kind::Pong, 0);
            ended.send(()).unwrap();
            let _ = peer.stream.read_to_end(&mut Vec::new());
        });
        let labsh = Running::start(&mut victim.run(address, &["cat"]));
        has_ended.recv_timeout(TEST_TIMEOUT).unwrap();
        labsh.signal(signal);
        let output = labsh.finish();
        assert_eq!(output.status.code(), Some(128 + signal), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("left; the command had ended (exit 3)"), "{said}");
        server.join().unwrap();
    }
}

#[test]
fn a_termination_ends_labsh_though_the_host_of_a_running_command_is_silent() {
    let victim = Victim::new();
    for options in [&[][..], &["--max-status"]] {
        let (started, has_started) = mpsc::channel();
        let (address, server) = victim.serve(move |mut peer, key| {
            welcome(&mut peer, &key, 8);
            start(&mut peer);
            peer.send_frame(&Ping { token: 7 }.frame(ChannelId::CONNECTION));
            peer.until(Kind::Pong, 0);
            started.send(()).unwrap();
            let _ = peer.stream.read_to_end(&mut Vec::new());
        });
        let mut labsh = labsh_in(victim.dir.path());
        labsh.args(["run", "--plain"]).args(options).args([&address.to_string(), "cat"]);
        let labsh = Running::start(&mut labsh);
        has_started.recv_timeout(TEST_TIMEOUT).unwrap();
        labsh.signal(15);
        let output = labsh.finish();
        assert_eq!(output.status.code(), Some(143), "{options:?}: {output:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_termination_does_not_wait_for_processes_that_outlive_the_command() {
    let labshd = Labshd::start();
    // The process is in a session of its own, so that the signal does not reach it.
    let command = "setsid sh -c 'echo $$; exec sleep 300' & exec sleep 300";
    let mut client = Running::start(&mut labshd.run(&sh(command)));
    let left = Background(client.pid_line());
    client.signal(15);
    let output = client.finish();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("left; the command had ended (signal 15, SIGTERM)"), "{said}");
    drop(left);
}

#[test]
fn a_termination_does_not_wait_for_a_reader_that_takes_nothing() {
    let lab = Lab::of(1);
    for words in [&["h01", "yes"][..], &["--max-status", "h01", "yes"]] {
        let mut labsh = lab.command(words);
        let mut labsh = labsh.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = labsh.id() as i32;
        // Its output stays in the pipe, which is full at some time.
        let stdout = labsh.stdout.take().unwrap();
        eventually("the pipe is full", || {
            let full = nix::poll::PollFlags::POLLIN;
            let mut polled = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&stdout), full)];
            nix::poll::poll(&mut polled, nix::poll::PollTimeout::ZERO).unwrap() > 0
        });
        kill(pid, 15);
        assert_eq!(labsh.wait().unwrap().code(), Some(143), "{words:?}");
        drop(stdout);
    }
}

/// The script of a command that leaves a process behind, which holds its output open.
const LEAVES: &str = "sleep 300 & echo $!; exit 3";

#[test]
fn a_run_on_many_hosts_says_what_it_waits_for_and_knows_how_the_commands_ended() {
    let lab = Lab::new();
    let mut run = Running::start(&mut lab.command(&[&["h[01-02]"], &sh(LEAVES)[..]].concat()));
    let left = [run.line(), run.line()]
        .map(|line| Background(line.rsplit(' ').next().unwrap().parse().unwrap()));
    let notice = run.error_line();
    for part in ["the command has ended on h[01-02] (2)", "holds its output open", "--no-wait-eof"]
    {
        assert!(notice.contains(part), "{notice}");
    }
    run.signal(2);
    let listed = run.error_line();
    assert!(listed.contains("ended on h[01-02] (2)") && !listed.contains("running"), "{listed}");
    run.signal(2);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("labsh: exit 3 (2): h[01-02]\n") && !said.contains("lost"), "{said}");
    drop(left);

    // A termination need not be repeated.
    let mut run = Running::start(&mut lab.command(&[&["h[01-02]"], &sh(LEAVES)[..]].concat()));
    let left = [run.line(), run.line()]
        .map(|line| Background(line.rsplit(' ').next().unwrap().parse().unwrap()));
    assert!(run.error_line().contains("the command has ended on h[01-02] (2)"));
    run.signal(15);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert!(text(&output.stderr).contains("labsh: exit 3 (2): h[01-02]\n"), "{output:?}");
    drop(left);
}

/// Starts labsh with signals ignored, as nohup(1) and the shells of scripts do.
fn ignoring(signals: &str, labsh: &Command) -> Command {
    in_shell(&format!("trap '' {signals}; exec \"$@\""), labsh)
}

fn assert_ignored(labsh: &Running, signals: &[i32]) {
    let status = fs::read_to_string(format!("/proc/{}/status", labsh.child.id())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let mask = u64::from_str_radix(mask, 16).unwrap();
    for signal in signals {
        assert!(mask & (1 << (signal - 1)) != 0, "signal {signal} is not ignored: {status}");
    }
}

#[test]
fn signals_that_labsh_was_started_to_ignore_do_not_end_it() {
    let labshd = Labshd::start();
    let target = labshd.target();
    let (host, port) = target.split_once(':').unwrap();
    let script = "echo ready; read line; echo finished";
    for words in [
        &["run", &target, "sh", "-c", script][..],
        &["run", "--max-status", &target, "sh", "-c", script],
        &["run", "-tt", &target, "sh", "-c", script],
        &["rsh", "-p", port, host, script],
        &["rsh", "-tt", "-p", port, host, script],
    ] {
        let mut labsh = labshd.labsh();
        labsh.args(words);
        let mut labsh = Running::adopt(ignoring("HUP INT QUIT TERM", &labsh).stdin(Stdio::piped()));
        let ready = labsh.line();
        assert!(ready.trim_end().ends_with("ready"), "{ready}");
        for signal in [1, 2, 3, 15] {
            labsh.signal(signal);
        }
        assert_ignored(&labsh, &[1, 2, 3, 15]);
        labsh.child.stdin.as_ref().unwrap().write_all(b"go\n").unwrap();
        let output = labsh.finish();
        assert!(text(&output.stdout).contains("finished"), "{words:?}: {output:?}");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    }
}

#[test]
fn a_copy_ignores_signals_that_labsh_was_started_to_ignore() {
    let victim = Victim::new();
    let file = victim.dir.path().join("file");
    fs::write(&file, "content").unwrap();
    let (waits, is_waiting) = mpsc::channel();
    let (address, server) = victim.serve(move |mut peer, key| {
        welcome(&mut peer, &key, 8);
        peer.until(Kind::Open, 1);
        waits.send(()).unwrap();
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    let mut labsh = labsh_in(victim.dir.path());
    let (port, copy) = (address.port().to_string(), format!("{}:/nosuch/", address.ip()));
    labsh.args(["cp", "--plain", "-p", &port, &file.display().to_string(), &copy]);
    let labsh = Running::start(&mut ignoring("HUP INT TERM", &labsh));
    is_waiting.recv_timeout(TEST_TIMEOUT).unwrap();
    assert_ignored(&labsh, &[1, 2, 15]);
    drop(labsh);
    server.join().unwrap();
}
