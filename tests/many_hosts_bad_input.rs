//! Failures of runs on many hosts: invalid sets, full disks, endless output, hosts that never
//! answer.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Output, Stdio};

use socket2::{Domain, Socket, Type};

use crate::many_hosts::{Lab, json};
use crate::support::screen::Screen;
use crate::support::{
    HOST, LABSH, Running, in_shell, own_files, pipe_through, program, run, text, tools,
};

/// Asserts that nothing was started: one line of stderr with this message, and 125.
fn assert_refused(output: &Output, message: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}: {output:?}");
    assert!(errors.contains(message), "{message}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

/// Runs a command on a set, lists it, checks it and copies a file to it.
fn every_subcommand(lab: &Lab, set: &str) -> [Output; 4] {
    let labsh = |words: &[&str]| pipe_through(lab.labshd.labsh().args(words), b"");
    let to = format!("{set}:{}", lab.labshd.file("copied"));
    [
        labsh(&["run", set, "true"]),
        labsh(&["hosts", set]),
        labsh(&["hosts", "check", set]),
        labsh(&["cp", "/etc/hostname", &to]),
    ]
}

#[test]
fn an_invalid_set_is_refused_before_any_connection() {
    let lab = Lab::of(1);
    let hosts = lab.labshd.file("config/labsh/hosts.toml");
    fs::write(&hosts, "[groups]\nempty = \"\"\nlab = \"h01\"\n").unwrap();
    for (set, message) in [
        ("h01!h01", "\"h01!h01\" is no host at all; see `labsh hosts`"),
        ("@empty", "\"@empty\" is no host at all; see `labsh hosts`"),
        ("@labb", "there is no group \"labb\"; perhaps @lab"),
        ("h[1-1000000000]", "is more than 100000 hosts; is there a digit too many?"),
        ("h01,", "a host is missing at the end; write for example lab[01-40]"),
        ("h[5-1]", "[5-1]: it counts backwards; write numbers and ranges"),
        ("h]1", "\"h]1\": the bracket at position 2 is unmatched; write for example lab[01-40]"),
        ("^/nowhere/hosts", "cannot read the hosts in /nowhere/hosts: No such file or directory"),
        // cp reports another position: a bracket that is not closed might enclose the colon.
        ("h[01-40", "the bracket "),
    ] {
        for output in every_subcommand(&lab, set) {
            assert_refused(&output, message);
        }
    }
    for (inventory, message) in [
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
        (
            "[hosts.h01]\nport = 99999\n",
            "hosts.toml:2: 99999 instead of a whole number from 1 to 65535",
        ),
    ] {
        fs::write(&hosts, inventory).unwrap();
        for output in every_subcommand(&lab, "@a") {
            assert_refused(&output, message);
        }
    }
    assert_eq!(lab.labshd.log().count("authenticated"), 0);
}

#[test]
fn two_names_of_one_address_are_reported() {
    let lab = Lab::of(1);
    let line = lab.labshd.log().wait_for("listening address=127.1.7.1:");
    let port = line.rsplit(':').next().unwrap().trim().to_owned();
    let table = |name: &str| {
        format!(
            "[hosts.{name}]\naddress = \"127.1.7.1\"\nport = {port}\nhost_id = \"{HOST}\"\nkey = \
             \"test\"\n"
        )
    };
    fs::write(lab.labshd.file("config/labsh/hosts.toml"), table("one") + &table("other")).unwrap();
    let [ran, _, checked, copied] = every_subcommand(&lab, "one,other");
    for (output, so) in [
        (ran, "runs the command once for each"),
        (checked, "is asked once for each"),
        (copied, "copies once for each"),
    ] {
        let message = format!("labsh: one,other have one address, 127.1.7.1:{port}, which {so}\n");
        assert!(text(&output.stderr).starts_with(&message), "{output:?}");
    }
}

/// Asserts that a run ended because its output could not be written, and that it is the last run.
fn assert_incomplete(lab: &Lab, output: &Output, message: &str) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(errors.contains(message), "{errors}");
    assert!(errors.contains("complete"), "{errors}");
    assert!(
        text(&lab.output(&["--dry-run", "@last", "true"]).stdout).starts_with("h[01-03] (3)\n"),
        "{errors}"
    );
}

