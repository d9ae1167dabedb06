//! A hostile server: `labsh` never hangs, never reports success wrongly, and never passes control
//! characters on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};

use labsh_proto::frame::Kind;
use labsh_proto::limits;
use labsh_proto::message::{
    Ended, Eof, Exit, Goodbye, Refuse, RefuseCode, Started, Status, Stop, Stream, Usage,
};

use crate::peer::fake_server::{Victim, start, welcome, welcome_from};
use crate::peer::{Peer, bytes, credit, header, message};
use crate::support::{Running, bytes_read, eventually, in_shell, memory, program, settled, text};

fn exit(stdout: u64, stderr: u64) -> Vec<u8> {
    let status = Status::Exited(0);
    message(&Exit { status, timed_out: false, stdout, stderr, usage: Usage::default() }, 1)
}

fn stdout(data: &[u8]) -> Vec<u8> {
    bytes(Kind::Stdout, 1, data)
}

fn eof(stream: Stream) -> Vec<u8> {
    message(&Eof { stream }, 1)
}

/// Returns stderr, which must be one line without control characters, after this exit status.
fn error_line(output: &Output, status: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(!stderr.trim_end().chars().any(char::is_control), "{stderr:?}");
    stderr
}

/// Ends the connection like a server that has sent everything.
fn hang_up(mut peer: Peer) {
    peer.stream.shutdown(Shutdown::Write).unwrap();
    // Wait for the client to close as well: closing with unread data would reset the connection.
    let _ = peer.stream.read_to_end(&mut Vec::new());
}

/// Runs `labsh` against a server that sends this once the command runs, and then waits for the
/// client to leave.
fn run_against(victim: &Victim, sent: Vec<u8>) -> Output {
    victim.meet(move |mut peer| {
        start(&mut peer);
        peer.send(&sent);
        // The client may leave before it has read everything.
        let _ = peer.stream.read_to_end(&mut Vec::new());
    })
}

#[test]
fn the_client_leaves_a_server_that_breaks_the_protocol() {
    let victim = Victim::new();
    let stdout_kind = Kind::Stdout as u8;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (header(u32::MAX, stdout_kind, 0, 0, 1), "a body of 4294967295 bytes"),
        (header(65_537, stdout_kind, 0, 0, 1), "a body of 65537 bytes"),
        (header(1, 0x7f, 0, 0, 1), "unknown message kind"),
        (header(1, stdout_kind, 0x80, 0, 1), "undefined flags"),
        (header(1, stdout_kind, 0, 7, 1), "reserved bytes"),
        (stdout(b""), "`stdout` without data"),
        (stdout(&vec![b'x'; 60_000]).repeat(20), "past the limit"),
        (bytes(Kind::Stdout, 9, b"x"), "never opened"),
        (bytes(Kind::Open, 2, b"x"), "only a client sends it"),
        (bytes(Kind::Stdin, 1, b"x"), "only a client sends it"),
        (bytes(Kind::Close, 1, b""), "only a client sends it"),
        (bytes(Kind::Challenge, 0, &[0; 32]), "the handshake is over"),
        (bytes(Kind::Welcome, 0, &[0; 60]), "the handshake is over"),
        (message(&Started { pid: 2 }, 1), "the command has already started"),
        (
            message(&Refuse::new(RefuseCode::NOT_FOUND, "no", ""), 1),
            "the command has already started",
        ),
        ([eof(Stream::Stdout), stdout(b"x")].concat(), "after the end of stdout"),
        (eof(Stream::Stdin), "only the other end sends it"),
        (credit(1, Stream::Stdin, 1 << 20, 1 << 21), "past what was sent"),
        (credit(1, Stream::Stdin, 0, 0), "the limit decreases"),
        (credit(1, Stream::Stdin, 0, u64::MAX), "more than 1 GiB"),
        (credit(1, Stream::Stdout, 0, 1 << 30), "only the other end sends it"),
        (bytes(Kind::Exit, 1, &[0; 3]), "malformed message `exit`"),
        (bytes(Kind::Exit, 1, &[0xff; 64]), "malformed message `exit`"),
        (bytes(Kind::Ping, 0, &[0; 9]), "malformed message `ping`"),
        (bytes(Kind::Refuse, 0, &[0xff; 100]), "malformed message `refuse`"),
        (vec![0, 0, 0, 9, stdout_kind], "the connection ended 5 bytes into a message"),
    ];
    for (sent, rule) in cases {
        let cut = rule.contains("ended");
        let output = victim.meet(move |mut peer| {
            start(&mut peer);
            peer.send(&sent);
            if cut {
                hang_up(peer);
            } else {
                // The client leaves, perhaps before it has read everything.
                let _ = peer.stream.read_to_end(&mut Vec::new());
            }
        });
        let line = error_line(&output, 255);
        assert!(line.contains(rule), "{rule} in {line}");
        assert!(line.contains("the connection was lost"), "{line}");
    }
}

