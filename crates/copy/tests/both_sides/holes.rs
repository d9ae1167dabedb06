//! Sparse files: holes are found, sent as such, and made again.

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::thread;

use labsh_copy::stream::{Reader, Writer};
use labsh_copy::wire::{HOLES, Kind, Message, VERSION};
use labsh_copy::{Name, Options, ReceiveOptions, Source, put, serve};

use crate::support::{against_server, pull, push};
use crate::{Counting, EMPTY, begin, encoded, entry, file, receive_bytes};

/// Larger than what could be read in the time of a test.
const TERABYTE: u64 = 1 << 40;

/// Bytes at positions in a file.
type Pieces<'a> = &'a [(u64, &'a [u8])];

/// Creates a sparse file with these bytes at these positions.
fn sparse(path: &Path, length: u64, data: Pieces<'_>) {
    let file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    data.iter().for_each(|(position, bytes)| file.write_all_at(bytes, *position).unwrap());
}

/// Asserts that a copy has these bytes at these positions, the length, and about as few blocks.
fn assert_sparse(path: &Path, length: u64, data: Pieces<'_>) {
    let copy = File::open(path).unwrap();
    let metadata = copy.metadata().unwrap();
    assert_eq!(metadata.len(), length, "{path:?}");
    assert!(metadata.blocks() * 512 < 4 << 20, "{path:?}: {} blocks", metadata.blocks());
    for (position, bytes) in data {
        let mut found = vec![1; bytes.len()];
        copy.read_exact_at(&mut found, *position).unwrap();
        assert!(found == *bytes, "{path:?} {position}");
    }
}

#[test]
fn holes_anywhere_are_holes_again() {
    let from = tempfile::tempdir().unwrap();
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    let (some, much) = (vec![7; 5000], vec![9; 1_000_000]);
    let files: [(&str, u64, Pieces<'_>); 6] = [
        ("all", TERABYTE, &[]),
        ("start", TERABYTE, &[(TERABYTE - 5000, &some)]),
        ("end", TERABYTE + 1, &[(0, &some)]),
        ("middle", TERABYTE, &[(0, &some), (TERABYTE - 1, b"x")]),
        ("both", TERABYTE, &[(TERABYTE / 2 + 77, &much)]),
        ("none", 5000, &[(0, &some)]),
    ];
    for (name, length, data) in &files {
        sparse(&top.join(name), *length, data);
    }
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        let there = to.path().join("top");
        // What is there already does not show through.
        fs::create_dir(&there).unwrap();
        fs::write(there.join("all"), &much).unwrap();
        fs::write(there.join(".start.labsh-part"), &much).unwrap();
        let counts = copy(&[&top], to.path()).succeeded();
        assert_eq!((counts.copied, counts.processed_bytes), (6, counts.announced_bytes));
        for (name, length, data) in &files {
            assert_sparse(&there.join(name), *length, data);
        }
        let mut start = [1; 4096];
        File::open(there.join("all")).unwrap().read_exact_at(&mut start, 0).unwrap();
        assert_eq!(start, [0; 4096]);
        assert_eq!(copy(&[&top], to.path()).succeeded().unchanged, 6);
    }
}

#[test]
fn a_sparse_file_is_resumed_after_its_holes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = from.path().join("file");
    let (some, much) = (vec![7; 5000], vec![9; 2_000_000]);
    let data: [(u64, &[u8]); 2] = [(4096, &some), (TERABYTE, &much)];
    let length = TERABYTE + 2_000_000;
    sparse(&source, length, &data);
    // A transfer that ends in the second half.
    let mut sent = encoded(&[
        Message::Hello { version: VERSION },
        Message::Put {
            destination: to.path().as_os_str().as_bytes().to_vec(),
            names: vec![Name::new(b"file").unwrap().into()],
            options: ReceiveOptions::default(),
        },
        Message::announcement(),
        file(0, b"", length),
        begin(0, length),
        Message::Hole { length: 4096 },
        Message::Data(some.clone()),
        Message::Hole { length: TERABYTE - 4096 - 5000 },
    ]);
    for piece in much[..1_500_000].chunks(100_000) {
        Message::Data(piece.to_vec()).encode(&mut sent);
    }
    serve(Cursor::new(sent), std::io::sink()).unwrap_err();
    let partial = to.path().join(".file.labsh-part");
    assert_eq!(fs::metadata(&partial).unwrap().len(), TERABYTE + 1_500_000);
    let sent = AtomicU64::new(0);
    let sources = [Source { path: source, display_name: b"file".to_vec() }];
    let transfer = against_server(|from, into, observer| {
        let names = vec![Name::new(b"file").unwrap().into()];
        let (into, to) = (Counting { to: into, count: &sent }, to.path().as_os_str().as_bytes());
        put(from, into, to, names, &sources, Options::default(), observer)
    });
    transfer.succeeded();
    let sent = sent.into_inner();
    assert!((500_000..550_000).contains(&sent), "{sent} bytes were sent");
    assert_sparse(&to.path().join("file"), length, &data);
}

#[test]
fn holes_are_sent_only_after_both_sides_know_them() {
    let from = tempfile::tempdir().unwrap();
    let path = from.path().join("file");
    sparse(&path, 1_000_000, &[]);
    for knows in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(theirs.try_clone().unwrap(), theirs));
        let (mut from, mut to) = (Reader::new(ours.try_clone().unwrap()), Writer::new(ours));
        let mut send = |message| {
            to.put(&message).unwrap();
            to.flush().unwrap();
        };
        let paths = vec![path.as_os_str().as_bytes().to_vec()];
        send(Message::Hello { version: VERSION });
        send(Message::Get { checksum: false, paths });
        while from.read().unwrap().unwrap() != Message::Listed {}
        if knows {
            send(Message::Extensions { bits: HOLES });
        }
        send(Message::Want { id: 0, offset: 0, digest: EMPTY });
        let (mut holes, mut data) = (0, 0);
        loop {
            match from.read().unwrap().unwrap() {
                Message::Hole { length } => holes += length,
                Message::Data(bytes) => data += bytes.len(),
                Message::Finish { .. } => break,
                message => assert!(matches!(message, Message::Begin { .. }), "{message:?}"),
            }
        }
        assert_eq!((holes, data), if knows { (1_000_000, 0) } else { (0, 1_000_000) });
        send(Message::Done { id: 0, unchanged: false });
        assert!(matches!(server.join().unwrap(), Ok(true)));
    }
    // A receiver does not mention them to a sender that has not announced itself.
    for announces in [false, true] {
        let to = tempfile::tempdir().unwrap();
        let destination = to.path().as_os_str().as_bytes().to_vec();
        let names = vec![Name::new(b"file").unwrap().into()];
        let options = ReceiveOptions::default();
        let mut messages = vec![
            Message::Hello { version: VERSION },
            Message::Put { destination, names, options },
            Message::announcement(),
            entry(0, b"", Kind::Directory),
            Message::Leave { id: 1 },
            Message::Listed,
        ];
        if !announces {
            messages.remove(2);
        }
        let mut answers = Vec::new();
        assert!(matches!(serve(Cursor::new(encoded(&messages)), &mut answers), Ok(true)));
        let mut expected = vec![Message::Hello { version: VERSION }];
        if announces {
            expected.push(Message::Extensions { bits: HOLES });
        }
        let done = |id, unchanged| Message::Done { id, unchanged };
        expected.extend([done(0, false), done(1, true)]);
        assert_eq!(answers, encoded(&expected));
    }
}

#[test]
fn a_hole_that_was_not_agreed_on_or_is_too_long_ends_the_transfer() {
    let hole = |length| Message::Hole { length };
    let announced = Message::announcement();
    for sent in [
        vec![file(0, b"", 9), begin(0, 9), hole(9)],
        vec![announced.clone(), file(0, b"", 9), begin(0, 9), hole(10)],
        vec![announced.clone(), hole(1)],
        vec![announced, file(0, b"", 9), begin(0, u64::MAX), hole(9), hole(u64::MAX)],
    ] {
        let (outcome, dir) = receive_bytes(&encoded(&sent));
        assert!(matches!(outcome, Err(labsh_copy::Error::Protocol(_))), "{sent:?}: {outcome:?}");
        assert_eq!(fs::read_dir(dir.path().join("inside")).unwrap().count(), 0, "{sent:?}");
    }
}
