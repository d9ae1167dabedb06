//! What goes wrong with many hosts: sets that mean nothing, disks that fill, output that never
//! ends, hosts that never answer.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::Output;

use socket2::{Domain, Socket, Type};

use crate::many_hosts::{Room, json};
use crate::support::screen::Screen;
use crate::support::{HOST, Running, in_shell, pipe_through, program, run, text, tools};

/// Asserts that nothing was begun: one line that says this, and 125.
fn assert_refused(output: &Output, said: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}: {output:?}");
    assert!(errors.contains(said), "{said}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

/// Runs a command, shows the hosts, checks them and copies a file to them.
fn ways(room: &Room, set: &str) -> [Output; 4] {
    let labsh = |words: &[&str]| pipe_through(room.labshd.labsh().args(words), b"");
    let to = format!("{set}:{}", room.labshd.file("copied"));
    [
        labsh(&["run", set, "true"]),
        labsh(&["hosts", set]),
        labsh(&["hosts", "check", set]),
        labsh(&["cp", "/etc/hostname", &to]),
    ]
}

#[test]
fn a_set_that_means_nothing_is_refused_before_anybody_is_asked() {
    let room = Room::of(1);
    let hosts = room.labshd.file("config/labsh/hosts.toml");
    fs::write(&hosts, "[groups]\nnobody = \"\"\nlab = \"h01\"\n").unwrap();
    for (set, said) in [
        ("h01!h01", "\"h01!h01\" is no host at all; see `labsh hosts`"),
        ("@nobody", "\"@nobody\" is no host at all; see `labsh hosts`"),
        ("@labb", "there is no group \"labb\"; perhaps @lab"),
        ("h[1-1000000000]", "is more than 100000 hosts; is there a digit too many?"),
        ("h01,", "a host is missing at the end; write for example lab[01-40]"),
        ("h[5-1]", "[5-1]: it counts backwards; write numbers and ranges"),
        ("h]1", "\"h]1\": the bracket at position 2 is unmatched; write for example lab[01-40]"),
        ("^/nowhere/hosts", "cannot read the hosts in /nowhere/hosts: No such file or directory"),
        // With a colon behind it the bracket might enclose that, so only cp finds it there.
        ("h[01-40", "the bracket "),
    ] {
        for output in ways(&room, set) {
            assert_refused(&output, said);
        }
    }
    for (inventory, said) in [
        (
            "[groups]\na = \"@b\"\nb = \"@a\"\n",
            "hosts.toml:2: the groups form a cycle: @a → @b → @a",
        ),
        (
            "\n[groups]\na = \"h[01-\"\n",
            "hosts.toml:3: \"h[01-\": the bracket at position 2 is unmatched",
        ),
        (
            "[hosts.h01]\nprot = 5274\n",
            "hosts.toml:2: unknown field `prot`, expected one of `address`, `port`",
        ),
        ("[hosts.h01]\nport = 99999\n", "hosts.toml:2: invalid value: integer `99999`"),
    ] {
        fs::write(&hosts, inventory).unwrap();
        for output in ways(&room, "@a") {
            assert_refused(&output, said);
        }
    }
    assert_eq!(room.labshd.log().count("authenticated"), 0);
}

#[test]
fn two_names_of_one_machine_are_pointed_out() {
    let room = Room::of(1);
    let line = room.labshd.log().wait_for("listening address=127.1.7.1:");
    let port = line.rsplit(':').next().unwrap().trim().to_owned();
    let table = |name: &str| {
        format!(
            "[hosts.{name}]\naddress = \"127.1.7.1\"\nport = {port}\nhost_id = \"{HOST}\"\nkey = \
             \"test\"\n"
        )
    };
    fs::write(room.labshd.file("config/labsh/hosts.toml"), table("one") + &table("other")).unwrap();
    let [ran, _, checked, copied] = ways(&room, "one,other");
    for (output, so) in [
        (ran, "runs the command once for each"),
        (checked, "is asked once for each"),
        (copied, "copies once for each"),
    ] {
        let told = format!("labsh: one,other have one address, 127.1.7.1:{port}, which {so}\n");
        assert!(text(&output.stderr).starts_with(&told), "{output:?}");
    }
}

/// Asserts that a run was left because this could not be written, and is still the last run.
fn assert_incomplete(room: &Room, output: &Output, said: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(errors.contains(said), "{errors}");
    assert!(errors.contains("complete"), "{errors}");
    assert!(
        text(&room.output(&["--dry-run", "@last", "true"]).stdout).starts_with("h[01-03] (3)\n"),
        "{errors}"
    );
}

#[test]
fn a_limit_for_files_is_told_like_a_full_disk() {
    let room = Room::of(3);
    let directory = room.labshd.file("out");
    for (words, redirected, said) in [
        (&["--out", &directory, "h[01-03]", "seq 100000"][..], "", "h0"),
        (&["h[01-03]", "seq 100000"], ">\"$0\"", "cannot write to standard output"),
    ] {
        // 16 KiB and no more (in bash's units of 1 KiB); the host is not limited.
        let script = format!(
            "ulimit -f 16; \"$@\" </dev/null {}",
            redirected.replace("$0", &room.labshd.file("big"))
        );
        let output = in_shell(&script, &room.command(words)).output().unwrap();
        assert_incomplete(&room, &output, said);
        assert!(text(&output.stderr).contains("File too large"), "{output:?}");
    }
    // One host alone, likewise.
    let script = format!("ulimit -f 16; \"$@\" </dev/null >'{}'", room.labshd.file("big"));
    let output = in_shell(&script, &room.command(&["h01", "seq 100000"])).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(text(&output.stderr).contains("File too large"), "{output:?}");
}

/// A file system of 128 KiB, gone with the test.
struct Small(String);

impl Small {
    /// None where it cannot be mounted, as by an ordinary user or in a container.
    fn mount(path: &str) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mounted =
            program("mount").args(["-t", "tmpfs", "-o", "size=128k", "labsh-test", path]).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            tools::skip("a small file system cannot be mounted here; root can");
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = program("umount").arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_fills_ends_the_run_and_says_where() {
    let room = Room::of(3);
    let Some(disk) = Small::mount(&room.labshd.file("small")) else {
        return;
    };
    let output = room.output(&["--out", &disk.0, "h[01-03]", "seq 100000"]);
    assert_incomplete(&room, &output, "No space left on device");
    // What there is stands in the files, from the beginning on.
    let whole = run(program("seq").arg("100000")).stdout;
    for host in ["h01", "h02", "h03"] {
        assert!(
            whole
                .starts_with(&fs::read(Path::new(&disk.0).join(format!("{host}.stdout"))).unwrap())
        );
    }
}

#[test]
fn a_disk_that_has_no_room_for_standard_input_is_told_apart_from_the_input() {
    let room = Room::of(2);
    let Some(disk) = Small::mount(&room.labshd.file("small")) else {
        return;
    };
    let mut command = room.command(&["h[01-02]", "cat >/dev/null"]);
    let output = pipe_through(command.env("TMPDIR", &disk.0), &[b'x'; 300_000]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let said = "the temporary file that holds it cannot be written (TMPDIR names its directory): \
        No space left";
    assert!(text(&output.stderr).contains(said), "{output:?}");
}

#[test]
fn input_that_cannot_be_read_is_told_as_that_and_not_as_a_lost_connection() {
    let room = Room::of(2);
    let mut command = room.command(&["h[01-02]", "cat >/dev/null"]);
    let output = command.stdin(File::open("/").unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("cannot read standard input: Is a directory"), "{said}");
    assert!(!said.contains("connection"), "{said}");
}

#[test]
fn bytes_that_are_no_text_arrive_as_they_are_and_never_steer_a_terminal() {
    let room = Room::of(3);
    let line = "printf 'a\\0\\377\\033[2Jb\\n'";
    let lines = room.output(&["h[01-02]", line]).stdout;
    let expected: [&[u8]; 2] = [b"h01: a\0\xff\x1b[2Jb", b"h02: a\0\xff\x1b[2Jb"];
    let mut shown: Vec<&[u8]> =
        lines.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').collect();
    shown.sort_unstable();
    assert_eq!(shown, expected);
    let gathered = room.output(&["--gather", "h[01-02]", line]).stdout;
    assert_eq!(gathered, b"---- h[01-02] (2 hosts) ----\na\0\xff\x1b[2Jb\n");

    let Some(screen) = Screen::start(&room.labshd, "") else { return };
    screen.line("labsh run 'h[01-02]' \"printf '\\033[2J\\033]0;x\\a你好\\n'\"; echo over and out");
    let shown = screen.wait_for_line("over and out");
    assert!(shown.contains("h01: \\u{1b}[2J\\u{1b}]0;x\\u{7}你好"), "{shown}");
    assert!(shown.contains("h02: \\u{1b}[2J\\u{1b}]0;x\\u{7}你好"), "{shown}");
    assert!(shown.contains("2 of 2 succeeded"), "{shown}");
}

#[test]
fn the_progress_line_leaves_nothing_behind() {
    let room = Room::of(3);
    let Some(screen) = Screen::start(&room.labshd, "") else { return };
    let go = room.labshd.file("go");
    let waits = format!("until [ -e {go} ]; do sleep 0.1; done; echo well");
    screen.line(&format!("clear; labsh run --gather 'h[01-03]' sh -c '{waits}'"));
    screen.wait_for("0/3 done, 3 running, h0");
    // A narrower window breaks the line into two.
    screen.resize(20, 24);
    screen.wait_for("0/3 done, 3 runnin");
    screen.resize(80, 24);
    screen.wait_for("0/3 done, 3 running, h0");
    screen.press("C-c");
    screen.wait_for("still running on h[01-03] (3); Ctrl-C again interrupts it everywhere");
    fs::write(&go, "").unwrap();
    screen.wait_for("3 of 3 succeeded");
    let shown = screen.wait_for_prompt("here>");
    assert!(shown.contains("---- h[01-03] (3 hosts) ----\nwell\n"), "{shown}");
    assert!(!shown.contains("/3 done"), "{shown}");

    // Where a program stands between us and the terminal, that line would be in the midst of what
    // it shows.
    fs::remove_file(&go).unwrap();
    screen.line(&format!("clear; labsh run 'h[01-03]' sh -c 'echo up; {waits}' | cat"));
    let shown = screen.wait_until("three lines", |shown| shown.matches(": up").count() == 3);
    assert!(!shown.contains("/3 done"), "{shown}");
    fs::write(&go, "").unwrap();
    let shown = screen.wait_for_prompt("here>");
    assert!(!shown.contains("/3 done"), "{shown}");
}

#[test]
fn fifteen_faults_among_sixty_hosts_are_told_exactly_and_delay_nobody() {
    let room = Room::of(45);
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let dead_port = dead.local_addr().unwrap().as_socket().unwrap().port();
    let mute = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let mute_port = mute.local_addr().unwrap().port();
    let tls = room.labshd.tls;
    let mut hosts = String::new();
    for number in 1..=5 {
        for (name, address, port, id) in [
            ("dead", format!("127.1.8.{number}"), dead_port, HOST),
            // First in the order in which hosts are begun.
            ("a-mute", format!("127.1.9.{number}"), mute_port, HOST),
            ("stranger", tls.ip().to_string(), tls.port(), "elsewhere"),
        ] {
            hosts += &format!(
                "[hosts.{name}{number}]\naddress = '{address}'\nport = {port}\nhost_id = '{id}'\n"
            );
        }
    }
    fs::write(room.labshd.file("config/labsh/hosts.toml"), hosts).unwrap();

    // Nobody gives up on the mute ones by himself, and they fill every place for connections: all
    // others are over first.
    let words = ["--connecting", "5", "--parallel", "5", "--connect-timeout", "1h", "--json"];
    let mut run = Running::start(
        &mut room.command(&[&words[..], &["@*!dead!mute!stranger", "true"]].concat()),
    );
    let mut over = 0;
    while over < 55 {
        let event = json(run.line().as_bytes());
        if event["event"] == "over" {
            assert!(!event["host"].as_str().unwrap().contains("mute"), "{event}");
            over += 1;
        }
    }
    drop(mute);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let summary = json(text(&output.stdout).lines().last().unwrap().as_bytes());
    let outcomes = &summary["outcomes"];
    assert_eq!(summary["count"], 60);
    assert_eq!(outcomes["ok"], serde_json::json!({ "count": 45, "hosts": "h[01-45]" }));
    assert_eq!(outcomes["refused"], serde_json::json!({ "count": 5, "hosts": "stranger[1-5]" }));
    assert_eq!(
        outcomes["unreachable"],
        serde_json::json!({ "count": 10, "hosts": "a-mute[1-5],dead[1-5]" })
    );
    assert_eq!(outcomes.as_object().unwrap().len(), 3, "{outcomes}");
}
