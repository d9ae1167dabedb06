//! `labsh cp` in both directions: what is copied, left unchanged and continued, and how failures
//! are reported.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use socket2::{Domain, Socket, Type};

use crate::support::screen::Screen;
use crate::support::{
    HOST, LABSHD, Labshd, Running, eventually, feed, is_alive, pipe_through, program, run, text,
};

/// Hosts h01, h02 and h03, each at an address of its own, and `dead`, which refuses connections.
pub(crate) struct Lab {
    pub(crate) labshd: Labshd,
    _dead: Socket,
}

/// A setting that has each host's side of a copy run in a directory named after its address.
const APART: &str = "subsystems.labsh-copy = ['/bin/sh', '-c', 'set -- $LABSH_CONNECTION; cd \
    \"$0\" && mkdir -p $3 && cd $3 && exec \"LABSHD\" copy-serve', 'HERE']";

impl Lab {
    /// With more lines in labshd's configuration; HERE is replaced by the directory of its files.
    pub(crate) fn with(more: &str) -> Self {
        let labshd = Labshd::launch(more, |command| {
            let file = PathBuf::from(command.get_args().last().unwrap());
            let addresses: String = (1..=3).map(|host| format!("'127.1.8.{host}:0', ")).collect();
            let configuration = fs::read_to_string(&file).unwrap();
            let configuration =
                configuration.replace("listen = [", &format!("listen = [{addresses}"));
            let here = file.parent().unwrap().to_str().unwrap();
            fs::write(&file, configuration.replace("HERE", here).replace("LABSHD", LABSHD))
                .unwrap();
        });
        let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        dead.bind(&"127.1.8.4:0".parse::<std::net::SocketAddrV4>().unwrap().into()).unwrap();
        let mut configuration = String::from("[defaults]\nkey = \"test\"\n");
        let mut host = |name: &str, address: &str, port: u16| {
            configuration += &format!(
                "[hosts.{name}]\naddress = \"{address}\"\nport = {port}\nhost_id = \"{HOST}\"\n"
            );
        };
        for number in 1..=3 {
            let address = format!("127.1.8.{number}");
            let line = labshd.log().wait_for(&format!("listening address={address}:"));
            host(
                &format!("h0{number}"),
                &address,
                line.rsplit(':').next().unwrap().trim().parse().unwrap(),
            );
        }
        host("dead", "127.1.8.4", dead.local_addr().unwrap().as_socket().unwrap().port());
        fs::write(labshd.file("config/labsh/config.toml"), configuration).unwrap();
        Self { labshd, _dead: dead }
    }

    pub(crate) fn new() -> Self {
        Self::with("")
    }

    pub(crate) fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.labshd.labsh();
        command.arg("cp").args(words).current_dir(self.labshd.path());
        command
    }

    /// Runs `labsh cp WORDS…` in the directory of labshd's files.
    pub(crate) fn copy(&self, words: &[&str]) -> Output {
        pipe_through(&mut self.command(words), b"")
    }

    /// The same, which must succeed; returns its stderr.
    pub(crate) fn copied(&self, words: &[&str]) -> String {
        text(&run(&mut self.command(words)).stderr)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.labshd.path().join(name)
    }

    /// A path on a host, in the directory of labshd's files.
    pub(crate) fn remote(&self, host: &str, name: &str) -> String {
        format!("{host}:{}", self.labshd.file(name))
    }
}

pub(crate) fn stderr_of(output: &Output) -> String {
    text(&output.stderr)
}

/// A tree with one of everything.
fn tree_at(top: &Path) {
    fs::create_dir_all(top.join("sub/hollow")).unwrap();
    for (name, contents, mode) in [
        ("plain", &b"contents"[..], 0o640),
        ("empty", b"", 0o600),
        ("program", b"#!/bin/sh\n", 0o755),
        ("sub/two\nlines", b"1", 0o644),
        ("sub/large", &[7; 3_000_000], 0o644),
    ] {
        fs::write(top.join(name), contents).unwrap();
        fs::set_permissions(top.join(name), Permissions::from_mode(mode)).unwrap();
    }
    symlink("plain", top.join("link")).unwrap();
    symlink("/no/such/thing", top.join("sub/dangling")).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    for name in ["plain", "sub", ""] {
        File::open(top.join(name)).unwrap().set_modified(then).unwrap();
    }
}

