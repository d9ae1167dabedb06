//! Both sides joined by a pair of pipes: what arrives, what is left alone, and what a lying side
//! cannot do.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use labsh_copy::stream::{Reader, Writer};
use labsh_copy::wire::{Digest, Entry, Kind, Message, Time, VERSION};
use labsh_copy::{
    Below, Counts, Destination, Error, Name, Progress, SendOptions, Source, Trouble, Watch, get,
    put, receive, serve,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// What one side came to.
#[derive(Debug)]
struct Told {
    outcome: Result<(), Error>,
    counts: Counts,
    troubles: Vec<Trouble>,
    /// What the serving side said of itself.
    served: Result<bool, Error>,
}

impl Told {
    fn good(self) -> Counts {
        assert!(
            self.outcome.is_ok() && self.troubles.is_empty() && matches!(self.served, Ok(true)),
            "{self:?}"
        );
        self.counts
    }
}

/// Runs a client's part against [`serve`].
fn between(client: impl FnOnce(UnixStream, UnixStream, Watch<'_>) -> Result<(), Error>) -> Told {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let end = theirs.try_clone().unwrap();
        let served = serve(theirs.try_clone().unwrap(), theirs);
        let _ = end.shutdown(std::net::Shutdown::Write);
        served
    });
    let (progress, troubles) = (Progress::default(), Mutex::new(Vec::new()));
    let tell = |trouble| troubles.lock().unwrap().push(trouble);
    let end = ours.try_clone().unwrap();
    let outcome =
        client(ours.try_clone().unwrap(), ours, Watch { progress: &progress, tell: &tell });
    end.shutdown(std::net::Shutdown::Write).unwrap();
    let served = server.join().unwrap();
    Told { outcome, counts: progress.counts(), troubles: troubles.into_inner().unwrap(), served }
}

fn name(path: &Path) -> Name {
    Name::new(path.file_name().unwrap().as_bytes()).unwrap()
}

fn push_with(paths: &[&Path], to: &Path, options: SendOptions) -> Told {
    let names = paths.iter().map(|path| name(path)).collect();
    let source = |path: &&Path| Source {
        path: path.to_path_buf(),
        shown: path.as_os_str().as_bytes().to_vec(),
    };
    let sources: Vec<Source> = paths.iter().map(source).collect();
    between(|from, into, watch| {
        put(from, into, to.as_os_str().as_bytes(), names, &sources, options, watch)
    })
}

fn push(paths: &[&Path], to: &Path) -> Told {
    push_with(paths, to, SendOptions::default())
}

fn pull(paths: &[&Path], to: &Path) -> Told {
    let names = paths.iter().map(|path| name(path)).collect();
    let asked = paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    let destination = Destination::resolve(to.as_os_str().as_bytes(), names).unwrap();
    between(|from, into, watch| get(from, into, asked, destination, SendOptions::default(), watch))
}

/// Everything below a directory: what it is, its rights, its time and its contents.
fn tree(top: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_path_buf()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let contents = if about.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let below = path.strip_prefix(top).unwrap().to_path_buf();
        found.insert(below, (about.mode(), about.mtime(), about.mtime_nsec(), contents));
    }
    found
}

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// One of everything that can be copied.
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
fn a_tree_arrives_as_it_is_both_ways_and_is_left_alone_after_that() {
    let from = assorted();
    let top = from.path().join("top");
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        let counts = copy(&[&top], to.path()).good();
        assert_eq!((counts.copied, counts.unchanged, counts.failed), (10, 0, 0));
        assert_eq!((counts.announced, counts.listed), (counts.moved, true));
        assert_eq!(tree(&top), tree(&to.path().join("top")));
        let before = fs::metadata(to.path().join("top/small")).unwrap().ino();
        let counts = copy(&[&top], to.path()).good();
        assert_eq!((counts.copied, counts.unchanged), (0, 10));
        assert_eq!(counts.announced, counts.moved);
        assert_eq!(fs::metadata(to.path().join("top/small")).unwrap().ino(), before);
        // Under another name, where nothing has it.
        copy(&[&top], &to.path().join("renamed")).good();
        assert_eq!(tree(&top), tree(&to.path().join("renamed")));
    }
}

