//! What one side does with a peer that is older, or that answers in an unusual way.

use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use labsh_copy::stream::{Reader, Writer};
use labsh_copy::wire::{Message, VERSION};
use labsh_copy::{
    CopyReport, Counts, Error, Name, Observer, Options, Placement, Progress, ReceiveOptions,
    SendOptions, Side, Source, put, send,
};

use crate::encoded;

fn source(path: &Path) -> Source {
    Source { path: path.to_path_buf(), display_name: path.as_os_str().as_bytes().to_vec() }
}

/// Sends a tree to a receiver that answers with this when everything has been announced.
fn send_to(path: &Path, answers: Vec<Message>) -> (Vec<Message>, Vec<CopyReport>, Counts) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let receiver = thread::spawn(move || {
        let mut from = Reader::new(theirs.try_clone().unwrap());
        let mut received = Vec::new();
        while !received.ends_with(&[Message::Listed]) {
            received.push(from.read().unwrap().unwrap());
        }
        let mut to = Writer::new(theirs);
        answers.iter().for_each(|answer| to.put(answer).unwrap());
        to.flush().unwrap();
        received
    });
    let (progress, reports) = (Progress::default(), Mutex::new(Vec::new()));
    let on_report = |report| reports.lock().unwrap().push(report);
    let observer = Observer { progress: &progress, on_report: &on_report };
    let (from, to) = (Reader::new(ours.try_clone().unwrap()), Writer::new(ours));
    send(from, to, &[source(path)], SendOptions::default(), observer).unwrap();
    (receiver.join().unwrap(), reports.into_inner().unwrap(), progress.counts())
}

fn done(id: u32) -> Message {
    Message::Done { id, unchanged: true }
}

fn failed(id: u32, text: &str) -> Message {
    Message::Failed { id, text: text.into() }
}

#[test]
fn a_directory_that_fails_at_its_end_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    let answers = vec![done(0), done(1), failed(2, "broken"), done(3)];
    let (_, reports, counts) = send_to(&top, answers);
    let [CopyReport { side: Side::Destination, path, failure: true, .. }] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert_eq!(path, top.join("sub").as_os_str().as_bytes());
    assert_eq!(counts.failed, 1);
    // One that has failed at its beginning is counted once.
    let answers = vec![done(0), failed(1, "broken"), failed(2, ""), done(3)];
    let (_, reports, counts) = send_to(&top, answers);
    assert_eq!((reports.len(), counts.failed), (1, 1), "{reports:?}");
}

#[test]
fn a_note_is_about_an_entry_and_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    let note = Message::Note { id: 1, text: "as it was".into() };
    let (sent, reports, counts) = send_to(&top, vec![done(0), note, done(1)]);
    assert_eq!(sent[0], Message::announcement());
    assert_eq!((reports[0].failure, &*reports[0].text), (false, "as it was"));
    assert_eq!((reports[0].path.as_slice(), counts.failed), (top.as_os_str().as_bytes(), 0));
}

#[test]
fn an_older_server_that_cannot_do_what_is_requested_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let name = || Placement::Named(Name::new(b"file").unwrap());
    let receive = ReceiveOptions { no_times: true, no_permissions: false };
    for (names, receive) in [(name(), receive), (Placement::Contents, ReceiveOptions::default())] {
        let answers = encoded(&[
            Message::Hello { version: VERSION },
            Message::Refused {
                text: "the other side violated the copy protocol: the kind of a message is unknown"
                    .into(),
            },
        ]);
        let progress = Progress::default();
        let outcome = put(
            Cursor::new(answers),
            std::io::sink(),
            b"",
            vec![names],
            &[source(&file)],
            Options { receive, ..Options::default() },
            Observer { progress: &progress, on_report: &|_| {} },
        );
        assert!(
            matches!(&outcome, Err(Error::Refused(text)) if text.contains("that host is older")),
            "{outcome:?}"
        );
    }
    // What an older server knows is requested in the form that it knows.
    let plain =
        |names| Message::Put { destination: Vec::new(), names, options: ReceiveOptions::default() };
    assert_eq!(encoded(&[plain(vec![name()])])[4], 2);
    assert_eq!(encoded(&[plain(vec![name(), Placement::Contents])])[4], 5);
}