/// Everything in a tree by its path, with mode, time and contents.
fn tree(top: &Path) -> Vec<(PathBuf, u32, i64, i64, Vec<u8>)> {
    let (mut found, mut left) = (Vec::new(), vec![top.to_path_buf()]);
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let contents = if about.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let below = path.strip_prefix(top).unwrap().to_path_buf();
        found.push((below, about.mode(), about.mtime(), about.mtime_nsec(), contents));
    }
    found.sort();
    found
}

#[test]
fn a_tree_is_copied_exactly_both_ways_and_then_left_unchanged() {
    let lab = Lab::new();
    tree_at(&lab.path("from"));
    let stderr = lab.copied(&["from", &lab.remote("h01", "there")]);
    assert!(stderr.starts_with("labsh: 7 copied (2.9 MiB), in "), "{stderr}");
    assert_eq!(tree(&lab.path("from")), tree(&lab.path("there")));
    let stderr = lab.copied(&[&lab.remote("h01", "there"), "back"]);
    assert!(stderr.starts_with("labsh: 7 copied (2.9 MiB), in "), "{stderr}");
    assert_eq!(tree(&lab.path("from")), tree(&lab.path("back")));
    // Again, now into the existing directory: at first it is new there, then unchanged.
    lab.copied(&[&lab.remote("h01", "there"), "back"]);
    let stderr = lab.copied(&[&lab.remote("h01", "there"), "back"]);
    assert!(stderr.starts_with("labsh: 0 copied (0 B), 7 unchanged, in "), "{stderr}");
    assert_eq!(tree(&lab.path("from")), tree(&lab.path("back/there")));
    assert_eq!(lab.copied(&["-q", &lab.remote("h01", "there"), "back"]), "");
}

#[test]
fn copies_go_to_many_hosts_and_come_back_into_a_directory_for_each() {
    let lab = Lab::with(APART);
    tree_at(&lab.path("from"));
    let out = lab.copy(&["from", "h[01-03],dead:all/"]);
    let stderr = stderr_of(&out);
    assert_eq!(out.status.code(), Some(255), "{stderr}");
    assert!(stderr.contains("labsh: unreachable: dead: cannot connect to 127.1.8.4:"), "{stderr}");
    assert!(
        stderr.contains("labsh: 3 of 4 succeeded in ") && stderr.contains("; 21 copied (8.6 MiB)"),
        "{stderr}"
    );
    for number in 1..=3 {
        assert_eq!(tree(&lab.path("from")), tree(&lab.path(&format!("127.1.8.{number}/all/from"))));
    }

    let last = text(&run(lab.labshd.labsh().arg("last")).stdout);
    assert!(last.contains(": labsh cp from 'h[01-03],dead:all/'\n"), "{last}");
    let again = lab.copy(&["from", "@last:failed:again"]);
    assert_eq!(again.status.code(), Some(255));
    assert!(stderr_of(&again).contains("labsh: 0 of 1 succeeded"), "{}", stderr_of(&again));

    fs::write(lab.path("127.1.8.3/all/from/plain"), "its own").unwrap();
    let gathered = lab.copy(&["-x", "h02", "h[01-03],dead:all/from", "gathered"]);
    assert_eq!(gathered.status.code(), Some(255));
    assert!(stderr_of(&gathered).contains("; 14 copied (5.7 MiB)"), "{}", stderr_of(&gathered));
    for (host, address) in [("h01", "127.1.8.1"), ("h03", "127.1.8.3")] {
        let remote = lab.path(address).join("all/from");
        assert_eq!(tree(&remote), tree(&lab.path("gathered").join(host).join("from")));
    }
    assert_eq!(fs::read_dir(lab.path("gathered")).unwrap().count(), 2);
}