#[test]
fn zeros_take_no_room_on_the_disk() {
    let from = tempfile::tempdir().unwrap();
    let (image, nothing) = (from.path().join("image"), from.path().join("nothing"));
    let mut contents = vec![0; 8 << 20];
    contents[3_000_000] = 1;
    fs::write(&image, contents).unwrap();
    fs::write(&nothing, vec![0; 100_000]).unwrap();
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        copy(&[&image, &nothing], to.path()).good();
        for name in ["image", "nothing"] {
            assert!(tree(&from.path().join(name)) == tree(&to.path().join(name)), "{name}");
        }
        let blocks = fs::metadata(to.path().join("image")).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
    }
}

#[test]
fn what_has_changed_is_replaced_and_a_digest_sees_more_than_size_and_time() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("file");
    fs::write(&file, "one").unwrap();
    set_time(&file, 1);
    push(&[&file], to.path()).good();
    fs::write(&file, "two").unwrap();
    set_time(&file, 1);
    assert_eq!(push(&[&file], to.path()).good().unchanged, 1);
    assert_eq!(fs::read(to.path().join("file")).unwrap(), b"one");
    assert_eq!(push_with(&[&file], to.path(), SendOptions { checksum: true }).good().copied, 1);
    assert_eq!(fs::read(to.path().join("file")).unwrap(), b"two");
    // Only the time and the rights: they follow, the contents stay where they are.
    set_time(&file, 7);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(to.path().join("file")).unwrap().ino();
    assert_eq!(push_with(&[&file], to.path(), SendOptions { checksum: true }).good().unchanged, 1);
    let after = fs::metadata(to.path().join("file")).unwrap();
    assert_eq!((after.ino(), after.mtime(), after.mode() & 0o7777), (before, 7, 0o640));
    set_time(&file, 8);
    assert_eq!(push(&[&file], to.path()).good().copied, 1);
}

#[test]
fn set_user_id_bits_never_arrive() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("file");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();
    push(&[&file], to.path()).good();
    let there = to.path().join("file");
    let mode = || fs::metadata(&there).unwrap().mode() & 0o7777;
    assert_eq!(mode(), 0o755);
    // Nor do they stay.
    fs::set_permissions(&there, fs::Permissions::from_mode(0o4755)).unwrap();
    push(&[&file], to.path()).good();
    assert_eq!(mode(), 0o755);
}

#[test]
fn many_small_files_need_no_answer_each() {
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
    assert_eq!(pull(&[&top], to.path()).good().copied, 4000);
    assert_eq!(tree(&top), tree(&to.path().join("top")));
}

#[test]
fn what_cannot_be_copied_is_named_and_the_rest_goes_on() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir_all(top.join("sub/under")).unwrap();
    for file in ["a", "sub/b", "sub/under/c", "taken"] {
        fs::write(top.join(file), file).unwrap();
    }
    nix::unistd::mkfifo(&top.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // In the way over there: a file for a directory, a directory for a file.
    fs::create_dir_all(to.path().join("top/taken/full")).unwrap();
    fs::write(to.path().join("top/sub"), "in the way").unwrap();
    let missing = from.path().join("missing");
    for copy in [push, pull] {
        let told = copy(&[&missing, &top], to.path());
        assert!(told.outcome.is_ok() && matches!(told.served, Ok(false)), "{told:?}");
        let named = |end: &str| {
            let is = |trouble: &&Trouble| trouble.path.ends_with(end.as_bytes());
            told.troubles.iter().find(is).unwrap_or_else(|| panic!("{end} in {told:?}")).clone()
        };
        assert!(named("missing").text.contains("No such file"));
        assert!(named("top/taken").text.contains("a directory stands"));
        assert!(named("top/sub").text.contains("something else stands"));
        assert!(named("top/pipe").text.contains("a named pipe") && !named("top/pipe").failure);
        // What would have been in `sub` is counted, not named: missing, taken, sub, b, under, c.
        assert_eq!(told.troubles.len(), 4, "{told:?}");
        assert_eq!(fs::read(to.path().join("top/a")).unwrap(), b"a");
        // Named outright, it is missed.
        let told = copy(&[&top.join("pipe")], to.path());
        assert!(told.troubles[0].failure && matches!(told.served, Ok(false)), "{told:?}");
    }
}

