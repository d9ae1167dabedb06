//! Tests both sides, joined by a pair of pipes: what is copied, what is left unchanged, and what a
//! dishonest side cannot do.

#![allow(missing_docs, clippy::unwrap_used)]

mod changing_files;
mod holes;
mod metadata;
mod older_peers;
mod special_files;
mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use labsh_copy::stream::{Reader, Writer};
use labsh_copy::wire::{Digest, Entry, Kind, Message, Time, VERSION};
use labsh_copy::{
    CopyReport, Destination, Error, Name, Observer, Options, Placement, Progress, ReceiveOptions,
    RelativePath, SendOptions, Source, put, receive, serve,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{against_server, pull, push, push_with, set_time, tree};

const CHECKSUM: Options = Options {
    send: SendOptions { checksum: true },
    receive: ReceiveOptions { no_times: false, no_permissions: false },
};

/// Returns a directory with a file of every kind that can be copied.
fn assorted() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir_all(top.join("deep/er/and/deeper")).unwrap();
    fs::create_dir(top.join("hollow")).unwrap();
    let write = |name: &[u8], contents: &[u8], mode: u32| {
        let path = top.join(OsStr::from_bytes(name));
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        set_time(&path, 1_000_000_000 + contents.len() as u64);
    };
    write(b"empty", b"", 0o644);
    write(b"small", b"contents", 0o600);
    write(b"program", b"#!/bin/sh\n", 0o755);
    write(b"two\nlines", b"1", 0o640);
    write(b"no \xff text", b"2", 0o444);
    write(b"-rf", b"3", 0o604);
    write(
        b"deep/er/and/deeper/large",
        &(0..2_000_003_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>(),
        0o664,
    );
    write(&[b'n'; 255], b"a long name", 0o644);
    symlink("small", top.join("link")).unwrap();
    symlink("/no/such/../thing", top.join("deep/dangling")).unwrap();
    for directory in ["deep/er/and", "hollow", ""] {
        set_time(&top.join(directory), 900_000_000);
    }
    fs::set_permissions(top.join("hollow"), fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

#[test]
fn a_tree_is_copied_in_both_directions_and_is_unchanged_the_second_time() {
    let from = assorted();
    let top = from.path().join("top");
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        let counts = copy(&[&top], to.path()).succeeded();
        assert_eq!((counts.copied, counts.unchanged, counts.failed), (10, 0, 0));
        assert_eq!((counts.announced_bytes, counts.listed), (counts.processed_bytes, true));
        assert_eq!(tree(&top), tree(&to.path().join("top")));
        let before = fs::metadata(to.path().join("top/small")).unwrap().ino();
        let counts = copy(&[&top], to.path()).succeeded();
        assert_eq!((counts.copied, counts.unchanged), (0, 10));
        assert_eq!(counts.announced_bytes, counts.processed_bytes);
        assert_eq!(fs::metadata(to.path().join("top/small")).unwrap().ino(), before);
        // Under another name that does not exist.
        copy(&[&top], &to.path().join("renamed")).succeeded();
        assert_eq!(tree(&top), tree(&to.path().join("renamed")));
    }
}

#[test]
fn zeros_become_holes() {
    let from = tempfile::tempdir().unwrap();
    let (image, zeros) = (from.path().join("image"), from.path().join("zeros"));
    let mut contents = vec![0; 8 << 20];
    contents[3_000_000] = 1;
    fs::write(&image, contents).unwrap();
    fs::write(&zeros, vec![0; 100_000]).unwrap();
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        copy(&[&image, &zeros], to.path()).succeeded();
        for name in ["image", "zeros"] {
            assert!(tree(&from.path().join(name)) == tree(&to.path().join(name)), "{name}");
        }
        let blocks = fs::metadata(to.path().join("image")).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    }
}

#[test]
fn a_changed_file_is_replaced_and_a_digest_detects_more_than_size_and_time() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("file");
    fs::write(&file, "one").unwrap();
    set_time(&file, 1);
    push(&[&file], to.path()).succeeded();
    fs::write(&file, "two").unwrap();
    set_time(&file, 1);
    assert_eq!(push(&[&file], to.path()).succeeded().unchanged, 1);
    assert_eq!(fs::read(to.path().join("file")).unwrap(), b"one");
    assert_eq!(push_with(&[&file], to.path(), CHECKSUM).succeeded().copied, 1);
    assert_eq!(fs::read(to.path().join("file")).unwrap(), b"two");
    // Only time and mode have changed: they are set, and the contents are not replaced.
    set_time(&file, 7);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(to.path().join("file")).unwrap().ino();
    assert_eq!(push_with(&[&file], to.path(), CHECKSUM).succeeded().unchanged, 1);
    let after = fs::metadata(to.path().join("file")).unwrap();
    assert_eq!((after.ino(), after.mtime(), after.mode() & 0o7777), (before, 7, 0o640));
    set_time(&file, 8);
    assert_eq!(push(&[&file], to.path()).succeeded().copied, 1);
}