#[test]
fn a_file_that_cannot_be_copied_is_named_and_the_others_are_copied() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("there/taken/full")).unwrap();
    fs::write(lab.path("taken"), "x").unwrap();
    fs::write(lab.path("good"), "y").unwrap();
    let out = lab.copy(&["taken", "missing", "good", &lab.remote("h01", "there")]);
    assert_eq!(out.status.code(), Some(1));
    let stderr = stderr_of(&out);
    assert!(stderr.contains("labsh: taken: a directory is in its place\n"), "{stderr}");
    assert!(stderr.contains("labsh: missing: No such file or directory\n"), "{stderr}");
    assert!(stderr.contains("labsh: 1 copied (1 B), 2 failed, in "), "{stderr}");
    assert_eq!(fs::read(lab.path("there/good")).unwrap(), b"y");

    let out = lab.copy(&["good", &lab.remote("h[01-02]", "no/such/place")]);
    assert_eq!(out.status.code(), Some(1));
    let stderr = stderr_of(&out);
    assert!(
        stderr.contains("labsh: h02: ") && stderr.contains("no/such/place: No such file"),
        "{stderr}"
    );
    assert!(stderr.contains("labsh: not everything was copied (2): h[01-02]\n"), "{stderr}");

    for (words, status, stderr) in [
        (&["good", "there"][..], 125, "both sides are here"),
        (&["h01:a", "h02:b"], 125, "both sides are on other hosts"),
        (&["h01:a", "dead:b", "."], 125, "on different hosts"),
        (&["good", "dead:"], 255, "cannot connect to 127.1.8.4"),
        (&["good", "@nosuch:"], 125, "there is no group"),
        (&["h01:", "there"], 125, "by its own name"),
    ] {
        let out = lab.copy(words);
        assert_eq!(out.status.code(), Some(status), "{words:?}: {}", stderr_of(&out));
        assert!(
            stderr_of(&out).contains(stderr) && stderr_of(&out).lines().count() == 1,
            "{words:?}: {}",
            stderr_of(&out)
        );
    }
}

#[test]
fn a_full_disk_leaves_no_partial_file() {
    // Files on the host may have at most 200 blocks, of 512 or 1,024 bytes.
    let limited = format!(
        "subsystems.labsh-copy = ['/bin/sh', '-c', 'ulimit -f 200; exec \"$0\" copy-serve', \
         '{LABSHD}']"
    );
    let lab = Lab::with(&limited);
    fs::write(lab.path("large"), vec![1; 3_000_000]).unwrap();
    fs::write(lab.path("small"), "small").unwrap();
    let out = lab.copy(&["large", "small", &lab.remote("h01", "there/")]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        stderr_of(&out).contains("labsh: large: its copy cannot be written: File too large\n"),
        "{}",
        stderr_of(&out)
    );
    let there: Vec<_> =
        fs::read_dir(lab.path("there")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["small"]);
    // In the other direction the remote side only reads.
    lab.copied(&[&lab.remote("h01", "large"), "back"]);
}

