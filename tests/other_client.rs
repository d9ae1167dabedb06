//! A Python client, written from docs/PROTOCOL.md alone, works with labshd.

use std::process::Command;

use crate::support::{HOST, Labshd, pipe_through, program, text, tools};

fn python(labshd: &Labshd, words: &[&str]) -> Option<Command> {
    let mut command = program(tools::python()?);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/labsh_client.py"));
    command.arg("--key-file").arg(labshd.path().join("config/labsh/keys/test.key"));
    command.args(words);
    Some(command)
}

fn over_tcp(labshd: &Labshd, host: &str, words: &[&str]) -> Option<Command> {
    let mut command = python(labshd, &["--host-id", host])?;
    command.arg(labshd.plain.ip().to_string()).arg(labshd.plain.port().to_string()).args(words);
    Some(command)
}

#[test]
fn the_python_client_runs_a_command_with_stdin_output_and_status() {
    let labshd = Labshd::start();
    let input: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let words = ["--", "sh", "-c", "cat; echo over >&2; exit 7"];
    let Some(mut command) = over_tcp(&labshd, HOST, &words) else { return };
    let output = pipe_through(&mut command, &input);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(output.stdout == input, "{} bytes of {}", output.stdout.len(), input.len());
    assert_eq!(text(&output.stderr), "over\n");
}

#[test]
fn the_python_client_runs_a_shell_line_over_a_unix_socket() {
    let labshd = Labshd::start();
    let words = ["--host-id", "localhost", "--shell", "--unix"];
    let Some(mut command) = python(&labshd, &words) else { return };
    command.arg(labshd.unix_path());
    command.args(["--", "seq 1 1000000 | tail -1"]);
    let output = pipe_through(&mut command, b"");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "1000000\n"));
}

#[test]
fn the_python_client_reports_refusals_signals_and_timeouts_like_labsh() {
    let labshd = Labshd::start();
    if tools::python().is_none() {
        return;
    }
    let status = |words: &[&str]| {
        pipe_through(&mut over_tcp(&labshd, HOST, words).unwrap(), b"").status.code()
    };
    assert_eq!(status(&["--", "no-such-program-anywhere"]), Some(127));
    assert_eq!(status(&["--", "/etc"]), Some(126));
    assert_eq!(status(&["--", "sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(status(&["--shell", "--timeout", "200", "--", "sleep 60"]), Some(124));
}

#[test]
fn the_python_client_gets_the_version_of_labshd() {
    let labshd = Labshd::start();
    let Some(mut command) = over_tcp(&labshd, HOST, &["--say-version", "--", "true"]) else {
        return;
    };
    let output = pipe_through(&mut command, b"");
    let message = format!("labsh_client: answered by labshd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), message));
}

#[test]
fn a_client_that_knows_nothing_of_versions_works_as_before() {
    let labshd = Labshd::start();
    let words = ["--features", "0", "--say-version", "--", "true"];
    let Some(mut command) = over_tcp(&labshd, HOST, &words) else { return };
    let output = pipe_through(&mut command, b"");
    let message = "labsh_client: answered by an unknown version\n".to_owned();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), message));
}

#[test]
fn a_wrong_host_id_is_refused() {
    let labshd = Labshd::start();
    let Some(mut command) = over_tcp(&labshd, "elsewhere", &["--", "true"]) else { return };
    let output = pipe_through(&mut command, b"");
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("authentication failed"), "{}", text(&output.stderr));
}
