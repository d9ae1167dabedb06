//! Files from here to there and back: what arrives, what is left alone, what is continued, and how
//! failures are told.

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
struct Room {
    labshd: Labshd,
    _dead: Socket,
}

/// The far side, each host's in a directory of its own that has its address for a name.
const APART: &str = "subsystems.labsh-copy = ['/bin/sh', '-c', 'set -- $LABSH_CONNECTION; cd \
    \"$0\" && mkdir -p $3 && cd $3 && exec \"LABSHD\" copy-serve', 'HERE']";

impl Room {
    /// With more lines in labshd's configuration; HERE stands for the directory of its files.
    fn with(more: &str) -> Self {
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

    fn new() -> Self {
        Self::with("")
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.labshd.labsh();
        command.arg("cp").args(words).current_dir(self.labshd.path());
        command
    }

    /// `labsh cp …`, in the directory of labshd's own files.
    fn copy(&self, words: &[&str]) -> Output {
        pipe_through(&mut self.command(words), b"")
    }

    /// The same, which must succeed; what it said.
    fn copied(&self, words: &[&str]) -> String {
        text(&run(&mut self.command(words)).stderr)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.labshd.path().join(name)
    }

    /// A place over there with the same directory.
    fn there(&self, host: &str, name: &str) -> String {
        format!("{host}:{}", self.labshd.file(name))
    }
}

fn lines(output: &Output) -> String {
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

/// Everything in a tree by its path, with rights, time and contents.
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
fn a_tree_arrives_as_it_is_both_ways_and_is_left_alone_after_that() {
    let room = Room::new();
    tree_at(&room.path("from"));
    let said = room.copied(&["from", &room.there("h01", "there")]);
    assert!(said.starts_with("labsh: 7 copied (2.9 MiB), in "), "{said}");
    assert_eq!(tree(&room.path("from")), tree(&room.path("there")));
    let said = room.copied(&[&room.there("h01", "there"), "back"]);
    assert!(said.starts_with("labsh: 7 copied (2.9 MiB), in "), "{said}");
    assert_eq!(tree(&room.path("from")), tree(&room.path("back")));
    // Again: into the directory that is there now, where it is new, and then where it is not.
    room.copied(&[&room.there("h01", "there"), "back"]);
    let said = room.copied(&[&room.there("h01", "there"), "back"]);
    assert!(said.starts_with("labsh: 0 copied (0 B), 7 unchanged, in "), "{said}");
    assert_eq!(tree(&room.path("from")), tree(&room.path("back/there")));
    assert_eq!(room.copied(&["-q", &room.there("h01", "there"), "back"]), "");
}

#[test]
fn many_hosts_get_the_same_and_each_ones_files_come_into_a_directory_of_its_own() {
    let room = Room::with(APART);
    tree_at(&room.path("from"));
    let out = room.copy(&["from", "h[01-03],dead:all/"]);
    let said = lines(&out);
    assert_eq!(out.status.code(), Some(255), "{said}");
    assert!(said.contains("labsh: unreachable: dead: cannot connect to 127.1.8.4:"), "{said}");
    assert!(
        said.contains("labsh: 3 of 4 succeeded in ") && said.contains("; 21 copied (8.6 MiB)"),
        "{said}"
    );
    for number in 1..=3 {
        assert_eq!(
            tree(&room.path("from")),
            tree(&room.path(&format!("127.1.8.{number}/all/from")))
        );
    }

    let last = text(&run(room.labshd.labsh().arg("last")).stdout);
    assert!(last.contains(": labsh cp from 'h[01-03],dead:all/'\n"), "{last}");
    let again = room.copy(&["from", "@last:failed:again"]);
    assert_eq!(again.status.code(), Some(255));
    assert!(lines(&again).contains("labsh: 0 of 1 succeeded"), "{}", lines(&again));

    fs::write(room.path("127.1.8.3/all/from/plain"), "its own").unwrap();
    let gathered = room.copy(&["-x", "h02", "h[01-03],dead:all/from", "gathered"]);
    assert_eq!(gathered.status.code(), Some(255));
    assert!(lines(&gathered).contains("; 14 copied (5.7 MiB)"), "{}", lines(&gathered));
    for (host, address) in [("h01", "127.1.8.1"), ("h03", "127.1.8.3")] {
        let over_there = room.path(address).join("all/from");
        assert_eq!(tree(&over_there), tree(&room.path("gathered").join(host).join("from")));
    }
    assert_eq!(fs::read_dir(room.path("gathered")).unwrap().count(), 2);
}

#[test]
fn what_cannot_be_copied_is_named_with_its_host_and_the_rest_goes_on() {
    let room = Room::new();
    fs::create_dir_all(room.path("there/taken/full")).unwrap();
    fs::write(room.path("taken"), "x").unwrap();
    fs::write(room.path("good"), "y").unwrap();
    let out = room.copy(&["taken", "missing", "good", &room.there("h01", "there")]);
    assert_eq!(out.status.code(), Some(1));
    let said = lines(&out);
    assert!(said.contains("labsh: taken: a directory is in its place\n"), "{said}");
    assert!(said.contains("labsh: missing: No such file or directory\n"), "{said}");
    assert!(said.contains("labsh: 1 copied (1 B), 2 failed, in "), "{said}");
    assert_eq!(fs::read(room.path("there/good")).unwrap(), b"y");

    let out = room.copy(&["good", &room.there("h[01-02]", "no/such/place")]);
    assert_eq!(out.status.code(), Some(1));
    let said = lines(&out);
    assert!(
        said.contains("labsh: h02: ") && said.contains("no/such/place: No such file"),
        "{said}"
    );
    assert!(said.contains("labsh: not everything was copied (2): h[01-02]\n"), "{said}");

    for (words, status, said) in [
        (&["good", "there"][..], 125, "both sides are here"),
        (&["h01:a", "h02:b"], 125, "both sides are on other hosts"),
        (&["h01:a", "dead:b", "."], 125, "on different hosts"),
        (&["good", "dead:"], 255, "cannot connect to 127.1.8.4"),
        (&["good", "@nobody:"], 125, "there is no group"),
        (&["h01:.ssh/..", "there"], 125, "by its own name"),
    ] {
        let out = room.copy(words);
        assert_eq!(out.status.code(), Some(status), "{words:?}: {}", lines(&out));
        assert!(
            lines(&out).contains(said) && lines(&out).lines().count() == 1,
            "{words:?}: {}",
            lines(&out)
        );
    }
}

#[test]
fn a_disk_that_fills_leaves_nothing_half_written() {
    // No file there may have more than 200 blocks, of 512 or 1,024 bytes.
    let limited = format!(
        "subsystems.labsh-copy = ['/bin/sh', '-c', 'ulimit -f 200; exec \"$0\" copy-serve', \
         '{LABSHD}']"
    );
    let room = Room::with(&limited);
    fs::write(room.path("large"), vec![1; 3_000_000]).unwrap();
    fs::write(room.path("small"), "small").unwrap();
    let out = room.copy(&["large", "small", &room.there("h01", "there/")]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        lines(&out).contains("labsh: large: its copy cannot be written: File too large\n"),
        "{}",
        lines(&out)
    );
    let there: Vec<_> =
        fs::read_dir(room.path("there")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["small"]);
    // The other way: the far side only reads.
    room.copied(&[&room.there("h01", "large"), "back"]);
}

#[test]
fn a_host_that_does_not_know_how_is_told_as_such() {
    let room = Room::with("subsystems.labsh-copy = '/bin/false'");
    fs::write(room.path("file"), "x").unwrap();
    let out = room.copy(&["file", "h01:"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        lines(&out).contains("labsh: the remote side has ended without a message"),
        "{}",
        lines(&out)
    );
    assert!(lines(&out).contains("restart labshd if its program was replaced"), "{}", lines(&out));
    let said = text(&pipe_through(&mut room.labshd.run(&["true"]), b"").stderr);
    assert_eq!(said, "");
}

#[test]
fn a_far_side_that_is_some_other_program_is_told_as_such() {
    let room = Room::with("subsystems.labsh-copy = '/bin/true'");
    fs::write(room.path("file"), "x").unwrap();
    for words in [["file", "h01:"], ["h01:file", "back"]] {
        let out = room.copy(&words);
        assert_eq!(out.status.code(), Some(1), "{}", lines(&out));
        let said = lines(&out);
        assert!(
            said.contains("without a message")
                && said.contains("restart labshd if its program was"),
            "{said}"
        );
        assert!(!said.contains("connection"), "{said}");
    }
}

#[test]
fn of_one_host_a_path_over_there_is_told_with_its_host() {
    let room = Room::new();
    fs::create_dir(room.path("tree")).unwrap();
    fs::write(room.path("tree/pipe-to-be"), "").unwrap();
    fs::write(room.path("good"), "y").unwrap();
    run(program("mkfifo").arg(room.path("tree/pipe")));
    let (missing, tree) = (room.there("h01", "missing"), room.there("h01", "tree/"));
    for (words, said) in [
        (&[&*missing, "here"][..], format!("labsh: {missing}: No such file or directory\n")),
        (&[&*missing, &*tree, "back/"], format!("labsh: {missing}: No such file or directory\n")),
        (&[&*missing, &*tree, "back/"], format!("labsh: {tree}pipe: ")),
        (
            &["good", &*room.there("h01", "no/place")],
            format!("labsh: {}: No such", room.there("h01", "no/place")),
        ),
    ] {
        let told = lines(&room.copy(words));
        assert!(told.contains(&said), "{said}\n{told}");
    }
    // What is here is told as it is here.
    fs::create_dir_all(room.path("taken/good/full")).unwrap();
    let told = lines(&room.copy(&[&room.there("h01", "good"), "taken"]));
    assert!(told.contains("labsh: good: a directory is in its place\n"), "{told}");
}

#[test]
fn a_file_that_its_owner_may_not_read_is_replaced() {
    // Root may read everything unless it is told not to.
    let reader = "if [ $(id -u) = 0 ]; then set -- setpriv --bounding-set \
        -dac_override,-dac_read_search; fi; \
                  exec \"$@\" \"$0\" copy-serve";
    let room =
        Room::with(&format!("subsystems.labsh-copy = ['/bin/sh', '-c', '{reader}', '{LABSHD}']"));
    for (name, options) in [("sealed", &[][..]), ("checked", &["--checksum"])] {
        fs::write(room.path(name), "new").unwrap();
        let there = room.path("there");
        fs::create_dir_all(&there).unwrap();
        fs::write(there.join(name), "old").unwrap();
        let modified = fs::metadata(room.path(name)).unwrap().modified().unwrap();
        File::options().write(true).open(there.join(name)).unwrap().set_modified(modified).unwrap();
        fs::set_permissions(there.join(name), Permissions::from_mode(0o200)).unwrap();
        room.copied(&[options, &[name, &room.there("h01", "there/")]].concat());
        assert_eq!(fs::read(there.join(name)).unwrap(), b"new", "{name}");
        assert_eq!(
            fs::metadata(there.join(name)).unwrap().mode() & 0o777,
            fs::metadata(room.path(name)).unwrap().mode() & 0o777
        );
    }
}

/// More than any disk holds, and nothing on this one.
fn endless(path: &Path) -> File {
    let file = File::create(path).unwrap();
    file.set_len(1 << 40).unwrap();
    file
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// Waits until enough of a file has come to be worth keeping.
fn coming(part: &Path) {
    eventually("a part of the file comes", || length(part) > 1 << 20);
}

#[test]
fn a_client_that_is_killed_leaves_a_beginning_that_the_next_one_continues() {
    let room = Room::new();
    let file = endless(&room.path("file"));
    fs::create_dir(room.path("there")).unwrap();
    let (to, part) = (room.there("h01", "there"), room.path("there/.file.labsh-part"));
    let labsh = Running::start(&mut room.command(&["file", &to]));
    coming(&part);
    let far_side = room.labshd.command_pid(1);
    labsh.signal(9);
    labsh.finish();
    eventually("the far side ends", || !is_alive(far_side));
    let kept = length(&part);
    assert!(kept > 1 << 20 && !room.path("there/file").exists());
    file.set_len(kept + (1 << 20)).unwrap();
    let said = room.copied(&["file", &to]);
    assert!(said.starts_with("labsh: 1 copied (1.0 MiB), in "), "{said}");
    assert!(!part.exists());
    assert_eq!(length(&room.path("there/file")), kept + (1 << 20));
    assert!(room.copied(&["--checksum", "file", &to]).contains("1 unchanged"));
}

#[test]
fn ctrl_c_keeps_a_beginning_here_and_says_so() {
    let room = Room::new();
    let file = endless(&room.path("file"));
    fs::create_dir(room.path("back")).unwrap();
    let (from, part) = (room.there("h01", "file"), room.path("back/.file.labsh-part"));
    let labsh = Running::start(&mut room.command(&[&from, "back"]));
    coming(&part);
    labsh.signal(2);
    let out = labsh.finish();
    assert_eq!(out.status.code(), Some(130), "{}", lines(&out));
    assert!(lines(&out).contains("continued by the next copy"), "{}", lines(&out));
    let kept = length(&part);
    file.set_len(kept + 5).unwrap();
    let said = room.copied(&[&from, "back"]);
    assert!(said.starts_with("labsh: 1 copied (5 B), in "), "{said}");
    assert!(!part.exists());
}

#[test]
fn on_a_terminal_one_sees_how_far_it_has_come() {
    let room = Room::new();
    let Some(screen) = Screen::start(&room.labshd, "") else { return };
    endless(&room.path("file"));
    fs::create_dir(room.path("there")).unwrap();
    screen.line(&format!("labsh cp file {}; echo status $?", room.there("h01", "there/")));
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
fn names_that_are_no_text_and_paths_with_colons_arrive() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let room = Room::new();
    let odd = OsStr::from_bytes(b"no \xff text");
    fs::create_dir(room.path("there")).unwrap();
    fs::write(room.labshd.path().join(odd), "1").unwrap();
    fs::write(room.path("a:b"), "2").unwrap();
    let mut command = room.command(&["./a:b"]);
    command.arg(odd).arg(room.there("h01", "there"));
    feed(&mut command, b"");
    assert_eq!(fs::read(room.path("there").join(odd)).unwrap(), b"1");
    assert_eq!(fs::read(room.path("there/a:b")).unwrap(), b"2");
    room.copied(&[&room.there("h01", "there/a:b"), "back"]);
    assert_eq!(fs::read(room.path("back")).unwrap(), b"2");
}
