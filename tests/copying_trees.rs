//! `labsh cp` of trees that belong to several users, or that are special at their top.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Output;

use crate::copying::{Lab, STALLING, endless, stderr_of, wait_for_part};
use crate::support::{
    LABSHD, Running, am_root, eventually, pipe_through, program, run, tools, under,
};

/// A user who is not root, by number.
const OTHER: u32 = 65_534;

/// Returns the words that start a program which may do no more with files than their owner: none if
/// this process is not root. `None` if a program is missing for that.
fn ordinary() -> Option<Vec<String>> {
    if !am_root() {
        return Some(Vec::new());
    }
    let setpriv = tools::need("setpriv", "install util-linux")?;
    let capabilities = "-fowner,-dac_override,-dac_read_search";
    Some([setpriv.to_str()?, "--bounding-set", capabilities].map(str::to_owned).to_vec())
}

/// A labshd whose side of a copy is started with these words.
fn lab_with(words: &[String]) -> Lab {
    let words = [words, &[LABSHD.to_owned(), "copy-serve".to_owned()]].concat();
    Lab::with(&format!("subsystems.labsh-copy = ['{}']", words.join("', '")))
}

/// Runs `labsh cp` with these words, started with the others.
fn copy(lab: &Lab, words: &[String], copy: &[&str]) -> Output {
    let mut command = lab.command(copy);
    let Some((first, others)) = words.split_first() else {
        return pipe_through(&mut command, b"");
    };
    let mut starter = program(first);
    starter.args(others).current_dir(lab.labshd.path());
    pipe_through(&mut under(starter, &command), b"")
}

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
    let Some(words) = ordinary().filter(|_| am_root()) else { return };
    let lab = lab_with(&words);
    make_tree(&lab.path("top"), "same", 0o755);
    make_tree(&lab.path("top/sub"), "same", 0o755);
    let there = lab.path("there/top");
    let to = lab.remote("h01", "there/");
    fs::create_dir(lab.path("there")).unwrap();
    let both_ways: [(&str, &[&str]); 2] =
        [("put", &["top", &to]), ("get", &[&lab.remote("h01", "top"), "there"])];
    for (way, paths) in both_ways {
        let copy = |options: &[&str]| {
            let out = copy(&lab, &words, &[options, paths].concat());
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

#[test]
fn directories_that_their_owner_may_not_change_are_copied_again() {
    let Some(words) = ordinary() else { return };
    let lab = lab_with(&words);
    fs::create_dir(lab.path("there")).unwrap();
    let modes = [("top", 0o555), ("top/sub", 0o511), ("top/sub/inner", 0o500)];
    let set = |top: &Path, mode: Option<u32>| {
        for (name, own) in modes {
            let permissions = Permissions::from_mode(mode.unwrap_or(own));
            fs::set_permissions(top.join(name), permissions).unwrap();
        }
    };
    modes.iter().for_each(|(name, _)| make_tree(&lab.path(name), "first", 0o755));
    let there = lab.path("there");
    let to = lab.remote("h01", "there");
    let both_ways: [(&str, &[&str]); 2] =
        [("put", &["top", &to]), ("get", &[&lab.remote("h01", "top"), "there"])];
    for (way, paths) in both_ways {
        for contents in ["first", "second"] {
            set(lab.labshd.path(), Some(0o755));
            modes.iter().for_each(|(name, _)| {
                fs::write(lab.path(name).join("file"), contents).unwrap();
            });
            set(lab.labshd.path(), None);
            // Twice: with changes, and without.
            for _ in 0..2 {
                let out = copy(&lab, &words, paths);
                assert_eq!(out.status.code(), Some(0), "{way}: {}", stderr_of(&out));
            }
            for (name, mode) in modes {
                assert_eq!(fs::metadata(there.join(name)).unwrap().mode() & 0o7777, mode, "{name}");
            }
            // The copies may be searched, and nothing else.
            set(&there, Some(0o111));
            let out = copy(&lab, &words, &[&["--no-perms"], paths].concat());
            assert_eq!(out.status.code(), Some(0), "{way}: {}", stderr_of(&out));
            for (name, _) in modes {
                assert_eq!(fs::metadata(there.join(name)).unwrap().mode() & 0o7777, 0o111);
            }
        }
        set(&there, Some(0o755));
        assert_eq!(fs::read(there.join("top/sub/inner/file")).unwrap(), b"second", "{way}");
        fs::remove_dir_all(there.join("top")).unwrap();
    }
    set(lab.labshd.path(), Some(0o755));
}

/// A setting with which the destination is on a read-only file system, once a file is there.
const READ_ONLY: &str = "subsystems.labsh-copy = ['UNSHARE', '-m', '/bin/sh', '-c', '\
    if [ -e HERE/fixed ]; then mount --bind HERE/there HERE/there; \
    mount -o remount,bind,ro HERE/there; fi; exec LABSHD copy-serve']";

#[test]
fn an_unchanged_tree_on_a_read_only_file_system_is_unchanged() {
    let Some(unshare) = tools::need("unshare", "install util-linux").filter(|_| am_root()) else {
        return;
    };
    let mounts = "mount --bind / / && mount -o remount,bind,ro /";
    if !program(&unshare).args(["-m", "/bin/sh", "-c", mounts]).status().unwrap().success() {
        return tools::skip("this process may not mount file systems");
    }
    let lab = Lab::with(&READ_ONLY.replace("UNSHARE", unshare.to_str().unwrap()));
    fs::create_dir(lab.path("there")).unwrap();
    make_tree(&lab.path("top"), "same", 0o555);
    let words = ["top", &lab.remote("h01", "there")];
    lab.copied(&words);
    fs::write(lab.path("fixed"), "").unwrap();
    let stderr = lab.copied(&words);
    assert!(stderr.starts_with("labsh: 0 copied (0 B), 1 unchanged, in "), "{stderr}");
    fs::write(lab.path("top/new"), "new").unwrap();
    let stderr = stderr_of(&lab.copy(&words));
    assert!(stderr.contains("labsh: top/new: its copy cannot be written: Read-only"), "{stderr}");
}

#[test]
fn an_interrupted_copy_leaves_the_mode_of_a_directory_as_it_was() {
    let Some(words) = ordinary() else { return };
    let served = format!("{} LABSHD copy-serve", words.join(" "));
    let lab = Lab::with(&STALLING.replace("| LABSHD copy-serve", &format!("| {served}")));
    endless(&lab);
    fs::create_dir_all(lab.path("there/top")).unwrap();
    fs::create_dir(lab.path("top")).unwrap();
    fs::rename(lab.path("file"), lab.path("top/file")).unwrap();
    let there = lab.path("there/top");
    fs::set_permissions(&there, Permissions::from_mode(0o555)).unwrap();
    let mode = || fs::metadata(&there).unwrap().mode() & 0o7777;
    let labsh = Running::start(&mut lab.command(&["top", &lab.remote("h01", "there")]));
    let part = there.join(".file.labsh-part");
    wait_for_part(&part);
    assert_eq!(mode(), 0o755);
    labsh.signal(9);
    labsh.finish();
    eventually("the mode is what it was", || mode() == 0o555);
    assert!(part.exists());
    fs::set_permissions(&there, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_contents_of_a_directory_go_into_the_destination_itself() {
    let lab = Lab::new();
    make_tree(&lab.path("from"), "same", 0o750);
    make_tree(&lab.path("from/sub"), "same", 0o755);
    let mode = |name: &str| fs::metadata(lab.path(name)).unwrap().mode() & 0o7777;
    let forms =
        [("", "from/."), ("", "from/./"), ("", "from/sub/.."), ("from", "."), ("from/sub", "..")];
    for (index, (directory, form)) in forms.into_iter().enumerate() {
        for way in ["put", "get"] {
            let (new, into) = (format!("new-{index}-{way}"), format!("into-{index}-{way}"));
            fs::create_dir(lab.path(&into)).unwrap();
            fs::set_permissions(lab.path(&into), Permissions::from_mode(0o711)).unwrap();
            for name in [&new, &into] {
                let from = lab.remote("h01", &Path::new(directory).join(form).to_string_lossy());
                let words = match way {
                    "put" => [form.to_owned(), lab.remote("h01", name)],
                    _ => [from, lab.labshd.file(name)],
                };
                let mut command = lab.command(&words.each_ref().map(String::as_str));
                run(command.current_dir(lab.path(directory)));
                let there = lab.path(name);
                for (file, exists) in [("file", true), ("sub/file", true), ("from", false)] {
                    assert_eq!(there.join(file).exists(), exists, "{form} {way} {name} {file}");
                }
            }
            assert_eq!((mode(&new), mode(&into)), (0o750, 0o711), "{form} {way}");
        }
    }
    lab.copied(&[&lab.remote("h[01-02]", "from/."), "gathered"]);
    for host in ["h01", "h02"] {
        assert!(lab.path("gathered").join(host).join("sub/file").exists(), "{host}");
    }
    // Beside others, and with a slash, which changes nothing.
    fs::write(lab.path("other"), "x").unwrap();
    lab.copied(&["from/.", "from/", "other", &lab.remote("h01", "mixed")]);
    for name in ["file", "other", "sub/file", "from/file", "from/sub/file"] {
        assert!(lab.path("mixed").join(name).exists(), "{name}");
    }
    // A name that is also in the contents.
    fs::create_dir(lab.path("apart")).unwrap();
    fs::write(lab.path("apart/file"), "another").unwrap();
    fs::create_dir_all(lab.path("apart/sub/new")).unwrap();
    for words in [["from/.", "apart/file", "apart/sub"], ["apart/sub", "apart/file", "from/."]] {
        let out = lab.copy(&[&words[..], &[&lab.remote("h01", "both")]].concat());
        let stderr = stderr_of(&out);
        assert_eq!(out.status.code(), Some(1), "{stderr}");
        for name in ["file", "sub"] {
            let refused = format!("labsh: from/./{name}: another file of this copy has the same");
            assert!(stderr.contains(&refused), "{stderr}");
        }
        assert_eq!(fs::read(lab.path("both/file")).unwrap(), b"another");
        assert!(lab.path("both/sub/new").exists() && !lab.path("both/sub/file").exists());
    }
    let out = lab.copy(&["from/.", &lab.remote("h01", "other")]);
    assert!(stderr_of(&out).contains("it is not a directory"), "{}", stderr_of(&out));
    let out = lab.copy(&["other/.", &lab.remote("h01", "mixed")]);
    assert!(stderr_of(&out).contains("labsh: other/.: Not a directory"), "{}", stderr_of(&out));
}

#[test]
fn a_failing_directory_is_named_and_counted_once_and_bytes_of_failed_files_are_not_counted() {
    // On the host, files may have at most 200 blocks, of 512 or 1,024 bytes.
    let limited = format!(
        "subsystems.labsh-copy = ['/bin/sh', '-c', 'ulimit -f 200; exec \"$0\" copy-serve', \
         '{LABSHD}']"
    );
    let lab = Lab::with(&limited);
    fs::create_dir_all(lab.path("top/a/taken/inner")).unwrap();
    fs::write(lab.path("top/a/taken/file"), "x").unwrap();
    fs::write(lab.path("top/large"), vec![1; 3_000_000]).unwrap();
    fs::write(lab.path("top/small"), "small").unwrap();
    fs::create_dir_all(lab.path("there/top/a")).unwrap();
    fs::write(lab.path("there/top/a/taken"), "in the way").unwrap();
    let stderr = stderr_of(&lab.copy(&["top", &lab.remote("h01", "there")]));
    assert!(stderr.contains("labsh: top/a/taken: something else is in the place"), "{stderr}");
    assert!(stderr.contains("labsh: top/large: its copy cannot be written: File too"), "{stderr}");
    // The directory, the directory and the file in it, and the large file.
    assert!(stderr.contains("labsh: 1 copied (5 B), 4 failed, in "), "{stderr}");
    fs::remove_file(lab.path("top/large")).unwrap();
    let stderr = stderr_of(&lab.copy(&[&lab.remote("h01", "top"), "there"]));
    assert!(stderr.contains("labsh: 0 copied (0 B), 1 unchanged, 3 failed, in "), "{stderr}");
}
