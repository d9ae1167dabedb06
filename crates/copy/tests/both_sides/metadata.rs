//! Permissions and times: what is set at the destination, and what stays as it is there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::support::{pull, push, set_time};

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
