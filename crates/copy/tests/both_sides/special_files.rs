//! Devices, named pipes, sockets and links in the place of a copy.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::support::{Transfer, pull, push};

/// Creates a named pipe, a socket and, if this process may, a device. Returns their names.
fn special_files(directory: &Path) -> Vec<&'static str> {
    nix::unistd::mkfifo(&directory.join("pipe"), Mode::S_IRWXU).unwrap();
    // Through a descriptor: TMPDIR may be too long for the path of a socket.
    let opened = fs::File::open(directory).unwrap();
    let short = format!("/proc/self/fd/{}/socket", opened.as_raw_fd());
    drop(UnixListener::bind(short).unwrap());
    // The null device: if a copy wrote into it, nothing else would be harmed.
    let made = mknod(&directory.join("device"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3));
    let names = ["pipe", "socket", "device"];
    names[..if made.is_ok() { 3 } else { 2 }].to_vec()
}

fn is_special(path: &Path) -> bool {
    let kind = fs::symlink_metadata(path).unwrap().file_type();
    kind.is_fifo() || kind.is_socket() || kind.is_char_device()
}

/// Asserts that one thing was refused, with this reason.
fn assert_refused(transfer: &Transfer, reason: &str) {
    let reports = &transfer.reports;
    assert!(
        transfer.outcome.is_ok()
            && matches!(transfer.served, Ok(false))
            && reports.iter().any(|report| report.failure && report.text.contains(reason)),
        "{reason}: {transfer:?}"
    );
}

#[test]
fn a_device_a_pipe_and_a_socket_are_not_replaced() {
    let from = tempfile::tempdir().unwrap();
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        fs::create_dir(to.path().join("top")).unwrap();
        for name in special_files(&to.path().join("top")) {
            let there = to.path().join("top").join(name);
            let top = from.path().join("top");
            let entry = top.join(name);
            let kinds: [fn(&Path); 4] = [
                |path| fs::write(path, "x").unwrap(),
                // Larger than one message.
                |path| fs::write(path, vec![1; 300_000]).unwrap(),
                |path| symlink("nowhere", path).unwrap(),
                |path| fs::create_dir(path).unwrap(),
            ];
            for make in kinds {
                fs::create_dir(&top).unwrap();
                make(&entry);
                // In a tree, and, except a link that would be followed, by its name.
                assert_refused(&copy(&[&top], to.path()), "place");
                if !entry.is_symlink() {
                    assert_refused(&copy(&[&entry], &there), "place");
                    assert_refused(&copy(&[&entry], &to.path().join("top")), "place");
                }
                assert!(is_special(&there), "{name}");
                fs::remove_dir_all(&top).unwrap();
            }
            // The user names a link to it.
            let (file, link) = (from.path().join("file"), to.path().join("link"));
            fs::write(&file, "x").unwrap();
            symlink(&there, &link).unwrap();
            assert_refused(&copy(&[&file], &link), "is in its place");
            assert!(is_special(&there) && link.is_symlink(), "{name}");
            fs::remove_file(&link).unwrap();
        }
        assert!(fs::read_dir(to.path()).unwrap().count() == 1, "a partial file is left");
    }
}

#[test]
fn what_is_neither_file_nor_link_nor_directory_is_not_copied() {
    let from = tempfile::tempdir().unwrap();
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    for name in special_files(&top) {
        for copy in [push, pull] {
            let to = tempfile::tempdir().unwrap();
            assert_refused(&copy(&[&top.join(name)], to.path()), "skipped: it is a");
            let link = from.path().join("link");
            symlink(top.join(name), &link).unwrap();
            assert_refused(&copy(&[&link], to.path()), "skipped: it is a");
            fs::remove_file(link).unwrap();
            // In a tree it is reported, and the tree is copied.
            let transfer = copy(&[&top], to.path());
            assert!(matches!(transfer.served, Ok(true)), "{transfer:?}");
            assert!(transfer.reports.iter().all(|report| !report.failure), "{transfer:?}");
            assert_eq!(fs::read_dir(to.path().join("top")).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_link_that_the_user_names_is_written_through_and_one_in_a_tree_is_replaced() {
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("file");
    fs::write(&file, "newer").unwrap();
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        let path = |name: &str| to.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        // Of another size: both times may be of the same tick of the clock.
        fs::write(path("sub/file"), "old").unwrap();
        symlink("sub/file", path("first")).unwrap();
        symlink("first", path("second")).unwrap();
        copy(&[&file], &path("second")).succeeded();
        assert_eq!(fs::read(path("sub/file")).unwrap(), b"newer");
        assert!(path("first").is_symlink() && path("second").is_symlink());
        assert_eq!(copy(&[&file], &path("second")).succeeded().unchanged, 1);
        // A link to a directory is that directory.
        symlink("sub", path("dir")).unwrap();
        fs::remove_file(path("sub/file")).unwrap();
        copy(&[&file], &path("dir")).succeeded();
        assert_eq!(fs::read(path("sub/file")).unwrap(), b"newer");
        assert!(path("dir").is_symlink());
        // A link inside the directory that the user names is part of a tree.
        fs::write(path("other"), "old").unwrap();
        fs::remove_file(path("sub/file")).unwrap();
        symlink("../other", path("sub/file")).unwrap();
        copy(&[&file], &path("sub")).succeeded();
        assert_eq!(fs::read(path("other")).unwrap(), b"old");
        assert!(!path("sub/file").is_symlink());
    }
}

#[test]
fn a_link_that_leads_nowhere_is_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, link) = (from.path().join("file"), to.path().join("link"));
    fs::write(&file, "x").unwrap();
    symlink("missing", &link).unwrap();
    let transfer = push(&[&file], &link);
    assert!(format!("{:?}", transfer.outcome).contains("leads nowhere"), "{transfer:?}");
    assert!(link.is_symlink() && !to.path().join("missing").exists());
}
