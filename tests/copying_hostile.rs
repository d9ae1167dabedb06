//! A server that lies about files: nothing is written outside of the destination, and a lie is
//! never a copy.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Output, Stdio};

use labsh_copy::wire::{Entry, Kind as What, Message, Time, VERSION};
use labsh_copy::{Name, ReceiveOptions, RelativePath};
use labsh_proto::frame::Kind;
use labsh_proto::message::{Eof, Exit, Refuse, RefuseCode, Status, Stream, Usage};

use crate::peer::fake_server::{Victim, start, welcome};
use crate::peer::{bytes, message};
use crate::support::{labsh_in, text};

const THEN: Time = Time { seconds: 1, nanoseconds: 0 };

fn entry(id: u32, source: u32, below: &str, kind: What) -> Message {
    let below = RelativePath::new(below.as_bytes()).unwrap();
    Message::Entry(Entry { id, source, below, mode: 0o644, modified: THEN, kind })
}

fn file(id: u32, below: &str, size: u64) -> Message {
    entry(id, 0, below, What::File { size, digest: None })
}

fn begin(id: u32, size: u64) -> Message {
    Message::Begin { id, offset: 0, size, modified: THEN }
}

fn encoded(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut bytes));
    bytes
}

/// How the server's command ends.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    /// It exits with 0 once the client has no more to say.
    Well,
    /// Never: it waits for the client to leave.
    Never,
}

