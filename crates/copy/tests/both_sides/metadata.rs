//! Permissions and times: what is set at the destination, and what stays as it is there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use labsh_copy::{Options, ReceiveOptions};

use crate::support::{pull, pull_with, push, push_with, set_time};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn special_bits_are_not_copied_and_those_at_the_destination_stay() {
    let from = tempfile::tempdir().unwrap();
    let top = from.path().join("top");
    let directories = [("shared", 0o1777, 0o777), ("team", 0o2775, 0o750), ("plain", 0o755, 0o755)];
    for (name, _, sent) in directories {
        fs::create_dir_all(top.join(name)).unwrap();
        fs::write(top.join(name).join("file"), "x").unwrap();
        set_mode(&top.join(name).join("file"), 0o755);
        set_mode(&top.join(name), sent);
    }
    for copy in [push, pull] {
        let to = tempfile::tempdir().unwrap();
        let there = to.path().join("top");
        for (name, before, _) in directories {
            fs::create_dir_all(there.join(name)).unwrap();
            set_mode(&there.join(name), before);
        }
        // At first everything is different, and then nothing.
        for changes in [true, false] {
            copy(&[&top], to.path()).succeeded();
            for (name, before, sent) in directories {
                let expected = before & 0o7000 | sent;
                assert_eq!(mode(&there.join(name)), expected, "{name} {changes}");
            }
        }
        // An unchanged file is like a directory. A file with other contents is a new one.
        let file = there.join("plain/file");
        set_mode(&file, 0o4711);
        copy(&[&top], to.path()).succeeded();
        assert_eq!(mode(&file), 0o4755);
        set_time(&file, 1);
        copy(&[&top], to.path()).succeeded();
        assert_eq!(mode(&file), 0o755);
    }
}

#[test]
fn what_is_created_has_no_special_bits() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    fs::write(top.join("file"), "x").unwrap();
    set_mode(&top.join("file"), 0o6755);
    set_mode(&top, 0o3775);
    // A new directory inherits this bit from its parent.
    set_mode(to.path(), 0o2755);
    for (copy, name) in [(push as fn(&[&Path], &Path) -> _, "put"), (pull, "got")] {
        copy(&[&top], &to.path().join(name)).succeeded();
        assert_eq!(mode(&to.path().join(name)), 0o775);
        assert_eq!(mode(&to.path().join(name).join("file")), 0o755);
    }
}

#[test]
fn a_directory_and_a_file_that_are_the_same_are_not_touched() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    fs::write(top.join("sub/file"), "x").unwrap();
    push(&[&top], to.path()).succeeded();
    let changed = |name: &str| {
        let found = fs::metadata(to.path().join("top").join(name)).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let names = ["", "sub", "sub/file"];
    let before = names.map(changed);
    push(&[&top], to.path()).succeeded();
    assert_eq!(names.map(changed), before);
}

fn options(no_times: bool, no_permissions: bool) -> Options {
    Options { receive: ReceiveOptions { no_times, no_permissions }, ..Options::default() }
}

#[test]
fn permissions_are_not_set_without_need() {
    let from = tempfile::tempdir().unwrap();
    let top = from.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    for (name, permissions) in [("old", 0o606), ("changed", 0o606), ("new", 0o777)] {
        fs::write(top.join("sub").join(name), name).unwrap();
        set_mode(&top.join("sub").join(name), permissions);
        set_time(&top.join("sub").join(name), 1);
    }
    set_mode(&top.join("sub"), 0o777);
    // Compared with the umask that this process has.
    let made = from.path().join("made");
    fs::create_dir(&made).unwrap();
    let within_umask = mode(&made);
    for copy in [push_with, pull_with] {
        let to = tempfile::tempdir().unwrap();
        let there = to.path().join("top");
        fs::create_dir(&there).unwrap();
        set_mode(&there, 0o2711);
        copy(&[&top], to.path(), options(false, true)).succeeded();
        assert_eq!(mode(&there), 0o2711);
        // A new directory inherits set-group-ID, as one made by mkdir does.
        assert_eq!(mode(&there.join("sub")), within_umask | 0o2000);
        assert_eq!(mode(&there.join("sub/new")), within_umask);
        set_mode(&there.join("sub/old"), 0o640);
        set_mode(&there.join("sub/changed"), 0o4641);
        set_time(&there.join("sub/changed"), 2);
        copy(&[&top], to.path(), options(false, true)).succeeded();
        assert_eq!(mode(&there.join("sub/old")), 0o640);
        assert_eq!(mode(&there.join("sub/changed")), 0o641);
    }
}

#[test]
fn times_are_not_set_without_need() {
    let from = tempfile::tempdir().unwrap();
    let top = from.path().join("top");
    fs::create_dir(&top).unwrap();
    fs::write(top.join("file"), "x").unwrap();
    set_mode(&top.join("file"), 0o604);
    std::os::unix::fs::symlink("file", top.join("link")).unwrap();
    set_time(&top.join("file"), 1);
    set_time(&top, 1);
    for copy in [push_with, pull_with] {
        let to = tempfile::tempdir().unwrap();
        copy(&[&top], to.path(), options(true, false)).succeeded();
        for name in ["", "file"] {
            let there = to.path().join("top").join(name);
            assert_ne!(fs::metadata(&there).unwrap().mtime(), 1, "{name}");
            assert_eq!(mode(&there), mode(&top.join(name)), "{name}");
        }
    }
}

#[test]
fn a_file_that_may_not_be_read_gets_its_permissions() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = from.path().join("file");
    fs::write(&file, "x").unwrap();
    push(&[&file], to.path()).succeeded();
    set_mode(&to.path().join("file"), 0);
    assert_eq!(push(&[&file], to.path()).succeeded().unchanged, 1);
    assert_eq!(mode(&to.path().join("file")), mode(&file));
}

#[test]
fn directories_that_their_owner_may_not_write_or_read_are_copied_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = from.path().join("top");
    let modes = [("a", 0o555), ("b", 0o511), ("c", 0o500)];
    for (name, _) in modes {
        fs::create_dir_all(top.join(name).join("sub")).unwrap();
        fs::write(top.join(name).join("sub/file"), "old").unwrap();
        set_mode(&top.join(name).join("sub"), 0o555);
    }
    modes.iter().for_each(|(name, mode)| set_mode(&top.join(name), *mode));
    for contents in ["old", "newer"] {
        for (name, _) in modes {
            fs::write(top.join(name).join("sub/file"), contents).unwrap();
        }
        push(&[&top], to.path()).succeeded();
        // What only the destination has.
        for (name, sent) in modes {
            let there = to.path().join("top").join(name);
            assert_eq!(fs::read_to_string(there.join("sub/file")).unwrap(), contents);
            assert_eq!((mode(&there), mode(&there.join("sub"))), (sent, 0o555));
            set_mode(&there, 0o311);
        }
    }
    // Without permissions, they remain what they were.
    push_with(&[&top], to.path(), options(false, true)).succeeded();
    for (name, _) in modes {
        let there = to.path().join("top").join(name);
        assert_eq!((mode(&there), mode(&there.join("sub"))), (0o311, 0o555));
    }
    // So that an ordinary user can remove them.
    for directory in [&top, &to.path().join("top")] {
        for (name, _) in modes {
            set_mode(&directory.join(name), 0o755);
            set_mode(&directory.join(name).join("sub"), 0o755);
        }
    }
}
