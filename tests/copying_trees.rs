//! `labsh cp` of trees that belong to several users, or that are special at their top.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::copying::{Lab, stderr_of};
use crate::support::{LABSHD, am_root, pipe_through, program, tools, under};

/// A user who is not root, by number: nobody's.
const OTHER: u32 = 65_534;

/// The words for setpriv(1) that take away the privileges by which root changes files of others.
const UNPRIVILEGED: [&str; 2] = ["--bounding-set", "-fowner,-dac_override,-dac_read_search"];

/// Creates a directory with a file, both with these permissions.
fn make_tree(top: &Path, contents: &str, mode: u32) {
    fs::create_dir_all(top).unwrap();
    fs::write(top.join("file"), contents).unwrap();
    for path in [&top.join("file"), top] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn files_of_another_user_are_updated_and_what_cannot_be_set_is_reported_once() {
    if !am_root() {
        return;
    }
    let Some(setpriv) = tools::need("setpriv", "install util-linux") else { return };
    let setpriv = setpriv.to_str().unwrap();
    let words = [&[setpriv], &UNPRIVILEGED[..], &[LABSHD, "copy-serve"]].concat();
    let lab = Lab::with(&format!("subsystems.labsh-copy = ['{}']", words.join("', '")));
    make_tree(&lab.path("top"), "same", 0o755);
    make_tree(&lab.path("top/sub"), "same", 0o755);
    let there = lab.path("there/top");
    let to = lab.remote("h01", "there/");
    fs::create_dir(lab.path("there")).unwrap();
    let both_ways: [(&str, &[&str]); 2] =
        [("put", &["top", &to]), ("get", &[&lab.remote("h01", "top"), "there"])];
    for (way, words) in both_ways {
        let copy = |options: &[&str]| {
            let command = lab.command(&[options, words].concat());
            let mut starter = program(setpriv);
            starter.args(UNPRIVILEGED).current_dir(lab.labshd.path());
            let out = pipe_through(&mut under(starter, &command), b"");
            assert_eq!(out.status.code(), Some(0), "{way}: {}", stderr_of(&out));
            stderr_of(&out)
        };
        let _ = fs::remove_dir_all(&there);
        copy(&[]);
        for name in ["", "file", "sub", "sub/file"] {
            let path = there.join(name);
            fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            chown(&path, Some(OTHER), None).unwrap();
        }
        // Unchanged files with other permissions.
        let stderr = copy(&[]);
        assert!(stderr.contains("labsh: 0 copied (0 B), 2 unchanged"), "{way}: {stderr}");
        assert_eq!(stderr.matches("stay as they are").count(), 1, "{way}: {stderr}");
        assert!(stderr.contains("--no-perms not at all"), "{way}: {stderr}");
        assert_eq!(copy(&["--no-perms"]).lines().count(), 1, "{way}");
        // A changed file: the directory's time changes as well, and cannot be set.
        fs::write(there.join("sub/file"), "changed").unwrap();
        let stderr = copy(&[]);
        assert!(stderr.contains("labsh: 1 copied (4 B), 1 unchanged"), "{way}: {stderr}");
        assert_eq!(fs::read(there.join("sub/file")).unwrap(), b"same");
        assert_eq!(stderr.matches("stay as they are").count(), 1, "{way}: {stderr}");
        assert_eq!(copy(&["--no-perms", "--no-times"]).lines().count(), 1, "{way}");
        assert_eq!(fs::metadata(there.join("file")).unwrap().uid(), OTHER);
    }
}