#[test]
fn thousands_of_small_files_are_copied() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    for directory in 0..40 {
        let inside = top.join(format!("d{directory}"));
        fs::create_dir_all(&inside).unwrap();
        for file in 0..100 {
            fs::write(inside.join(format!("f{file}")), format!("{directory} {file}")).unwrap();
        }
        set_time(&inside, directory);
    }
    assert_eq!(pull(&[&top], to.path()).succeeded().copied, 4000);
    assert_eq!(tree(&top), tree(&to.path().join("top")));
}

#[test]
fn a_file_that_cannot_be_copied_is_reported_and_the_others_are_copied() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir_all(top.join("sub/under")).unwrap();
    for file in ["a", "sub/b", "sub/under/c", "taken"] {
        fs::write(top.join(file), file).unwrap();
    }
    nix::unistd::mkfifo(&top.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // The destination has a file in the place of a directory, and a directory in that of a file.
    fs::create_dir_all(to.path().join("top/taken/full")).unwrap();
    fs::write(to.path().join("top/sub"), "in the way").unwrap();
    let missing = from.path().join("missing");
    for copy in [push, pull] {
        let transfer = copy(&[&missing, &top], to.path());
        assert!(transfer.outcome.is_ok() && matches!(transfer.served, Ok(false)), "{transfer:?}");
        let report = |end: &str| {
            let matches = |report: &&CopyReport| report.path.ends_with(end.as_bytes());
            let report = transfer.reports.iter().find(matches);
            report.unwrap_or_else(|| panic!("{end} in {transfer:?}")).clone()
        };
        assert!(report("missing").text.contains("No such file"));
        assert!(report("top/taken").text.contains("a directory is in its place"));
        assert!(report("top/sub").text.contains("something else is in the place"));
        assert!(report("top/pipe").text.contains("a named pipe") && !report("top/pipe").failure);
        // The entries of `sub` (b, under, c) are counted as failures, but not reported.
        assert_eq!(transfer.reports.len(), 4, "{transfer:?}");
        assert_eq!(fs::read(to.path().join("top/a")).unwrap(), b"a");
        // A pipe that the user has named is a failure.
        let transfer = copy(&[&top.join("pipe")], to.path());
        let failed = transfer.reports[0].failure && matches!(transfer.served, Ok(false));
        assert!(failed, "{transfer:?}");
    }
}

#[test]
fn links_in_the_destination_are_not_followed() {
    let (from, to, elsewhere) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    fs::write(top.join("sub/file"), "new").unwrap();
    fs::write(top.join("file"), "new").unwrap();
    fs::write(elsewhere.path().join("file"), "old").unwrap();
    fs::create_dir(to.path().join("top")).unwrap();
    symlink(elsewhere.path(), to.path().join("top/sub")).unwrap();
    symlink(elsewhere.path().join("file"), to.path().join("top/file")).unwrap();
    // One has the name of the partial file.
    symlink(elsewhere.path().join("file"), to.path().join("top/.file.labsh-part")).unwrap();
    let transfer = push(&[&top], to.path());
    assert!(
        transfer.reports.iter().any(|report| report.text.contains("links are not followed")),
        "{transfer:?}"
    );
    assert_eq!(fs::read(elsewhere.path().join("file")).unwrap(), b"old");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    let file = to.path().join("top/file");
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    assert_eq!(fs::read(file).unwrap(), b"new");
}