#[test]
fn a_host_without_labsh_copy_is_reported() {
    let lab = Lab::with("subsystems.labsh-copy = '/bin/false'");
    fs::write(lab.path("file"), "x").unwrap();
    let out = lab.copy(&["file", "h01:"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        stderr_of(&out).contains("labsh: the remote side has ended without a message"),
        "{}",
        stderr_of(&out)
    );
    assert!(
        stderr_of(&out).contains("restart labshd if its program was replaced"),
        "{}",
        stderr_of(&out)
    );
    let stderr = text(&pipe_through(&mut lab.labshd.run(&["true"]), b"").stderr);
    assert_eq!(stderr, "");
}

#[test]
fn a_remote_side_that_is_another_program_is_reported() {
    let lab = Lab::with("subsystems.labsh-copy = '/bin/true'");
    fs::write(lab.path("file"), "x").unwrap();
    for words in [["file", "h01:"], ["h01:file", "back"]] {
        let out = lab.copy(&words);
        assert_eq!(out.status.code(), Some(1), "{}", stderr_of(&out));
        let stderr = stderr_of(&out);
        assert!(
            stderr.contains("without a message")
                && stderr.contains("restart labshd if its program was"),
            "{stderr}"
        );
        assert!(!stderr.contains("connection"), "{stderr}");
    }
}

#[test]
fn a_remote_path_is_reported_with_its_host() {
    let lab = Lab::new();
    fs::create_dir(lab.path("tree")).unwrap();
    fs::write(lab.path("tree/pipe-to-be"), "").unwrap();
    fs::write(lab.path("good"), "y").unwrap();
    run(program("mkfifo").arg(lab.path("tree/pipe")));
    let (missing, tree) = (lab.remote("h01", "missing"), lab.remote("h01", "tree/"));
    for (words, message) in [
        (&[&*missing, "here"][..], format!("labsh: {missing}: No such file or directory\n")),
        (&[&*missing, &*tree, "back/"], format!("labsh: {missing}: No such file or directory\n")),
        (&[&*missing, &*tree, "back/"], format!("labsh: {tree}pipe: ")),
        (
            &["good", &*lab.remote("h01", "no/place")],
            format!("labsh: {}: No such", lab.remote("h01", "no/place")),
        ),
    ] {
        let stderr = stderr_of(&lab.copy(words));
        assert!(stderr.contains(&message), "{message}\n{stderr}");
        assert!(!stderr.contains("without a message"), "{stderr}");
    }
    // A local path is reported as it is.
    fs::create_dir_all(lab.path("taken/good/full")).unwrap();
    let stderr = stderr_of(&lab.copy(&[&lab.remote("h01", "good"), "taken"]));
    assert!(stderr.contains("labsh: good: a directory is in its place\n"), "{stderr}");
}

#[test]
fn a_file_that_its_owner_may_not_read_is_updated() {
    // Root may read everything unless it drops these capabilities.
    let reader = "if [ $(id -u) = 0 ]; then set -- setpriv --bounding-set \
        -dac_override,-dac_read_search; fi; \
                  exec \"$@\" \"$0\" copy-serve";
    let lab =
        Lab::with(&format!("subsystems.labsh-copy = ['/bin/sh', '-c', '{reader}', '{LABSHD}']"));
    // Of the same size and time, it is unchanged, unless contents are to be compared.
    for (name, options, contents) in
        [("sealed", &[][..], b"old"), ("checked", &["--checksum"], b"new")]
    {
        fs::write(lab.path(name), "new").unwrap();
        let there = lab.path("there");
        fs::create_dir_all(&there).unwrap();
        fs::write(there.join(name), "old").unwrap();
        let modified = fs::metadata(lab.path(name)).unwrap().modified().unwrap();
        File::options().write(true).open(there.join(name)).unwrap().set_modified(modified).unwrap();
        fs::set_permissions(there.join(name), Permissions::from_mode(0o200)).unwrap();
        lab.copied(&[options, &[name, &lab.remote("h01", "there/")]].concat());
        assert_eq!(fs::read(there.join(name)).unwrap(), contents, "{name}");
        assert_eq!(
            fs::metadata(there.join(name)).unwrap().mode() & 0o777,
            fs::metadata(lab.path(name)).unwrap().mode() & 0o777
        );
    }
}

/// A setting with which the remote side stalls after some megabytes, as long as a file is there.
pub(crate) const STALLING: &str = "subsystems.labsh-copy = ['/bin/sh', '-c', '\
    if [ ! -e HERE/stalls ]; then exec LABSHD copy-serve; fi; \
    some() { dd bs=65536 count=400; sleep 1000; }; \
    some 2>/dev/null | LABSHD copy-serve | some 2>/dev/null']";

/// Creates a file that is larger than what passes before the remote side stalls, with a hole that
/// takes no time.
pub(crate) fn endless(lab: &Lab) -> File {
    fs::write(lab.path("stalls"), "").unwrap();
    fs::write(lab.path("file"), vec![7; 64 << 20]).unwrap();
    let file = File::options().write(true).open(lab.path("file")).unwrap();
    file.set_len(1 << 40).unwrap();
    file
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// Waits until enough of a file has arrived to be continued later.
pub(crate) fn wait_for_part(part: &Path) {
    eventually("a part of the file arrives", || length(part) > 1 << 20);
}

#[test]
fn a_copy_continues_where_a_killed_client_stopped() {
    let lab = Lab::with(STALLING);
    let file = endless(&lab);
    fs::create_dir(lab.path("there")).unwrap();
    let (to, part) = (lab.remote("h01", "there"), lab.path("there/.file.labsh-part"));
    let labsh = Running::start(&mut lab.command(&["file", &to]));
    wait_for_part(&part);
    let remote_side = lab.labshd.command_pid(1);
    labsh.signal(9);
    labsh.finish();
    eventually("the remote side ends", || !is_alive(remote_side));
    let copied = length(&part);
    assert!(copied > 1 << 20 && !lab.path("there/file").exists());
    file.set_len(copied + (1 << 20)).unwrap();
    fs::remove_file(lab.path("stalls")).unwrap();
    let stderr = lab.copied(&["file", &to]);
    assert!(stderr.starts_with("labsh: 1 copied (1.0 MiB), in "), "{stderr}");
    assert!(!part.exists());
    assert_eq!(length(&lab.path("there/file")), copied + (1 << 20));
    assert!(lab.copied(&["--checksum", "file", &to]).contains("1 unchanged"));
}

#[test]
fn ctrl_c_leaves_a_partial_file_that_the_next_copy_continues() {
    let lab = Lab::with(STALLING);
    let file = endless(&lab);
    fs::create_dir(lab.path("back")).unwrap();
    let (from, part) = (lab.remote("h01", "file"), lab.path("back/.file.labsh-part"));
    let labsh = Running::start(&mut lab.command(&[&from, "back"]));
    wait_for_part(&part);
    labsh.signal(2);
    let out = labsh.finish();
    assert_eq!(out.status.code(), Some(130), "{}", stderr_of(&out));
    assert!(stderr_of(&out).contains("continued by the next copy"), "{}", stderr_of(&out));
    let copied = length(&part);
    file.set_len(copied + 5).unwrap();
    fs::remove_file(lab.path("stalls")).unwrap();
    let stderr = lab.copied(&[&from, "back"]);
    assert!(stderr.starts_with("labsh: 1 copied (5 B), in "), "{stderr}");
    assert!(!part.exists());
}

#[test]
fn a_terminal_shows_progress() {
    let lab = Lab::with(STALLING);
    let Some(screen) = Screen::start(&lab.labshd, "") else { return };
    endless(&lab);
    fs::create_dir(lab.path("there")).unwrap();
    screen.line(&format!("labsh cp file {}; echo status $?", lab.remote("h01", "there/")));
    let shown = screen.wait_until("the end is foretold", |shown| shown.contains(" left  "));
    let line = shown.lines().find(|line| line.contains(" left  ")).unwrap();
    assert!(
        line.starts_with("0 %  ") && line.contains(" of 1.0 TiB  ") && line.contains("/s  "),
        "{line}"
    );
    screen.press("C-c");
    let shown = screen.wait_for_line("status 130");
    assert!(!shown.contains(" left  "), "{shown}");
}

#[test]
fn names_that_are_not_utf_8_and_paths_with_colons_are_copied() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let lab = Lab::new();
    let odd = OsStr::from_bytes(b"no \xff text");
    fs::create_dir(lab.path("there")).unwrap();
    fs::write(lab.labshd.path().join(odd), "1").unwrap();
    fs::write(lab.path("a:b"), "2").unwrap();
    let mut command = lab.command(&["./a:b"]);
    command.arg(odd).arg(lab.remote("h01", "there"));
    feed(&mut command, b"");
    assert_eq!(fs::read(lab.path("there").join(odd)).unwrap(), b"1");
    assert_eq!(fs::read(lab.path("there/a:b")).unwrap(), b"2");
    lab.copied(&[&lab.remote("h01", "there/a:b"), "back"]);
    assert_eq!(fs::read(lab.path("back")).unwrap(), b"2");
}