#[test]
fn a_file_size_limit_is_reported_like_a_full_disk() {
    let lab = Lab::of(3);
    let directory = lab.labshd.file("out");
    for (words, redirected, message) in [
        (&["--out", &directory, "h[01-03]", "seq 100000"][..], "", "h0"),
        (&["h[01-03]", "seq 100000"], ">\"$0\"", "cannot write to standard output"),
    ] {
        // Files of at most 16 KiB (in bash's unit of 1 KiB); the host has no limit.
        let script = format!(
            "ulimit -f 16; \"$@\" </dev/null {}",
            redirected.replace("$0", &lab.labshd.file("big"))
        );
        let output = in_shell(&script, &lab.command(words)).output().unwrap();
        assert_incomplete(&lab, &output, message);
        assert!(text(&output.stderr).contains("File too large"), "{output:?}");
    }
    // The same with a single host.
    let script = format!("ulimit -f 16; \"$@\" </dev/null >'{}'", lab.labshd.file("big"));
    let output = in_shell(&script, &lab.command(&["h01", "seq 100000"])).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(text(&output.stderr).contains("File too large"), "{output:?}");
}

/// A file system of 128 KiB, unmounted at the end of the test.
struct SmallDisk(String);

impl SmallDisk {
    /// Returns none if it cannot be mounted, as by an ordinary user or in a container.
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

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = program("umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_ends_the_run_and_is_named() {
    let lab = Lab::of(3);
    let Some(disk) = SmallDisk::mount(&lab.labshd.file("small")) else {
        return;
    };
    let output = lab.output(&["--out", &disk.0, "h[01-03]", "seq 100000"]);
    assert_incomplete(&lab, &output, "No space left on device");
    // The files hold the beginning of the output.
    let whole = run(program("seq").arg("100000")).stdout;
    for host in ["h01", "h02", "h03"] {
        assert!(
            whole
                .starts_with(&fs::read(Path::new(&disk.0).join(format!("{host}.stdout"))).unwrap())
        );
    }
}

#[test]
fn a_full_disk_for_stdin_is_distinguished_from_unreadable_stdin() {
    let lab = Lab::of(2);
    let Some(disk) = SmallDisk::mount(&lab.labshd.file("small")) else {
        return;
    };
    let mut command = lab.command(&["h[01-02]", "cat >/dev/null"]);
    let output = pipe_through(command.env("TMPDIR", &disk.0), &[b'x'; 300_000]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let message = "the temporary file that holds it cannot be written (TMPDIR names its \
        directory): No space left";
    assert!(text(&output.stderr).contains(message), "{output:?}");
}

#[test]
fn unreadable_stdin_is_not_reported_as_a_lost_connection() {
    let lab = Lab::of(2);
    let mut command = lab.command(&["h[01-02]", "cat >/dev/null"]);
    let output = command.stdin(File::open("/").unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("cannot read standard input: Is a directory"), "{stderr}");
    assert!(!stderr.contains("connection"), "{stderr}");
}

#[test]
fn bytes_that_are_not_text_arrive_unchanged_and_are_escaped_on_a_terminal() {
    let lab = Lab::of(3);
    let line = "printf 'a\\0\\377\\033[2Jb\\n'";
    let lines = lab.output(&["h[01-02]", line]).stdout;
    let expected: [&[u8]; 2] = [b"h01: a\0\xff\x1b[2Jb", b"h02: a\0\xff\x1b[2Jb"];
    let mut shown: Vec<&[u8]> =
        lines.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').collect();
    shown.sort_unstable();
    assert_eq!(shown, expected);
    let gathered = lab.output(&["--gather", "h[01-02]", line]).stdout;
    assert_eq!(gathered, b"---- h[01-02] (2 hosts) ----\na\0\xff\x1b[2Jb\n");

    let Some(screen) = Screen::start(&lab.labshd, "") else { return };
    screen.line("labsh run 'h[01-02]' \"printf '\\033[2J\\033]0;x\\a你好\\n'\"; echo over and out");
    let shown = screen.wait_for_line("over and out");
    assert!(shown.contains("h01: \\u{1b}[2J\\u{1b}]0;x\\u{7}你好"), "{shown}");
    assert!(shown.contains("h02: \\u{1b}[2J\\u{1b}]0;x\\u{7}你好"), "{shown}");
    assert!(shown.contains("2 of 2 succeeded"), "{shown}");
}

#[test]
fn the_progress_line_leaves_nothing_behind() {
    let lab = Lab::of(3);
    let Some(screen) = Screen::start(&lab.labshd, "") else { return };
    let gate = lab.labshd.file("gate");
    let waits = format!("until [ -e {gate} ]; do sleep 0.1; done; echo well");
    screen.line(&format!("clear; labsh run --gather 'h[01-03]' sh -c '{waits}'"));
    screen.wait_for("0/3 done, 3 running, h0");
    // A narrower window wraps the line.
    screen.resize(20, 24);
    screen.wait_for("0/3 done, 3 runnin");
    screen.resize(80, 24);
    screen.wait_for("0/3 done, 3 running, h0");
    screen.press("C-c");
    screen.wait_for("still running on h[01-03] (3); Ctrl-C again interrupts it everywhere");
    fs::write(&gate, "").unwrap();
    screen.wait_for("3 of 3 succeeded");
    let shown = screen.wait_for_prompt("local>");
    assert!(shown.contains("---- h[01-03] (3 hosts) ----\nwell\n"), "{shown}");
    assert!(!shown.contains("/3 done"), "{shown}");

    // If stdout is a pipe to another program, the progress line would mix with that program's
    // output.
    fs::remove_file(&gate).unwrap();
    screen.line(&format!("clear; labsh run 'h[01-03]' sh -c 'echo up; {waits}' | cat"));
    let shown = screen.wait_until("three lines", |shown| shown.matches(": up").count() == 3);
    assert!(!shown.contains("/3 done"), "{shown}");
    fs::write(&gate, "").unwrap();
    let shown = screen.wait_for_prompt("local>");
    assert!(!shown.contains("/3 done"), "{shown}");
}

#[test]
fn hosts_that_connect_are_not_counted_as_running() {
    let lab = Lab::of(2);
    let Some(screen) = Screen::start(&lab.labshd, "") else { return };
    screen.line("clear; labsh run --connect-timeout 1h 'h[01-02],mute' sleep 300");
    screen.wait_for("0/3 done, 1 connecting, 2 running, h01 for");
    screen.press("C-c");
    screen.wait_for("still running on h[01-02] (2), connecting to mute (1); Ctrl-C");
    // Now all of them end, and a third Ctrl-C would meet the prompt.
    screen.press("C-c");
    screen.wait_for_prompt("local>");
}

#[test]
fn a_terminal_without_control_sequences_gets_none() {
    if tools::need("script", "apt-get install bsdutils").is_none() {
        return;
    }
    let lab = Lab::of(2);
    let file = lab.labshd.file("copied");
    let commands = [
        "run 'h[01-02]' 'echo up'".to_owned(),
        "run --gather 'h[01-02]' 'echo up'".to_owned(),
        "hosts check 'h[01-02]'".to_owned(),
        format!("cp /bin/sh 'h01:{file}'"),
    ];
    let shown = |words: &str, variables: &str| {
        let mut script = program("script");
        let line = format!("env {variables} '{LABSH}' {words}");
        own_files(script.args(["-qec", &line, "/dev/null"]), lab.labshd.path());
        let output = script.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words}: {}", text(&output.stdout));
        text(&output.stdout)
    };
    for words in &commands {
        for variables in ["TERM=dumb", "TERM=", "-u TERM"] {
            let plain = shown(words, &format!("-u NO_COLOR {variables}"));
            assert!(!plain.contains('\x1b'), "{variables} {words}: {plain:?}");
            assert!(!plain.contains("done"), "{variables} {words}: {plain:?}");
        }
    }
    let colored = shown(&commands[0], "-u NO_COLOR TERM=xterm");
    assert!(colored.contains("\x1b[36mh01\x1b[0m: up"), "{colored:?}");
    assert!(colored.contains("/2 done"), "{colored:?}");
}

#[test]
fn fifteen_faulty_hosts_among_sixty_are_counted_and_delay_no_other() {
    let lab = Lab::of(45);
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let dead_port = dead.local_addr().unwrap().as_socket().unwrap().port();
    let mute = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let mute_port = mute.local_addr().unwrap().port();
    let tls = lab.labshd.tls;
    let mut hosts = String::new();
    for number in 1..=5 {
        for (name, address, port, id) in [
            ("dead", format!("127.1.8.{number}"), dead_port, HOST),
            // First in the order in which hosts are started.
            ("a-mute", format!("127.1.9.{number}"), mute_port, HOST),
            ("stranger", tls.ip().to_string(), tls.port(), "elsewhere"),
        ] {
            hosts += &format!(
                "[hosts.{name}{number}]\naddress = '{address}'\nport = {port}\nhost_id = '{id}'\n"
            );
        }
    }
    fs::write(lab.labshd.file("config/labsh/hosts.toml"), hosts).unwrap();

    // The mute hosts time out only after an hour and take every place for connections; all other
    // hosts finish before them.
    let words = ["--connecting", "5", "--parallel", "5", "--connect-timeout", "1h", "--json"];
    let mut run = Running::start(
        &mut lab.command(&[&words[..], &["@*!dead!mute!stranger", "true"]].concat()),
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
    assert_eq!(outcomes["ok"], serde_json::json!({ "count": 45, "set": "h[01-45]" }));
    assert_eq!(outcomes["refused"], serde_json::json!({ "count": 5, "set": "stranger[1-5]" }));
    assert_eq!(
        outcomes["unreachable"],
        serde_json::json!({ "count": 10, "set": "a-mute[1-5],dead[1-5]" })
    );
    assert_eq!(outcomes.as_object().unwrap().len(), 3, "{outcomes}");
}