/// Runs a receiver, in a directory of its own, with a sender that sends these bytes and closes the
/// connection.
fn receive_bytes(sent: &[u8]) -> (Result<(), Error>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let destination = Destination::resolve(
        inside.as_os_str().as_bytes(),
        vec![Name::new(b"named").unwrap().into()],
    )
    .unwrap();
    let progress = Progress::default();
    let observer = Observer { progress: &progress, on_report: &|_| {} };
    let outcome = receive(
        &mut Reader::new(Cursor::new(sent.to_vec())),
        Writer::new(std::io::sink()),
        destination,
        ReceiveOptions::default(),
        observer,
    );
    (outcome, dir)
}

fn encoded(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        message.encode(&mut bytes);
    }
    bytes
}

const MODIFIED: Time = Time { seconds: 1, nanoseconds: 0 };

fn entry(id: u32, below: &[u8], kind: Kind) -> Message {
    Message::Entry(Entry {
        id,
        source: 0,
        below: RelativePath::new(below).unwrap(),
        // Only root looks into a directory that may not be searched.
        mode: if matches!(kind, Kind::Directory) { 0o755 } else { 0o644 },
        modified: MODIFIED,
        kind,
    })
}

fn file(id: u32, below: &[u8], size: u64) -> Message {
    entry(id, below, Kind::File { size, digest: None })
}

fn begin(id: u32, size: u64) -> Message {
    Message::Begin { id, offset: 0, size, modified: MODIFIED }
}

const EMPTY: Digest = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

#[test]
fn a_dishonest_sender_writes_nothing_outside_and_leaves_no_partial_file() {
    let violations: Vec<(&str, Vec<u8>)> = vec![
        (
            "more than announced",
            encoded(&[file(0, b"", 1), begin(0, 1), Message::Data(vec![0; 2])]),
        ),
        (
            "less than announced",
            encoded(&[
                file(0, b"", 2),
                begin(0, 2),
                Message::Data(vec![0]),
                Message::Finish { digest: EMPTY },
            ]),
        ),
        (
            "source that was not named",
            encoded(&[Message::Remark {
                source: 1,
                below: RelativePath::default(),
                failure: false,
                text: String::new(),
            }]),
        ),
        ("file that was not wanted", encoded(&[begin(0, 2)])),
        (
            "offset that was not requested",
            encoded(&[
                file(0, b"", 9),
                Message::Begin { id: 0, offset: 5, size: 9, modified: MODIFIED },
            ]),
        ),
        ("id out of order", encoded(&[file(1, b"", 0)])),
        ("id twice", encoded(&[file(0, b"", 0), file(0, b"", 0)])),
        ("entry after the end", encoded(&[file(0, b"", 0), Message::Listed, file(1, b"", 0)])),
        ("leave without a directory", encoded(&[Message::Leave { id: 0 }])),
        ("end inside a directory", encoded(&[entry(0, b"", Kind::Directory), Message::Listed])),
        ("message of a receiver", encoded(&[Message::Done { id: 0, unchanged: true }])),
    ];
    for (what, sent) in violations {
        let (outcome, dir) = receive_bytes(&sent);
        assert!(matches!(outcome, Err(Error::Protocol(_))), "{what}: {outcome:?}");
        assert!(tree(dir.path()).values().all(|found| found.3.is_empty()), "{what}");
        assert!(fs::read_dir(dir.path()).unwrap().count() == 1, "{what}");
    }
    // Paths that the encoder refuses replace a valid path of the same length.
    for path in [&b"../x"[..], b"/tmp/x", b"a/../../x", b"a//b", b"a\0b", b"."] {
        let mut bytes = encoded(&[file(0, &vec![b'a'; path.len()], 0)]);
        let at = bytes
            .windows(path.len())
            .position(|window| window.iter().all(|byte| *byte == b'a'))
            .unwrap();
        bytes[at..at + path.len()].copy_from_slice(path);
        assert!(matches!(receive_bytes(&bytes).0, Err(Error::Protocol(_))), "{path:?}");
    }
    // A link, and then entries through it.
    let (outcome, dir) = receive_bytes(&encoded(&[
        entry(0, b"", Kind::Directory),
        entry(1, b"out", Kind::Link { target: b"..".to_vec() }),
        entry(2, b"out", Kind::Directory),
        file(3, b"out/x", 0),
        file(4, b"out/x", 0),
        Message::Leave { id: 5 },
        entry(6, b"out/y", Kind::Directory),
        Message::Leave { id: 7 },
        Message::Leave { id: 8 },
        Message::Listed,
    ]));
    assert!(outcome.is_ok(), "{outcome:?}");
    let paths: Vec<PathBuf> = tree(dir.path()).into_keys().collect();
    assert_eq!(paths, ["", "inside", "inside/named", "inside/named/out"].map(PathBuf::from));
}

