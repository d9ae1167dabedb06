//! Interrupts, clients that are killed, readers that close, and processes left in the background.

use std::io::Read;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Background, INTERRUPTIBLE, Labshd, Running, eventually, in_shell, is_alive, sh, text,
};

const IMPATIENT: &str = "termination_grace = '100ms'";

#[test]
fn an_interrupt_reaches_the_command_and_is_130() {
    let labshd = Labshd::start();
    for (signal, status, name) in [(2, 130, "SIGINT"), (15, 143, "SIGTERM")] {
        let mut client = Running::start(&mut labshd.run(&sh(INTERRUPTIBLE)));
        assert_eq!(client.line(), "ready");
        client.signal(signal);
        let output = client.finish();
        assert_eq!(output.status.code(), Some(status));
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).contains(name), "{}", text(&output.stderr));
    }
}

#[test]
fn an_interrupt_reaches_every_process_of_the_command() {
    let labshd = Labshd::start();
    // A pipeline in one process group; a background job would not get the signal.
    let pipeline = "bash -c 'echo $$ >&2; exec sleep 300' | bash -c 'echo $$ >&2; exec cat'";
    let mut client = Running::start(&mut labshd.run(&sh(pipeline)));
    let pids = [client.error_line(), client.error_line()].map(|line| line.parse().unwrap());
    client.signal(2);
    assert_eq!(client.finish().status.code(), Some(130));
    eventually("the pipeline is gone", || !pids.into_iter().any(is_alive));
}

/// Runs a script that then prints `ready` and waits for signals. It starts no program meanwhile:
/// bash can miss an interrupt that arrives while it forks.
fn listening(labshd: &Labshd, script: &str) -> Running {
    let script = format!("{script}; echo ready; while :; do read -rt 0.05; done");
    Running::adopt(labshd.run(&["bash", "-c", &script]).stdin(Stdio::piped()))
}

#[test]
fn a_command_may_handle_an_interrupt() {
    let labshd = Labshd::start();
    let mut client = listening(&labshd, "trap 'echo caught; exit 3' INT");
    assert_eq!(client.line(), "ready");
    client.signal(2);
    let output = client.finish();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), "caught\n".into()));
}

#[test]
fn the_third_interrupt_leaves_and_the_host_ends_the_command() {
    let labshd = Labshd::with(IMPATIENT);
    let mut client = listening(&labshd, "trap 'echo interrupted' INT; trap '' HUP TERM");
    assert_eq!(client.line(), "ready");
    for _ in 0..2 {
        client.signal(2);
        assert_eq!(client.line(), "interrupted");
    }
    client.signal(2);
    let output = client.finish();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("the host ends the command"), "{}", text(&output.stderr));
    let pid = labshd.command_pid(1);
    eventually("the command is ended", || !is_alive(pid));
}

#[test]
fn killing_the_client_ends_every_process_of_its_command() {
    let labshd = Labshd::with(IMPATIENT);
    let family = "echo $$; \
                  bash -c 'echo $$; exec sleep 300' & \
                  bash -c 'trap \"\" HUP TERM; echo $$; bash -c \"echo \\$\\$; exec sleep 300\"; \
                  sleep 300' & \
                  wait; sleep 300";
    let mut client = Running::start(&mut labshd.run(&sh(family)));
    let pids: Vec<i32> = (0..4).map(|_| client.pid_line()).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    client.signal(9);
    eventually("all of them are gone", || !pids.iter().any(|pid| is_alive(*pid)));
    labshd.log().wait_for("cause=\"client gone\"");
}

/// Prints the id of a process in a group of its own, as a job of `set -m` or of timeout(1), and
/// waits for it.
const OTHER_GROUP: [&str; 3] = ["bash", "-c", "set -m; sleep 300 & echo $!; wait"];

#[test]
fn a_command_ends_with_its_processes_in_other_groups() {
    let labshd = Labshd::with(IMPATIENT);
    for (signal, status) in [(9, None), (15, Some(143))] {
        let mut client = Running::start(&mut labshd.run(&OTHER_GROUP));
        let pid = client.pid_line();
        client.signal(signal);
        assert_eq!(client.finish().status.code(), status);
        eventually("its process is gone", || !is_alive(pid));
    }
    let output = labshd.output_with(&["--timeout", "500ms"], &OTHER_GROUP);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    let pid = text(&output.stdout).trim().parse().unwrap();
    eventually("its process is gone", || !is_alive(pid));
}

#[test]
fn a_process_that_ignores_all_but_sigkill_ends_with_its_command() {
    let labshd = Labshd::with(IMPATIENT);
    let script = "set -m; (trap '' HUP TERM; echo $BASHPID; exec sleep 300) & wait";
    let mut client = Running::start(&mut labshd.run(&["bash", "-c", script]));
    let pid = client.pid_line();
    client.signal(9);
    labshd.log().wait_for("command ended");
    eventually("its process is gone", || !is_alive(pid));
}

#[test]
fn an_ended_command_is_reaped_once_nothing_of_it_is_left() {
    // Without that it would stay a zombie for two minutes.
    let labshd = Labshd::with("termination_grace = '1m'");
    let mut client = Running::start(&mut labshd.run(&sh("sleep 300 & echo $$; wait")));
    let pid = client.pid_line();
    client.signal(9);
    eventually("the command is reaped", || !std::fs::exists(format!("/proc/{pid}")).unwrap());
}