#[test]
fn incomplete_output_is_never_success() {
    let victim = Victim::new();
    let ended = message(&Ended { status: Status::Exited(0) }, 1);
    let whole = run_against(&victim, [stdout(b"hello"), ended.clone(), exit(5, 0)].concat());
    assert_eq!((whole.status.code(), text(&whole.stdout).as_str()), (Some(0), "hello"));
    for (sent, numbers) in [
        ([stdout(b"hello"), exit(6, 0)].concat(), "stdout is incomplete: 5 of 6 bytes"),
        ([stdout(b"hello"), exit(4, 0)].concat(), "stdout is incomplete: 5 of 4 bytes"),
        (
            [stdout(b"hello"), eof(Stream::Stdout), exit(5, 1)].concat(),
            "stderr is incomplete: 0 of 1 bytes",
        ),
        (exit(u64::MAX, 0), "stdout is incomplete: 0 of 18446744073709551615 bytes"),
    ] {
        let line = error_line(&run_against(&victim, sent), 255);
        assert!(line.contains(numbers) && line.contains("do not trust this output"), "{line}");
    }
    // Data after the exit is not output.
    let behind = run_against(&victim, [stdout(b"hello"), exit(5, 0), stdout(b" again")].concat());
    assert_eq!((behind.status.code(), text(&behind.stdout).as_str()), (Some(0), "hello"));
}