#[test]
fn a_file_with_a_wrong_digest_is_discarded() {
    let (outcome, dir) = receive_bytes(&encoded(&[
        file(0, b"", 1),
        Message::Listed,
        begin(0, 1),
        Message::Data(vec![7]),
        Message::Finish { digest: EMPTY },
    ]));
    assert!(outcome.is_ok());
    assert_eq!(fs::read_dir(dir.path().join("inside")).unwrap().count(), 0);
}

#[test]
fn a_large_file_is_resumed_if_its_partial_file_has_not_changed() {
    let contents: Vec<u8> =
        (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source_file = from.path().join("file");
    fs::write(&source_file, &contents).unwrap();
    for (changed, expected) in [(false, 5_000_000 - 2_000_000), (true, 5_000_000)] {
        let mut sent = encoded(&[Message::Hello { version: VERSION }]);
        let request = Message::Put {
            destination: to.path().as_os_str().as_bytes().to_vec(),
            names: vec![Name::new(b"file").unwrap().into()],
            options: ReceiveOptions::default(),
        };
        request.encode(&mut sent);
        file(0, b"", 5_000_000).encode(&mut sent);
        begin(0, 5_000_000).encode(&mut sent);
        for piece in contents[..2_000_000].chunks(100_000) {
            Message::Data(piece.to_vec()).encode(&mut sent);
        }
        assert!(matches!(serve(Cursor::new(sent), std::io::sink()), Err(Error::Disconnected(_))));
        let partial = to.path().join(".file.labsh-part");
        assert_eq!(fs::metadata(&partial).unwrap().len(), 2_000_000);
        assert!(!to.path().join("file").exists());
        if changed {
            let mut partial = File::options().write(true).open(&partial).unwrap();
            partial.write_all(b"something else").unwrap();
        }
        let sent = AtomicU64::new(0);
        let source = Source { path: source_file.clone(), display_name: b"file".to_vec() };
        let transfer = against_server(|from, into, observer| {
            let names = vec![Name::new(b"file").unwrap().into()];
            let into = Counting { to: into, count: &sent };
            let to = to.path().as_os_str().as_bytes();
            put(from, into, to, names, &[source], Options::default(), observer)
        });
        transfer.succeeded();
        let sent = sent.into_inner();
        assert!((expected..expected + 20_000).contains(&sent), "{sent} bytes were sent");
        assert_eq!(fs::read(to.path().join("file")).unwrap(), contents);
        assert!(!partial.exists());
        fs::remove_file(to.path().join("file")).unwrap();
    }
}

/// Counts the bytes that are written.
struct Counting<'a> {
    to: UnixStream,
    count: &'a AtomicU64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.count.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[test]
fn a_file_that_another_copy_is_writing_is_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("file");
    fs::write(&file, vec![1; 300_000]).unwrap();
    let part = to.path().join(".file.labsh-part");
    let held = File::create(&part).unwrap();
    held.lock().unwrap();
    let transfer = push(&[&file], to.path());
    assert!(transfer.reports[0].text.contains("another copy"), "{transfer:?}");
    assert!(part.exists() && !to.path().join("file").exists());
    drop(held);
    push(&[&file], to.path()).succeeded();
    assert!(!part.exists());
}

