//! The exit status is the command's own, or tells what else happened.

use std::fs;
use std::process::{Output, Stdio};

use crate::support::{
    self, Labshd, Running, eventually, in_shell, is_alive, own_account, sh, text,
};

/// Asserts an exit status and what stderr says about it.
fn assert_ends(output: &Output, status: i32, reasons: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    for reason in reasons {
        assert!(stderr.contains(reason), "{reason:?} is not in {stderr}");
    }
    assert_eq!(text(&output.stdout), "", "stdout carries the command's data alone");
}

#[test]
fn the_status_is_the_commands_own() {
    let labshd = Labshd::start();
    for code in [0, 1, 7, 99, 124, 125, 255] {
        let output = labshd.output(&sh(&format!("exit {code}")));
        assert_ends(&output, code, &[]);
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_signal_is_128_and_its_number_and_is_named() {
    let labshd = Labshd::start();
    for (number, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (10, "SIGUSR1"), (40, "SIGRTMIN+6)")] {
        let output = labshd.output(&sh(&format!("kill -{number} $$")));
        assert_ends(&output, 128 + number, &[name]);
    }
}

#[test]
fn a_command_that_times_out_is_124() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    let output = labshd.output_with(&["--timeout", "100ms"], &["sleep", "300"]);
    assert_ends(&output, 124, &["its time was up"]);
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let output = labshd.output_with(&["--timeout", "100ms"], &sh(stubborn));
    assert_ends(&output, 124, &["its time was up"]);
    let in_time = labshd.output_with(&["--timeout", "60s"], &sh("exit 3"));
    assert_ends(&in_time, 3, &[]);
}

#[test]
fn the_host_enforces_the_timeout_of_a_stopped_or_killed_client() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    for (count, signal) in [(1, 19), (2, 9)] {
        let stubborn = "trap '' HUP; echo ready; sleep 300";
        let mut client =
            Running::start(&mut labshd.run_with(&["--timeout", "300ms"], &sh(stubborn)));
        assert_eq!(client.line(), "ready");
        client.signal(signal);
        let pid = labshd.command_pid(count);
        eventually("the command is ended", || !is_alive(pid));
    }
}

#[test]
fn what_the_host_refuses_is_125_with_the_reason() {
    let labshd = Labshd::with("accept_env = ['GOOD_*']");
    for (options, reason, remedy) in [
        (["--cwd", "/there/is/none"], "/there/is/none", "name a directory"),
        (["--cwd", "/etc/passwd"], "/etc/passwd", "name a directory"),
        (["--env", "LD_PRELOAD=/x.so"], "LD_PRELOAD", "inside the command"),
        (["--env", "LABSH_KEY_ID=root"], "labshd sets it itself", "leave it out"),
        (["--env", "BAD_NAME=1"], "BAD_NAME", "accept_env"),
        (["--env", "A-B=1"], "A-B", "letters, digits"),
    ] {
        let output = labshd.output_with(&options, &["touch", &labshd.file("marker")]);
        assert_ends(&output, 125, &[reason, remedy]);
    }
    assert!(!labshd.path().join("marker").exists(), "something was started all the same");
    assert_ends(&labshd.output_with(&["--env", "GOOD_X=1"], &["true"]), 0, &[]);
}

#[test]
fn errors_in_the_clients_configuration_are_125_with_their_line() {
    let labshd = Labshd::start();
    let file = labshd.path().join("config/labsh/config.toml");
    for (text, reason) in
        [("\nport = 'x'\n", "config.toml:2"), ("a b\n", "config.toml:1"), ("x = 1\n", "x")]
    {
        fs::write(&file, text).unwrap();
        assert_ends(&labshd.output(&["true"]), 125, &["config.toml", reason]);
    }
}

#[test]
fn a_wrong_command_line_is_125() {
    let labshd = Labshd::start();
    let target = labshd.target();
    for words in [
        vec!["run"],
        vec!["run", &target],
        vec!["run", "--no-such-option", &target, "true"],
        vec!["run", "--timeout", "soon", &target, "true"],
        vec!["run", "--shell", "--argv", &target, "true"],
        vec!["no-such-subcommand"],
        vec![],
    ] {
        let output = labshd.labsh().args(&words).output().unwrap();
        assert_ends(&output, 125, &["--help"]);
    }
}

#[test]
fn what_cannot_be_executed_is_126() {
    let labshd = Labshd::start();
    let file = labshd.file("plain-file");
    fs::write(&file, "echo").unwrap();
    for words in [["/tmp", ""], [&file, ""]] {
        assert_ends(&labshd.output(&words), 126, &[words[0], "cannot be executed"]);
    }
}

