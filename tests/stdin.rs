//! The stdin of a command: it arrives complete, and ends only at its real end.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use sha2::{Digest, Sha256};

use crate::support::{
    Labshd, Running, eventually, in_shell, is_alive, pipe_through, program, sh, text,
};

/// Deterministic bytes in which every position differs from its neighbours (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn a_file_is_read_to_its_end() {
    let labshd = Labshd::start();
    let file = labshd.file("input");
    fs::write(&file, noise(1_000_003)).unwrap();
    let output = labshd.run(&["wc", "-c"]).stdin(fs::File::open(file).unwrap()).output().unwrap();
    assert_eq!(text(&output.stdout), "1000003\n");
}

#[test]
fn empty_stdin_ends_at_once() {
    let labshd = Labshd::start();
    let output = labshd.run(&["cat"]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
}

#[test]
fn option_n_leaves_stdin_unread() {
    let labshd = Labshd::start();
    let mut shell = in_shell("\"$@\"; cat", &labshd.run_with(&["-n"], &sh("cat; echo ended")));
    let output = pipe_through(&mut shell, b"for others\n");
    assert_eq!(text(&output.stdout), "ended\nfor others\n");
    // A stdin that never ends makes no difference.
    let mut client =
        Running::adopt(labshd.run_with(&["-n"], &sh("cat; echo ended")).stdin(Stdio::piped()));
    assert_eq!(client.line(), "ended");
    assert!(client.finish().status.success());
}

#[test]
fn sixty_four_mebibytes_are_echoed_unchanged() {
    let labshd = Labshd::start();
    let sent = noise(64 << 20);
    let output = pipe_through(&mut labshd.run(&["cat"]), &sent);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), sent.len());
    assert_eq!(Sha256::digest(&output.stdout), Sha256::digest(&sent));
}

#[test]
fn a_command_answers_while_its_stdin_is_open() {
    let labshd = Labshd::start();
    let mut client = Running::adopt(labshd.run(&["cat"]).stdin(Stdio::piped()));
    for word in ["one", "two"] {
        writeln!(client.child.stdin.as_ref().unwrap(), "{word}").unwrap();
        assert_eq!(client.line(), word);
    }
    assert!(client.finish().status.success());
}

#[test]
fn endless_stdin_ends_with_its_reader() {
    let labshd = Labshd::start();
    let output = in_shell("yes | \"$@\"", &labshd.run(&["head", "-1"])).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("y\n".into(), String::new()));
}

#[test]
fn unread_stdin_does_not_delay_the_command() {
    let labshd = Labshd::start();
    let input = noise(10 << 20);
    assert_eq!(pipe_through(&mut labshd.run(&sh("exit 7")), &input).status.code(), Some(7));
    let closed = pipe_through(&mut labshd.run(&sh("exec <&-; echo closed")), &input);
    assert_eq!(text(&closed.stdout), "closed\n");
    // Stdin that never arrives does not delay it either.
    let client = Running::adopt(labshd.run(&sh("exit 8")).stdin(Stdio::piped()));
    eventually("it ends with its stdin open", || labshd.log().count("command ended") == 3);
    assert_eq!(client.finish().status.code(), Some(8));
}

/// Runs a command that copies its stdin, and kills its client before the end.
fn abandon(labshd: &Labshd, command: &str) {
    let mut client = Running::adopt(labshd.run(&sh(command)).stdin(Stdio::piped()));
    client.child.stdin.as_ref().unwrap().write_all(b"the first line\nhalf of the second").unwrap();
    assert_eq!(client.line(), "the first line");
    client.signal(9);
    client.child.wait().unwrap();
    labshd.log().wait_for("command ended");
    assert!(!is_alive(labshd.command_pid(1)));
}

#[test]
fn partial_stdin_is_never_taken_for_complete() {
    let labshd = Labshd::with("termination_grace = '1m'");
    let (hung_up, whole) = (labshd.file("hung-up"), labshd.file("whole"));
    let command = format!("trap ': >{hung_up}; exit 1' HUP; cat && touch {whole}");
    abandon(&labshd, &command);
    assert!(fs::exists(hung_up).unwrap(), "the command got no SIGHUP: {}", labshd.log().text());
    assert!(!fs::exists(whole).unwrap(), "the command took half of its input for the whole");
}

#[test]
fn partial_stdin_is_never_taken_for_complete_by_commands_that_ignore_sighup() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    let whole = labshd.file("whole");
    let command = format!("trap '' HUP TERM; cat; touch {whole}");
    abandon(&labshd, &command);
    assert!(!fs::exists(whole).unwrap(), "the command took half of its input for the whole");
}

#[test]
fn unreadable_stdin_is_reported_and_not_taken_for_complete() {
    let mut labshd = Labshd::start();
    let whole = labshd.file("whole");
    let command = format!("cat && touch {whole}");
    let output = labshd.run(&sh(&command)).stdin(fs::File::open("/").unwrap()).output().unwrap();
    assert!(
        text(&output.stderr).contains("cannot read standard input"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(255));
    labshd.signal(15);
    assert_eq!(labshd.wait(), Some(0));
    assert!(!fs::exists(whole).unwrap());
}

#[test]
fn stdin_is_read_only_as_fast_as_the_command_reads() {
    let labshd = Labshd::start();
    let gate = labshd.file("gate");
    let status = program("mkfifo").arg(&gate).status().unwrap();
    assert!(status.success());
    // The command reads nothing before the gate is opened; labsh must stop reading long before 64
    // MiB.
    let command = format!("echo ready; read line < {gate}; wc -c");
    let mut client = Running::adopt(labshd.run(&sh(&command)).stdin(Stdio::piped()));
    assert_eq!(client.line(), "ready");
    let mut stdin = client.child.stdin.take().unwrap();
    let (written, pieces) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let piece = [0; 1 << 16];
        for _ in 0..1024 {
            stdin.write_all(&piece).unwrap();
            written.send(piece.len()).unwrap();
        }
    });
    let mut taken = 0;
    // labsh has stopped once it reads nothing for a while; if it never stopped, it would read all.
    while let Ok(count) = pieces.recv_timeout(std::time::Duration::from_millis(500)) {
        taken += count;
    }
    assert!(taken < 32 << 20, "{taken} bytes were read though the command reads none");
    fs::OpenOptions::new().write(true).open(&gate).unwrap().write_all(b"go\n").unwrap();
    writer.join().unwrap();
    let output = client.finish();
    let mut counted = String::new();
    output.stdout.as_slice().read_to_string(&mut counted).unwrap();
    assert_eq!(counted, "67108864\n");
}