#[test]
fn a_missing_parent_directory_is_reported_with_its_path() {
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("file");
    fs::write(&file, "x").unwrap();
    let transfer = push(&[&file], &from.path().join("no/such"));
    assert!(
        matches!(&transfer.outcome, Err(Error::Refused(text)) if text.contains("no/such")),
        "{transfer:?}"
    );
    // A path with a slash at the end is created as a directory.
    push(&[&file], &from.path().join("made/")).succeeded();
    assert_eq!(fs::read(from.path().join("made/file")).unwrap(), b"x");
}

#[test]
fn more_names_than_fit_into_a_request_are_refused_before_it_is_sent() {
    let names = (0..20_000)
        .map(|number| Name::new(format!("{number:0>60}").as_bytes()).unwrap().into())
        .collect();
    let progress = Progress::default();
    let observer = Observer { progress: &progress, on_report: &|_| {} };
    let mut sent = Vec::new();
    let outcome = labsh_copy::put(
        Cursor::new(Vec::new()),
        &mut sent,
        b"x",
        names,
        &[],
        Options::default(),
        observer,
    );
    assert!(matches!(&outcome, Err(Error::Refused(text)) if text.contains("1 MiB")), "{outcome:?}");
    assert!(sent.is_empty(), "{} bytes were sent", sent.len());
}

fn messages() -> impl Strategy<Value = Message> {
    let path = prop_oneof![Just(&b""[..]), Just(&b"a"[..]), Just(&b"a/b"[..]), Just(&b"b"[..])];
    let id = 0..4_u32;
    let kind = prop_oneof![
        (0..3_u64).prop_map(|size| Kind::File { size, digest: None }),
        Just(Kind::Directory),
        prop_oneof![Just(&b".."[..]), Just(&b"/"[..]), Just(&b"a"[..])]
            .prop_map(|target| Kind::Link { target: target.to_vec() }),
    ];
    prop_oneof![
        3 => (id.clone(), path, kind).prop_map(|(id, below, kind)| entry(id, below, kind)),
        1 => id.clone().prop_map(|id| Message::Leave { id }),
        2 => (id.clone(), 0..3_u64).prop_map(|(id, size)| begin(id, size)),
        1 => (1..3_usize).prop_map(|count| Message::Data(vec![0; count])),
        1 => Just(Message::Finish { digest: EMPTY }),
        1 => id.clone().prop_map(|id| Message::Abort { id, text: String::new() }),
        1 => Just(Message::Listed),
        1 => (id.clone(), 0..3_u64).prop_map(|(id, offset)| Message::Want { id, offset,
            digest: EMPTY }),
        1 => (id.clone(), any::<bool>())
            .prop_map(|(id, unchanged)| Message::Done { id, unchanged }),
        2 => Just(Message::announcement()),
        1 => (1..4_u64).prop_map(|length| Message::Hole { length }),
        1 => any::<u32>().prop_map(|bits| Message::Extensions { bits }),
        1 => id.prop_map(|id| Message::Note { id, text: "note".into() }),
        1 => (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(contents, no_times, no_permissions)| Message::Put {
                destination: b"d".to_vec(),
                names: vec![if contents {
                    Placement::Contents
                } else {
                    Name::new(b"n").unwrap().into()
                }],
                options: ReceiveOptions { no_times, no_permissions },
            }
        ),
    ]
}