#[test]
fn an_unknown_program_is_127_and_shell_characters_suggest_a_shell() {
    let labshd = Labshd::start();
    let output = labshd.output(&["no-such-program", "x"]);
    assert_ends(&output, 127, &["no-such-program", "not found", "PATH"]);
    assert!(!text(&output.stderr).contains("--shell"));
    for words in [
        vec!["no-such-program", "|", "wc"],
        vec!["cd /tmp", ";", "ls"],
        vec!["A=1", "true"],
        vec!["cd", "/tmp"],
    ] {
        assert_ends(&labshd.output(&words), 127, &["not found", "--shell"]);
    }
    // With a shell the shell reports it, even for a line that looks like an option.
    let not_found = if own_account(6).ends_with("/fish") { "Unknown command" } else { "not found" };
    for line in ["no-such-program", "-x", "+x", "--version"] {
        assert_ends(&labshd.output(&["--", line]), 127, &[line, not_found]);
    }
}

#[test]
fn a_port_on_which_nothing_listens_is_255() {
    let labshd = Labshd::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = labshd.labsh().args(["run", &free.to_string(), "true"]).output().unwrap();
    assert_ends(&output, 255, &["cannot connect", &free.to_string(), "check"]);
}

#[test]
fn a_key_that_is_not_enrolled_is_255_and_named() {
    let labshd = Labshd::start();
    support::run(labshd.labsh().args(["key", "new", "stranger"]));
    let output = labshd.output_with(&["--key", "stranger"], &["true"]);
    assert_ends(&output, 255, &["stranger", "127.0.0.1", "labsh key enroll"]);
    let output = labshd.output_with(&["--key", "test", "--host-id", "elsewhere"], &["true"]);
    assert_ends(&output, 255, &["elsewhere"]);
    let plain = labshd.plain.to_string();
    let output = labshd
        .labsh()
        .args(["run", "--key", "stranger", "--plain", &plain, "true"])
        .output()
        .unwrap();
    assert_ends(&output, 125, &["authentication failed"]);
}

#[test]
fn a_server_that_dies_while_a_command_runs_is_255() {
    let mut labshd = Labshd::start();
    let mut client = Running::start(&mut labshd.run(&sh("echo ready; sleep 300")));
    assert_eq!(client.line(), "ready");
    labshd.signal(9);
    labshd.wait();
    assert_ends(&client.finish(), 255, &["connection was lost", "not known"]);
}

#[test]
fn json_reports_every_outcome_in_one_line() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    let tell = |options: &[&str], words: &[&str]| {
        let output = labshd.output_with(&[&["--json"], options].concat(), words);
        let stderr = text(&output.stderr);
        let line = stderr.lines().last().unwrap().to_owned();
        assert!(line.starts_with('{') && line.ends_with('}'), "{stderr}");
        line
    };
    let exited = tell(&[], &sh("printf abc; echo d >&2; exit 3"));
    for part in [
        "\"outcome\":\"exited\"",
        "\"exit_status\":3",
        "\"code\":3",
        "\"signal\":null",
        "\"stdout_bytes\":3",
    ] {
        assert!(exited.contains(part), "{part} is not in {exited}");
    }
    assert!(
        exited.contains("\"stderr_bytes\":2") && exited.contains("\"peak_memory_bytes\""),
        "{exited}"
    );
    for (message, parts) in [
        (tell(&[], &sh("kill -9 $$")), ["\"outcome\":\"signaled\"", "\"signal\":9"]),
        (
            tell(&["--timeout", "50ms"], &["sleep 300"]),
            ["\"outcome\":\"timed-out\"", "\"exit_status\":124"],
        ),
        (
            tell(&[], &["no-such-program", "x"]),
            ["\"outcome\":\"refused\"", "\"code\":\"not-found\""],
        ),
        (
            tell(&["--host-id", "x"], &["true"]),
            ["\"code\":\"wrong-server\"", "\"exit_status\":255"],
        ),
    ] {
        parts.iter().for_each(|part| assert!(message.contains(part), "{part} is not in {message}"));
    }
}

#[test]
fn status_fd_gets_only_the_status() {
    let labshd = Labshd::start();
    let file = labshd.file("status");
    let script = format!("\"$@\" 7>'{file}'");
    let words = sh("echo out; echo err >&2; exit 9");
    let output =
        in_shell(&script, &labshd.run_with(&["--status-fd", "7"], &words)).output().unwrap();
    assert_eq!(output.status.code(), Some(9));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
    let status = fs::read_to_string(file).unwrap();
    assert!(status.contains("\"exit_status\":9") && status.ends_with("}\n"), "{status}");
    assert_eq!(status.lines().count(), 1);
}

#[test]
fn an_unwritable_status_fd_is_refused_before_the_command_starts() {
    let labshd = Labshd::start();
    let words = ["touch", &labshd.file("marker")];
    for script in ["exec \"$@\" 7>&-", "exec \"$@\" 7</dev/null"] {
        let mut command = in_shell(script, &labshd.run_with(&["--status-fd", "7"], &words));
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_ends(&output, 125, &["--status-fd 7", "not open for writing"]);
    }
    assert!(!labshd.path().join("marker").exists());
    assert_eq!(labshd.log().count("authenticated"), 0);
}