#[test]
fn links_that_stand_in_the_way_are_not_followed() {
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
    // Also where a partial file would be.
    symlink(elsewhere.path().join("file"), to.path().join("top/.file.labsh-part")).unwrap();
    let told = push(&[&top], to.path());
    assert!(
        told.troubles.iter().any(|trouble| trouble.text.contains("links are not followed")),
        "{told:?}"
    );
    assert_eq!(fs::read(elsewhere.path().join("file")).unwrap(), b"old");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    let file = to.path().join("top/file");
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    assert_eq!(fs::read(file).unwrap(), b"new");
}

/// A receiver in a directory of its own, told these messages by a sender that then hangs up.
fn told_by(sent: &[u8]) -> (Result<(), Error>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let destination =
        Destination::resolve(inside.as_os_str().as_bytes(), vec![Name::new(b"named").unwrap()])
            .unwrap();
    let progress = Progress::default();
    let watch = Watch { progress: &progress, tell: &|_| {} };
    let outcome = receive(
        &mut Reader::new(Cursor::new(sent.to_vec())),
        Writer::new(std::io::sink()),
        destination,
        watch,
    );
    (outcome, dir)
}

fn encoded(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut bytes));
    bytes
}

const THEN: Time = Time { seconds: 1, nanoseconds: 0 };

fn entry(id: u32, below: &[u8], kind: Kind) -> Message {
    Message::Entry(Entry {
        id,
        source: 0,
        below: Below::new(below).unwrap(),
        mode: 0o644,
        modified: THEN,
        kind,
    })
}

fn file(id: u32, below: &[u8], size: u64) -> Message {
    entry(id, below, Kind::File { size, digest: None })
}

fn begin(id: u32, size: u64) -> Message {
    Message::Begin { id, offset: 0, size, modified: THEN }
}

const EMPTY: Digest = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