proptest! {
    #[test]
    fn every_message_is_the_same_after_encoding_and_decoding(message in messages()) {
        let bytes = encoded(std::slice::from_ref(&message));
        prop_assert_eq!(Reader::new(Cursor::new(bytes)).read().unwrap(), Some(message));
    }

    #[test]
    fn no_sequence_of_messages_writes_outside_the_destination(
        sent in proptest::collection::vec(messages(), 0..12)
    ) {
        let (_, dir) = receive_bytes(&encoded(&sent));
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let names = fs::read_dir(dir.path().join("inside")).unwrap()
            .map(|entry| entry.unwrap().file_name());
        for name in names {
            prop_assert_eq!(name, "named");
        }
    }

    #[test]
    fn corrupt_bytes_write_nothing_outside_the_destination(
        sent in proptest::collection::vec(messages(), 1..8),
        at in any::<prop::sample::Index>(),
        bits in 1..=255_u8,
    ) {
        let mut bytes = encoded(&sent);
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let (_, dir) = receive_bytes(&bytes);
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // The same bytes for a sender.
        let source = Source { path: dir.path().join("inside"), display_name: Vec::new() };
        let progress = Progress::default();
        let observer = Observer { progress: &progress, on_report: &|_| {} };
        let _ = labsh_copy::send(
            Reader::new(Cursor::new(bytes)),
            Writer::new(std::io::sink()),
            &[source],
            SendOptions::default(),
            observer,
        );
    }
}

/// The bytes that one side sends in the example of docs/COPY.md.
fn example(side: char) -> Vec<u8> {
    let document = include_str!("../../../../docs/COPY.md");
    let example = document.split("```hex\n").nth(1).unwrap().split("```").next().unwrap();
    let (mut bytes, mut ours) = (Vec::new(), false);
    for line in example.lines() {
        if let Some(marked) = line.chars().next().filter(|c| "<>".contains(*c)) {
            ours = marked == side;
        }
        if ours {
            // Two spaces separate the bytes from the explanation.
            let digits = line[1..].trim_start().split("  ").next().unwrap();
            let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b' ').collect();
            bytes.extend(
                digits.chunks(2).map(|pair| {
                    u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                }),
            );
        }
    }
    bytes
}

#[test]
fn the_example_in_the_document_is_what_both_sides_send() {
    let (ours, theirs) = (example('>'), example('<'));
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("hi");
    fs::write(&file, "hello\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(&file).unwrap().set_modified(time).unwrap();
    // The client against the answers of the example, each sent when it is due: hello, a want of 49
    // bytes, and a done.
    let (client, mut server_end) = UnixStream::pair().unwrap();
    let (expected, answers) = (ours.clone(), theirs.clone());
    let server = thread::spawn(move || {
        let (hello, rest) = answers.split_at(answers.len() - 10 - 49);
        let (want, done) = rest.split_at(49);
        let listed = 5 + expected.windows(5).position(|window| window == [0, 0, 0, 0, 23]).unwrap();
        let mut received = vec![0; expected.len()];
        server_end.write_all(hello).unwrap();
        server_end.read_exact(&mut received[..listed]).unwrap();
        server_end.write_all(want).unwrap();
        server_end.read_exact(&mut received[listed..]).unwrap();
        server_end.write_all(done).unwrap();
        assert_eq!(received, expected);
    });
    let source = Source { path: file, display_name: Vec::new() };
    let (progress, names) = (Progress::default(), vec![Name::new(b"hi").unwrap().into()]);
    let observer = Observer { progress: &progress, on_report: &|_| {} };
    put(client.try_clone().unwrap(), client, b"", names, &[source], Options::default(), observer)
        .unwrap();
    server.join().unwrap();
    // The receiver with the client's messages of the example, in a directory of its own.
    let inside = to.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let mut input = Reader::new(Cursor::new(ours));
    assert_eq!(input.read().unwrap(), Some(Message::Hello { version: VERSION }));
    let Some(Message::Put { names, options, .. }) = input.read().unwrap() else { panic!("no put") };
    let destination = Destination::resolve(inside.as_os_str().as_bytes(), names).unwrap();
    let mut answers = encoded(&[Message::Hello { version: VERSION }]);
    let progress = Progress::default();
    receive(
        &mut input,
        Writer::new(&mut answers),
        destination,
        options,
        Observer { progress: &progress, on_report: &|_| {} },
    )
    .unwrap();
    assert_eq!(answers, theirs);
    assert_eq!(fs::read(inside.join("hi")).unwrap(), b"hello\n");
}