#[test]
fn a_connection_that_ends_early_is_never_success() {
    let victim = Victim::new();
    let ended = message(&Ended { status: Status::Exited(0) }, 1);
    let goodbye = message(&Goodbye::new("for \x1b[31mreasons"), 0);
    let refuse = message(&Refuse::new(RefuseCode::PROTOCOL, "no \x1b[2J", "do\n\u{9b}this"), 0);
    for (sent, said_so) in [
        (vec![], "the server closed it"),
        (stdout(b"hello"), "the server closed it"),
        ([eof(Stream::Stdout), eof(Stream::Stderr), ended].concat(), "the server closed it"),
        (goodbye, "the server ended it: for \\u{1b}[31mreasons"),
        (refuse, "no \\u{1b}[2J; do\\n\\u{9b}this"),
    ] {
        let output = victim.meet(move |mut peer| {
            start(&mut peer);
            peer.send(&sent);
            hang_up(peer);
        });
        let line = error_line(&output, 255);
        assert!(line.contains(said_so), "{said_so} in {line}");
    }
    // With a reset instead of an orderly end.
    let output = victim.meet(|mut peer| {
        start(&mut peer);
        socket2::SockRef::from(&peer.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    error_line(&output, 255);
}

#[test]
fn output_before_started_is_a_protocol_error() {
    let victim = Victim::new();
    for early in [
        stdout(b"x"),
        exit(0, 0),
        eof(Stream::Stdout),
        message(&Ended { status: Status::Exited(0) }, 1),
    ] {
        let output = victim.meet(move |mut peer| {
            peer.until(Kind::Open, 1);
            peer.send(&early);
            let _ = peer.stream.read_to_end(&mut Vec::new());
        });
        let line = error_line(&output, 255);
        assert!(line.contains("started") && output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn a_host_that_starts_nothing_can_be_interrupted() {
    let victim = Victim::new();
    for signal in [2, 15] {
        let (asked, was_asked) = std::sync::mpsc::channel();
        let (address, server) = victim.serve(move |mut peer, key| {
            welcome(&mut peer, &key, 8);
            peer.until(Kind::Open, 1);
            asked.send(()).unwrap();
            peer.stream.read_to_end(&mut Vec::new()).unwrap();
        });
        let labsh = Running::start(victim.run(address, &["cat"]).stdin(Stdio::null()));
        was_asked.recv().unwrap();
        labsh.signal(signal);
        let status = labsh.finish().status;
        // Just after its `open`, labsh may not handle the signal yet.
        assert!(status.code() == Some(128 + signal) || status.signal() == Some(signal), "{status}");
        server.join().unwrap();
    }
}

#[test]
fn control_characters_in_a_refusal_are_escaped() {
    const ESCAPES: &str = "\x1b[2J\x1b]0;x\x07\u{9b}31m\r\u{202e}\u{7f}";
    let victim = Victim::new();
    for (json, code, status) in [
        (false, RefuseCode::NOT_FOUND, 127),
        (true, RefuseCode::DIRECTORY, 125),
        (true, RefuseCode(999), 125),
    ] {
        let (address, server) = victim.serve(move |mut peer, key| {
            welcome(&mut peer, &key, 8);
            peer.until(Kind::Open, 1);
            peer.send(&message(&Refuse::new(code, ESCAPES, ESCAPES), 1));
            let _ = peer.stream.read_to_end(&mut Vec::new());
        });
        let mut labsh = victim.run(address, &["cat"]);
        if json {
            labsh = crate::support::labsh_in(victim.dir.path());
            labsh.args(["run", "--plain", "--json", &address.to_string(), "cat"]);
        }
        let output = labsh.stdin(Stdio::null()).output().unwrap();
        server.join().unwrap();
        assert_eq!(output.status.code(), Some(status));
        let stderr = text(&output.stderr);
        assert_eq!((stderr.lines().count(), stderr.starts_with('{')), (1, json), "{stderr:?}");
        let is_control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!stderr.chars().any(is_control), "{stderr:?}");
    }
}

#[test]
fn an_invalid_welcome_is_refused() {
    let victim = Victim::new();
    let output = victim.meet_bare(|mut peer, key| {
        welcome(&mut peer, &key, 0);
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    let line = error_line(&output, 255);
    assert!(line.contains("the number of channels is 0"), "{line}");
    for version in ["\u{1b}[2Jlabshd 9", "labshd \u{202e}1.0", "", &"9".repeat(65)] {
        let version = version.to_owned();
        let output = victim.meet_bare(move |mut peer, key| {
            welcome_from(&mut peer, &key, 8, Some(&version));
            let _ = peer.stream.read_to_end(&mut Vec::new());
        });
        let line = error_line(&output, 255);
        assert!(line.contains("the version is not 1 to 64 printable ASCII characters"), "{line}");
    }
}

#[test]
fn an_impossible_status_is_still_reported() {
    let victim = Victim::new();
    let status = Status::Signaled { signal: 255, core_dumped: true };
    let exit = Exit { status, timed_out: false, stdout: 0, stderr: 0, usage: Usage::default() };
    let line = error_line(&run_against(&victim, message(&exit, 1)), 255);
    assert!(line.contains("signal 255 (unknown, core dumped)"), "{line}");
}

/// Runs `labsh run … cat` with an endless stdin against a server that runs this script; returns its
/// exit code, and its memory in bytes once it reads no more input.
fn feed_endlessly(script: impl FnOnce(Peer) + Send + 'static) -> (i32, u64) {
    let victim = Victim::new();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (address, server) = victim.serve(move |mut peer, key| {
        welcome(&mut peer, &key, 8);
        start(&mut peer);
        peer.send(&credit(1, Stream::Stdin, 0, limits::FIRST_STDIN_LIMIT));
        let hold = peer.stream.try_clone().unwrap();
        script(peer);
        // The connection closes once the test has measured.
        let _ = wait.recv();
        drop(hold);
    });
    let mut yes = program("yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut labsh = victim.run(address, &["cat"]);
    let mut labsh = labsh
        .stdin(yes.stdout.take().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let labsh_pid = labsh.id() as i32;
    eventually("the first limit was used", || bytes_read(labsh_pid) > limits::FIRST_STDIN_LIMIT);
    settled("the input", || bytes_read(labsh_pid));
    let held = memory(labsh_pid);
    release.send(()).unwrap();
    server.join().unwrap();
    let code = labsh.wait().unwrap().code().unwrap();
    yes.kill().unwrap();
    yes.wait().unwrap();
    (code, held)
}

#[test]
fn a_server_that_takes_no_stdin_does_not_fill_the_clients_memory() {
    // No credit beyond the first limit; or unlimited credit while the server does not read.
    let starving = feed_endlessly(|_| {});
    let deaf = feed_endlessly(|mut peer| peer.send(&credit(1, Stream::Stdin, 0, 1 << 30)));
    for (code, held) in [starving, deaf] {
        println!("labsh holds {} KiB", held >> 10);
        assert_eq!(code, 255);
        assert!(held < 48 << 20, "{held}");
    }
}

#[test]
fn a_server_that_closes_stdin_is_noticed_while_it_is_sent() {
    let victim = Victim::new();
    let (address, server) = victim.serve(|mut peer, key| {
        welcome(&mut peer, &key, 8);
        start(&mut peer);
        peer.until(Kind::Stdin, 1);
        peer.send(
            &[message(&Stop { stream: Stream::Stdin }, 1), stdout(b"enough"), exit(6, 0)].concat(),
        );
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    let mut labsh = victim.run(address, &["cat"]);
    let mut labsh = labsh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = labsh.stdin.take().unwrap();
    // Until labsh closes its stdin.
    while stdin.write_all(&[0; 4096]).is_ok() {}
    let output = labsh.wait_with_output().unwrap();
    server.join().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "enough"));
}

#[test]
fn both_outputs_are_written_in_the_order_in_which_they_arrive() {
    let victim = Victim::new();
    let stderr = |data: &[u8]| bytes(Kind::Stderr, 1, data);
    let lines: Vec<(String, String)> =
        (0..300).map(|number| (format!("error {number}\n"), format!("line {number}\n"))).collect();
    let expected: String = lines.iter().flat_map(|(error, line)| [&**error, line]).collect();
    let totals = |of: fn(&(String, String)) -> usize| lines.iter().map(of).sum::<usize>() as u64;
    let (errors, outputs) = (totals(|pair| pair.0.len()), totals(|pair| pair.1.len()));
    let sent: Vec<u8> = lines
        .iter()
        .flat_map(|(error, line)| [stderr(error.as_bytes()), stdout(line.as_bytes())].concat())
        .chain(exit(outputs, errors))
        .collect();
    let (address, server) = victim.serve(move |mut peer, key| {
        welcome(&mut peer, &key, 8);
        start(&mut peer);
        peer.send(&sent);
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    // A pipe for each, as most tools use, would not show the order.
    let mut labsh = in_shell("exec \"$@\" 2>&1", &victim.run(address, &["cat"]));
    let output = labsh.stdin(Stdio::null()).output().unwrap();
    server.join().unwrap();
    assert_eq!(text(&output.stdout), expected);

    // A reader that takes nothing from one of them does not hold the other.
    let flood = vec![b'x'; 60_000];
    let sent = [stderr(&flood), stderr(&flood), stderr(&flood), stdout(b"last\n")].concat();
    let (address, server) = victim.serve(move |mut peer, key| {
        welcome(&mut peer, &key, 8);
        start(&mut peer);
        peer.send(&sent);
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    let mut labsh = Running::start(&mut victim.run(address, &["cat"]));
    assert_eq!(labsh.line(), "last");
    drop(labsh);
    server.join().unwrap();
}