/// `labsh cp HOST:named destination` against a server that answers with this.
fn run_against(victim: &Victim, sent: Vec<u8>, ends: Ends) -> Output {
    let sent = [encoded(&[Message::Hello { version: VERSION }]), sent].concat();
    let (address, server) = victim.serve(move |mut peer, key| {
        welcome(&mut peer, &key, 8);
        start(&mut peer);
        peer.until(Kind::Stdin, 1);
        sent.chunks(60_000).for_each(|piece| peer.send(&bytes(Kind::Stdout, 1, piece)));
        if ends == Ends::Well {
            peer.until(Kind::Eof, 1);
            let (status, stdout) = (Status::Exited(0), sent.len() as u64);
            let exit =
                Exit { status, timed_out: false, stdout, stderr: 0, usage: Usage::default() };
            let ends =
                [Stream::Stdout, Stream::Stderr].map(|stream| message(&Eof { stream }, 1)).concat();
            peer.send(&[ends, message(&exit, 1)].concat());
        }
        // The client may leave without having read everything.
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    let _ = fs::remove_dir_all(victim.dir.path().join("destination"));
    fs::create_dir(victim.dir.path().join("destination")).unwrap();
    let mut labsh = labsh_in(victim.dir.path());
    labsh.args(["cp", "--plain", "--port", &address.port().to_string()]);
    labsh.args([&format!("{}:named", address.ip()), "destination"]).current_dir(victim.dir.path());
    let output = labsh.stdin(Stdio::null()).output().unwrap();
    server.join().unwrap();
    output
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_copy_that_breaks_the_protocol_is_aborted_and_leaves_nothing() {
    let victim = Victim::new();
    let path = |path: &[u8]| {
        // As long as the path, and then the path itself in its place: no honest encoder writes it.
        let mut bytes = encoded(&[file(0, &"a".repeat(path.len()), 0), Message::Listed]);
        let at = bytes
            .windows(path.len())
            .position(|window| window.iter().all(|byte| *byte == b'a'))
            .unwrap();
        bytes[at..at + path.len()].copy_from_slice(path);
        bytes
    };
    let mode = |mode: u16| {
        let mut bytes = encoded(&[file(0, "", 0), Message::Listed]);
        let at = bytes.windows(2).position(|window| window == 0o644_u16.to_be_bytes()).unwrap();
        bytes[at..at + 2].copy_from_slice(&mode.to_be_bytes());
        bytes
    };
    for (message, reason) in [
        (path(b"../../x"), "leads out"),
        (path(b"/tmp/labsh-never-written"), "leads out"),
        (path(b"a/../../x"), "leads out"),
        (mode(0o4755), "more than permissions"),
        (encoded(&[entry(0, 1, "", What::File { size: 0, digest: None })]), "not named"),
        (encoded(&[file(0, "", 1), begin(0, 1), Message::Data(vec![0; 2])]), "more data arrives"),
        (
            encoded(&[
                file(0, "", 2),
                begin(0, 2),
                Message::Data(vec![0]),
                Message::Finish { digest: [0; 32] },
            ]),
            "less data arrives",
        ),
        (
            encoded(&[Message::Put {
                destination: b"/".to_vec(),
                names: vec![Name::new(b"x").unwrap().into()],
                options: ReceiveOptions::default(),
            }]),
            "violated the copy protocol",
        ),
        (vec![0xff; 100], "too long"),
        (
            encoded(&(0..1100).map(|id| file(id, "", 1)).collect::<Vec<_>>()),
            "too many entries at once",
        ),
    ] {
        let output = run_against(&victim, message, Ends::Never);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{reason}: {errors}");
        assert!(errors.contains(reason) && errors.lines().count() == 1, "{reason}: {errors}");
        assert_eq!(names(&victim.dir.path().join("destination")), [""; 0], "{reason}");
        assert_eq!(names(victim.dir.path()), ["config", "destination"], "{reason}");
    }
}

#[test]
fn a_link_of_the_same_copy_is_not_followed() {
    let victim = Victim::new();
    let output = run_against(
        &victim,
        encoded(&[
            entry(0, 0, "", What::Directory),
            entry(1, 0, "out", What::Link { target: b"../..".to_vec() }),
            entry(2, 0, "out", What::Directory),
            file(3, "out/x", 0),
            Message::Leave { id: 4 },
            file(5, "out/y", 0),
            Message::Leave { id: 6 },
            Message::Listed,
        ]),
        Ends::Well,
    );
    let errors = text(&output.stderr);
    assert!(
        errors.contains("named/out: a symbolic link is") && errors.contains("named/out/y: "),
        "{errors}"
    );
    assert_eq!(names(victim.dir.path()), ["config", "destination"]);
    assert_eq!(names(&victim.dir.path().join("destination/named")), ["out"]);
}

#[test]
fn a_wrong_digest_fails_and_control_characters_are_escaped() {
    let victim = Victim::new();
    let nasty = "\x1b[2J\r\n\u{202e}";
    let sent = [
        file(0, "", 1),
        begin(0, 1),
        Message::Data(vec![1]),
        Message::Finish { digest: [0; 32] },
        Message::Remark {
            source: 0,
            below: RelativePath::new(nasty.as_bytes()).unwrap(),
            failure: true,
            text: nasty.into(),
        },
        Message::Listed,
    ];
    let output = run_against(&victim, encoded(&sent), Ends::Well);
    let errors = text(&output.stderr);
    assert!(errors.contains("named: what arrived is not what was sent"), "{errors}");
    assert!(
        !errors.contains(['\x1b', '\r', '\u{202e}']) && errors.contains("\\u{1b}[2J"),
        "{errors:?}"
    );
    assert_eq!(names(&victim.dir.path().join("destination")), [""; 0]);
    // Whatever the far side says of itself.
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_server_without_labsh_copy_is_reported_as_old() {
    let victim = Victim::new();
    let (address, server) = victim.serve(|mut peer, key| {
        welcome(&mut peer, &key, 8);
        peer.until(Kind::Open, 1);
        peer.send(&message(
            &Refuse::new(RefuseCode::SUBSYSTEM, "no such thing", "ask the administrator"),
            1,
        ));
        // The client may leave without having read everything.
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    let mut labsh = labsh_in(victim.dir.path());
    labsh.args(["cp", "--plain", "--port", &address.port().to_string()]);
    let output =
        labsh.args([&format!("{}:x", address.ip()), "."]).stdin(Stdio::null()).output().unwrap();
    server.join().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{errors}");
    assert!(errors.contains("older than labsh cp") && errors.lines().count() == 1, "{errors}");
}

#[test]
fn only_requested_names_are_created() {
    let victim = Victim::new();
    let sent = [
        file(0, "", 2),
        begin(0, 2),
        Message::Data(b"hi".to_vec()),
        Message::Finish { digest: DIGEST_OF_HI },
        Message::Listed,
    ];
    let output = run_against(&victim, encoded(&sent), Ends::Well);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let there = victim.dir.path().join("destination");
    assert_eq!(names(&there), ["named"]);
    let about = fs::metadata(there.join("named")).unwrap();
    assert_eq!((about.mode() & 0o7777, about.mtime(), about.len()), (0o644, 1, 2));
}

/// SHA-256 of `hi`.
const DIGEST_OF_HI: [u8; 32] = [
    0x8f, 0x43, 0x43, 0x46, 0x64, 0x8f, 0x6b, 0x96, 0xdf, 0x89, 0xdd, 0xa9, 0x01, 0xc5, 0x17, 0x6b,
    0x10, 0xa6, 0xd8, 0x39, 0x61, 0xdd, 0x3c, 0x1a, 0xc8, 0x8b, 0x59, 0xb2, 0xdc, 0x32, 0x7a, 0xa4,
];