#[test]
fn a_sender_that_lies_writes_nothing_elsewhere_and_leaves_nothing_half_done() {
    let broken: Vec<(&str, Vec<u8>)> = vec![
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
            "something not named",
            encoded(&[Message::Remark {
                source: 1,
                below: Below::default(),
                failure: false,
                text: String::new(),
            }]),
        ),
        ("not wanted", encoded(&[begin(0, 2)])),
        (
            "in the middle",
            encoded(&[
                file(0, b"", 9),
                Message::Begin { id: 0, offset: 5, size: 9, modified: THEN },
            ]),
        ),
        ("out of order", encoded(&[file(1, b"", 0)])),
        ("twice", encoded(&[file(0, b"", 0), file(0, b"", 0)])),
        ("behind the end", encoded(&[file(0, b"", 0), Message::Listed, file(1, b"", 0)])),
        ("leaves nothing", encoded(&[Message::Leave { id: 0 }])),
        ("ends inside", encoded(&[entry(0, b"", Kind::Directory), Message::Listed])),
        ("answers", encoded(&[Message::Done { id: 0, unchanged: true }])),
    ];
    for (what, sent) in broken {
        let (outcome, dir) = told_by(&sent);
        assert!(matches!(outcome, Err(Error::Protocol(_))), "{what}: {outcome:?}");
        assert!(tree(dir.path()).values().all(|found| found.3.is_empty()), "{what}");
        assert!(fs::read_dir(dir.path()).unwrap().count() == 1, "{what}");
    }
    // What no encoder writes: the second name ends the first's place.
    for path in [&b"../x"[..], b"/tmp/x", b"a/../../x", b"a//b", b"a\0b", b"."] {
        let mut bytes = encoded(&[file(0, &vec![b'a'; path.len()], 0)]);
        let at = bytes
            .windows(path.len())
            .position(|window| window.iter().all(|byte| *byte == b'a'))
            .unwrap();
        bytes[at..at + path.len()].copy_from_slice(path);
        assert!(matches!(told_by(&bytes).0, Err(Error::Protocol(_))), "{path:?}");
    }
    // A link, and then something through it.
    let (outcome, dir) = told_by(&encoded(&[
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
    let there: Vec<PathBuf> = tree(dir.path()).into_keys().collect();
    assert_eq!(there, ["", "inside", "inside/named", "inside/named/out"].map(PathBuf::from));
}

#[test]
fn a_wrong_digest_is_no_copy() {
    let (outcome, dir) = told_by(&encoded(&[
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
fn a_large_file_that_is_cut_off_is_continued_if_its_beginning_is_still_right() {
    let contents: Vec<u8> =
        (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file_here = from.path().join("file");
    fs::write(&file_here, &contents).unwrap();
    for (changed, fresh) in [(false, 5_000_000 - 2_000_000), (true, 5_000_000)] {
        let mut sent = encoded(&[Message::Hello { version: VERSION }]);
        let put = Message::Put {
            destination: to.path().as_os_str().as_bytes().to_vec(),
            names: vec![Name::new(b"file").unwrap()],
        };
        put.encode(&mut sent);
        file(0, b"", 5_000_000).encode(&mut sent);
        begin(0, 5_000_000).encode(&mut sent);
        contents[..2_000_000]
            .chunks(100_000)
            .for_each(|piece| Message::Data(piece.to_vec()).encode(&mut sent));
        assert!(matches!(serve(Cursor::new(sent), std::io::sink()), Err(Error::Link(_))));
        let part = to.path().join(".file.labsh-part");
        assert_eq!(fs::metadata(&part).unwrap().len(), 2_000_000);
        assert!(!to.path().join("file").exists());
        if changed {
            let mut part = File::options().write(true).open(&part).unwrap();
            part.write_all(b"something else").unwrap();
        }
        let sent_now = Counted::default();
        let source = Source { path: file_here.clone(), shown: b"file".to_vec() };
        let told = between(|from, into, watch| {
            let names = vec![Name::new(b"file").unwrap()];
            let into = Counting { to: into, count: &sent_now };
            put_over(from, into, to.path(), names, &[source], watch)
        });
        told.good();
        let sent = sent_now.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!((fresh..fresh + 20_000).contains(&sent), "{sent} bytes were sent");
        assert_eq!(fs::read(to.path().join("file")).unwrap(), contents);
        assert!(!part.exists());
        fs::remove_file(to.path().join("file")).unwrap();
    }
}

fn put_over(
    from: UnixStream,
    into: Counting<'_>,
    to: &Path,
    names: Vec<Name>,
    sources: &[Source],
    watch: Watch<'_>,
) -> Result<(), Error> {
    put(from, into, to.as_os_str().as_bytes(), names, sources, SendOptions::default(), watch)
}

#[derive(Default)]
struct Counted(std::sync::atomic::AtomicU64);

/// Counts what is written.
struct Counting<'a> {
    to: UnixStream,
    count: &'a Counted,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.count.0.fetch_add(written as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[test]
fn a_file_that_two_copies_write_at_once_is_whole_or_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("file");
    fs::write(&file, vec![1; 300_000]).unwrap();
    let part = to.path().join(".file.labsh-part");
    let held = File::create(&part).unwrap();
    held.lock().unwrap();
    let told = push(&[&file], to.path());
    assert!(told.troubles[0].text.contains("another copy"), "{told:?}");
    assert!(part.exists() && !to.path().join("file").exists());
    drop(held);
    push(&[&file], to.path()).good();
    assert!(!part.exists());
}

#[test]
fn a_directory_that_is_missing_is_told_with_its_path() {
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("file");
    fs::write(&file, "x").unwrap();
    let told = push(&[&file], &from.path().join("no/such"));
    assert!(
        matches!(&told.outcome, Err(Error::Refused(text)) if text.contains("no/such")),
        "{told:?}"
    );
    // With a slash it is a directory to be made; so it is where several things are to go.
    push(&[&file], &from.path().join("made/")).good();
    assert_eq!(fs::read(from.path().join("made/file")).unwrap(), b"x");
}

#[test]
fn more_names_than_one_request_holds_are_refused_here_and_not_over_there() {
    let names =
        (0..20_000).map(|number| Name::new(format!("{number:0>60}").as_bytes()).unwrap()).collect();
    let progress = Progress::default();
    let watch = Watch { progress: &progress, tell: &|_| {} };
    let mut sent = Vec::new();
    let outcome = labsh_copy::put(
        Cursor::new(Vec::new()),
        &mut sent,
        b"x",
        names,
        &[],
        SendOptions::default(),
        watch,
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
        1 => (id, any::<bool>()).prop_map(|(id, unchanged)| Message::Done { id, unchanged }),
    ]
}

proptest! {
    #[test]
    fn every_message_reads_back(message in messages()) {
        let bytes = encoded(std::slice::from_ref(&message));
        prop_assert_eq!(Reader::new(Cursor::new(bytes)).read().unwrap(), Some(message));
    }

    #[test]
    fn no_order_of_messages_gets_out(sent in proptest::collection::vec(messages(), 0..12)) {
        let (_, dir) = told_by(&encoded(&sent));
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let there = fs::read_dir(dir.path().join("inside")).unwrap()
            .map(|entry| entry.unwrap().file_name());
        for name in there {
            prop_assert_eq!(name, "named");
        }
    }

    #[test]
    fn mangled_bytes_are_an_error_and_no_more(
        sent in proptest::collection::vec(messages(), 1..8),
        at in any::<prop::sample::Index>(),
        bits in 1..=255_u8,
    ) {
        let mut bytes = encoded(&sent);
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let (_, dir) = told_by(&bytes);
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // And to a sender.
        let source = Source { path: dir.path().join("inside"), shown: Vec::new() };
        let progress = Progress::default();
        let watch = Watch { progress: &progress, tell: &|_| {} };
        let _ = labsh_copy::send(
            Reader::new(Cursor::new(bytes)),
            Writer::new(std::io::sink()),
            &[source],
            SendOptions::default(),
            watch,
        );
    }
}

/// The bytes that one side sends in the example of docs/COPY.md.
fn example(side: char) -> Vec<u8> {
    let document = include_str!("../../../docs/COPY.md");
    let example = document.split("```hex\n").nth(1).unwrap().split("```").next().unwrap();
    let (mut bytes, mut ours) = (Vec::new(), false);
    for line in example.lines() {
        if let Some(marked) = line.chars().next().filter(|c| "<>".contains(*c)) {
            ours = marked == side;
        }
        if ours {
            // What is said about them stands behind two blanks.
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
fn the_example_in_the_document_is_what_is_said() {
    let (ours, theirs) = (example('>'), example('<'));
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("hi");
    fs::write(&file, "hello\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(&file).unwrap().set_modified(time).unwrap();
    // The client, given the other side's answers, each when it is due: behind its greeting a want
    // of 49 bytes, and a done.
    let (here, mut there) = UnixStream::pair().unwrap();
    let (expected, answers) = (ours.clone(), theirs.clone());
    let server = thread::spawn(move || {
        let (greeting, rest) = answers.split_at(answers.len() - 10 - 49);
        let (want, done) = rest.split_at(49);
        let listed = 5 + expected.windows(5).position(|window| window == [0, 0, 0, 0, 23]).unwrap();
        let mut said = vec![0; expected.len()];
        there.write_all(greeting).unwrap();
        there.read_exact(&mut said[..listed]).unwrap();
        there.write_all(want).unwrap();
        there.read_exact(&mut said[listed..]).unwrap();
        there.write_all(done).unwrap();
        assert_eq!(said, expected);
    });
    let source = Source { path: file, shown: Vec::new() };
    let (progress, names) = (Progress::default(), vec![Name::new(b"hi").unwrap()]);
    let watch = Watch { progress: &progress, tell: &|_| {} };
    put(here.try_clone().unwrap(), here, b"", names, &[source], SendOptions::default(), watch)
        .unwrap();
    server.join().unwrap();
    // The receiver, given the client's words; the home directory of the example is another here.
    let inside = to.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let mut input = Reader::new(Cursor::new(ours));
    assert_eq!(input.read().unwrap(), Some(Message::Hello { version: VERSION }));
    let Some(Message::Put { names, .. }) = input.read().unwrap() else { panic!("no put") };
    let destination = Destination::resolve(inside.as_os_str().as_bytes(), names).unwrap();
    let mut answers = encoded(&[Message::Hello { version: VERSION }]);
    let progress = Progress::default();
    receive(
        &mut input,
        Writer::new(&mut answers),
        destination,
        Watch { progress: &progress, tell: &|_| {} },
    )
    .unwrap();
    assert_eq!(answers, theirs);
    assert_eq!(fs::read(inside.join("hi")).unwrap(), b"hello\n");
}