#[test]
fn a_command_may_clean_up_after_its_client_is_gone() {
    let labshd = Labshd::with("termination_grace = '1m'");
    let clean = labshd.file("clean");
    let trap =
        format!("echo cleaning up; echo really >&2; head -c 1000000 /dev/zero; : >{clean}; exit 1");
    let mut client = Running::start(
        &mut labshd
            .run(&sh(&format!("trap '{trap}' HUP; echo ready; while :; do sleep 0.05; done"))),
    );
    assert_eq!(client.line(), "ready");
    client.signal(9);
    let ended = labshd.log().wait_for("command ended");
    assert!(ended.contains("exit 1"), "{ended}");
    assert!(std::fs::exists(clean).unwrap());
}

#[test]
fn a_stopped_command_does_not_outlive_its_client() {
    let labshd = Labshd::with(IMPATIENT);
    let mut client = Running::start(&mut labshd.run(&sh("echo $$; kill -STOP $$; sleep 300")));
    let pid = client.pid_line();
    client.signal(9);
    eventually("it is gone", || !is_alive(pid));
}

#[test]
fn a_background_process_survives() {
    let labshd = Labshd::with(IMPATIENT);
    let output = labshd.output(&sh("sleep 300 </dev/null >/dev/null 2>&1 & echo $!"));
    assert!(output.status.success());
    let left = Background(text(&output.stdout).trim().parse().unwrap());
    labshd.log().wait_for("session ended");
    // Once another command has run, anything that would end the process has had time to.
    assert!(labshd.output(&["true"]).status.success());
    assert!(is_alive(left.0));
}

#[test]
fn a_closed_stdout_ends_the_command() {
    let labshd = Labshd::start();
    let status = labshd.file("status");
    let script = format!("{{ \"$@\"; echo $? >{status}; }} | head -1");
    let output = in_shell(&script, &labshd.run(&["yes"])).stdin(Stdio::null()).output().unwrap();
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("y\n".into(), String::new()));
    assert_eq!(std::fs::read_to_string(status).unwrap(), "141\n");
    let pid = labshd.command_pid(1);
    eventually("yes is gone", || !is_alive(pid));
}

#[test]
fn a_process_that_holds_the_output_open_is_reported_and_waited_for() {
    let labshd = Labshd::start();
    let mut client = Running::start(&mut labshd.run(&sh("sleep 300 & echo $!; exit 5")));
    let left = Background(client.pid_line());
    let stderr = client.error_line();
    assert!(
        stderr.contains("holds its output open") && stderr.contains("--no-wait-eof"),
        "{stderr}"
    );
    drop(left);
    assert_eq!(client.finish().status.code(), Some(5));
}

#[test]
fn output_of_background_processes_arrives() {
    let labshd = Labshd::start();
    let output = labshd.output(&sh("(sleep 0.1; echo late; sleep 0.1; echo later) & echo early"));
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("early\n") && stdout.contains("late\n") && stdout.ends_with("later\n"),
        "{stdout}"
    );
}

#[test]
fn a_slow_reader_is_not_taken_for_a_process_left_behind() {
    let labshd = Labshd::start();
    let client = Running::start(&mut labshd.run(&sh("head -c 500000 /dev/zero")));
    labshd.log().wait_for("command ended");
    // The outcome does not depend on this time, in which a wrong message would be printed.
    std::thread::sleep(Duration::from_millis(2500));
    let output = client.finish();
    assert_eq!((output.stdout.len(), text(&output.stderr)), (500_000, String::new()));
}

/// Runs a script with --no-wait-eof; stderr must be the id of the process that it leaves behind.
fn leaving(labshd: &Labshd, command: &str) -> (Output, Background) {
    let output = labshd.output_with(&["--no-wait-eof"], &sh(command));
    let pid = text(&output.stderr).trim().parse().unwrap();
    (output, Background(pid))
}

#[test]
fn no_wait_eof_prints_everything_that_was_written() {
    let labshd = Labshd::start();
    for bytes in [0, 1, 65_536, 1_000_000] {
        let (output, left) = leaving(
            &labshd,
            &format!("sleep 300 & echo $! >&2; head -c {bytes} /dev/zero; exit 5"),
        );
        assert_eq!((output.status.code(), output.stdout.len()), (Some(5), bytes));
        assert!(is_alive(left.0), "it stays, as it was put in the background");
    }
}

#[test]
fn no_wait_eof_leaves_while_a_background_process_writes() {
    let labshd = Labshd::start();
    let mut client = labshd.run_with(&["--no-wait-eof"], &sh("yes & echo $! >&2; sleep 0.2"));
    let mut client =
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Slower than yes, so that its pipe is never empty.
    let mut stdout = client.stdout.take().unwrap();
    let mut buffer = [0; 1 << 16];
    let deadline = Instant::now() + Duration::from_secs(30);
    while stdout.read(&mut buffer).unwrap() > 0 {
        assert!(Instant::now() < deadline, "it goes on and on");
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success());
    let pid = text(&output.stderr).trim().parse().unwrap();
    let _left = Background(pid);
    eventually("yes has lost its reader", || !is_alive(pid));
}
