//! Files that change while they are read.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use labsh_copy::stream::{Reader, Writer};
use labsh_copy::wire::{Digest, Message};
use labsh_copy::{Observer, Progress, SendOptions, Source, send};

use crate::EMPTY;
use crate::support::{pull, push};

/// More than the sockets between the two sides hold.
const SIZE: usize = 8 << 20;

/// Sends a file of [`SIZE`] bytes, and changes it when its beginning has arrived. Returns what
/// arrived after that, without data.
fn send_and_change(change: impl FnOnce(&Path)) -> Vec<Message> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, vec![b'a'; SIZE]).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let source = Source { path: path.clone(), display_name: b"file".to_vec() };
    let sender = thread::spawn(move || {
        let progress = Progress::default();
        let observer = Observer { progress: &progress, on_report: &|_| {} };
        let (from, to) = (Reader::new(ours.try_clone().unwrap()), Writer::new(ours));
        send(from, to, &[source], SendOptions::default(), observer)
    });
    let (mut from, mut to) = (Reader::new(theirs.try_clone().unwrap()), Writer::new(theirs));
    let mut next = || from.read().unwrap().unwrap();
    while next() != Message::Listed {}
    let digest: Digest = EMPTY;
    to.put(&Message::Want { id: 0, offset: 0, digest }).unwrap();
    to.flush().unwrap();
    while !matches!(next(), Message::Data(_)) {}
    change(&path);
    let mut others = Vec::new();
    while !matches!(others.last(), Some(Message::Abort { .. } | Message::Finish { .. })) {
        match next() {
            Message::Data(_) => {}
            message => others.push(message),
        }
    }
    to.put(&Message::Done { id: 0, unchanged: false }).unwrap();
    to.flush().unwrap();
    sender.join().unwrap().unwrap();
    others
}

fn append(path: &Path) {
    File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

fn overwrite(path: &Path, position: u64) {
    File::options().write(true).open(path).unwrap().write_all_at(b"b", position).unwrap();
}

#[test]
fn a_file_that_changes_anywhere_but_at_its_end_is_not_copied() {
    let changes: [fn(&Path); 6] = [
        |path| overwrite(path, 0),
        |path| overwrite(path, SIZE as u64 - 1),
        // The beginning has been sent, the end is sent as it is then: a mixture.
        |path| {
            append(path);
            fs::write(path, vec![b'b'; SIZE + 1]).unwrap();
        },
        |path| {
            overwrite(path, 0);
            append(path);
        },
        // With the same size and time as before.
        |path| {
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            overwrite(path, 0);
            File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        },
        |path| File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let messages = send_and_change(change);
        let [Message::Abort { id: 0, text }] = &messages[..] else {
            panic!("{index}: {messages:?}")
        };
        assert!(text.contains("while it was read; copy it again"), "{index}: {text}");
    }
}

#[test]
fn a_file_that_grows_is_copied_up_to_its_initial_end() {
    let messages = send_and_change(append);
    assert!(
        matches!(&messages[..], [Message::Remark { failure: false, .. }, Message::Finish { .. }]),
        "{messages:?}"
    );
}

#[test]
fn another_name_or_other_permissions_are_no_change_of_the_contents() {
    let changes: [fn(&Path); 3] = [
        |path| fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap(),
        |path| fs::hard_link(path, path.with_extension("link")).unwrap(),
        |path| fs::rename(path, path.with_extension("renamed")).unwrap(),
    ];
    for change in changes {
        let messages = send_and_change(change);
        assert!(matches!(&messages[..], [Message::Finish { .. }]), "{messages:?}");
    }
}

#[test]
fn a_file_whose_size_is_not_that_of_its_contents_is_not_copied_as_empty() {
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        // Its size is 0.
        let transfer = copy(&[Path::new("/proc/self/status")], to.path());
        let [report] = &transfer.reports[..] else { panic!("{transfer:?}") };
        assert!(report.failure && report.text.contains("copy the output of cat"), "{transfer:?}");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    }
}
