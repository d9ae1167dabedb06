//! One command on many hosts: whole lines, equal outputs together, every way of failing told apart,
//! and the last run.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::fleet::sorted_lines;
use crate::support::{HOST, Labshd, Running, in_shell, pipe_through, sh, text};

const HOSTS: u8 = 12;

/// Hosts h01 to h12, each at an address of its own, and three that are of no use: `dead` refuses
/// connections, `mute` accepts them and says nothing, and to `stranger` the key says nothing.
pub struct Room {
    pub labshd: Labshd,
    _dead: Socket,
    _mute: TcpListener,
}

impl Room {
    pub fn new() -> Self {
        Self::of(HOSTS)
    }

    /// With so many hosts instead of twelve.
    pub fn of(hosts: u8) -> Self {
        let labshd = Labshd::launch("", |command| {
            let file = PathBuf::from(command.get_args().last().unwrap());
            let addresses: String =
                (1..=hosts).map(|host| format!("'{}:0', ", address(host))).collect();
            let configuration = fs::read_to_string(&file).unwrap();
            fs::write(
                &file,
                configuration.replace("listen = [", &format!("listen = [{addresses}")),
            )
            .unwrap();
        });
        let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        dead.bind(&SocketAddrV4::new(address(hosts + 1), 0).into()).unwrap();
        let dead_port = dead.local_addr().unwrap().as_socket().unwrap().port();
        let mute = TcpListener::bind((address(hosts + 2), 0)).unwrap();

        let mut configuration = String::from("[defaults]\nkey = \"test\"\n");
        let mut host = |name: &str, address: Ipv4Addr, port: u16, id: &str| {
            configuration += &format!(
                "[hosts.{name}]\naddress = \"{address}\"\nport = {port}\nhost_id = \"{id}\"\n"
            );
        };
        for number in 1..=hosts {
            let line = labshd.log().wait_for(&format!("listening address={}:", address(number)));
            let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
            host(&format!("h{number:02}"), address(number), port, HOST);
        }
        host("dead", address(hosts + 1), dead_port, HOST);
        let mute_port = mute.local_addr().unwrap().port();
        host("mute", address(hosts + 2), mute_port, HOST);
        host(
            "stranger",
            labshd.tls.ip().to_string().parse().unwrap(),
            labshd.tls.port(),
            "elsewhere",
        );
        fs::write(labshd.file("config/labsh/config.toml"), configuration).unwrap();
        Self { labshd, _dead: dead, _mute: mute }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.labshd.labsh();
        command.arg("run").args(words);
        command
    }

    pub fn output(&self, words: &[&str]) -> Output {
        pipe_through(&mut self.command(words), b"")
    }
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, 7, host)
}

pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn every_way_of_failing_is_told_apart_and_delays_nobody() {
    let room = Room::new();
    // Whoever makes the directory first has been singled out.
    let line = format!("mkdir '{}' 2>/dev/null && exit 3; echo well", room.labshd.file("once"));
    let output = room.output(&["h[01-12],dead,mute,stranger", &line]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert_eq!(text(&output.stdout).lines().filter(|line| line.ends_with(" well")).count(), 11);
    let errors = text(&output.stderr);
    assert!(errors.contains("labsh: 11 of 15 succeeded in "), "{errors}");
    assert!(errors.contains("labsh: exit 3: h"), "{errors}");
    assert!(errors.contains("labsh: unreachable: dead: cannot connect to 127.1.7.13:"), "{errors}");
    assert!(errors.contains("labsh: unreachable: mute: no answer from 127.1.7.14:"), "{errors}");
    assert!(errors.contains("labsh: refused: stranger: "), "{errors}");

    // What failed is what is tried again, and each class by itself.
    let again = room.output(&["--dry-run", "@last:failed!@last:exited", "true"]);
    assert!(text(&again.stdout).starts_with("dead,mute,stranger (3)\n"), "{again:?}");
    let unreachable = room.output(&["--dry-run", "@last:unreachable", "true"]);
    assert!(text(&unreachable.stdout).starts_with("dead,mute (2)\n"), "{unreachable:?}");
    let refused = room.output(&["@last:refused", "true"]);
    assert_eq!(refused.status.code(), Some(125));
}

#[test]
fn the_last_run_is_kept_for_its_user_alone() {
    let room = Room::new();
    let line = format!("mkdir '{}' 2>/dev/null && exit 3; true", room.labshd.file("once"));
    assert_eq!(room.output(&["h[01-04]", &line]).status.code(), Some(1));
    let file = room.labshd.file("state/labsh/last.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let last = || room.labshd.labsh().args(["last", "--json"]).output().unwrap().stdout;
    let first = json(&last());
    assert_eq!(first["command"], line.as_str());
    let codes: Vec<_> =
        first["hosts"].as_object().unwrap().values().map(|host| &host["code"]).collect();
    assert_eq!(codes.iter().filter(|code| ***code == 3).count(), 1);

    // One host alone is a look at one that failed: the run is still there.
    assert!(room.output(&["h01", "true"]).status.success());
    assert_eq!(json(&last()), first);
    let retried = room.output(&["@last:failed", "true"]);
    assert!(text(&retried.stderr).contains("labsh: 1 of 1 succeeded"), "{retried:?}");

    let nothing = room.output(&["@last:failed", "true"]);
    assert_eq!(nothing.status.code(), Some(125));
    assert!(text(&nothing.stderr).contains("is no host at all; `labsh last` shows"), "{nothing:?}");
    let unknown = room.output(&["@last:broken", "true"]);
    assert!(text(&unknown.stderr).contains("there is no such outcome"), "{unknown:?}");
    let shown = room.labshd.labsh().arg("last").output().unwrap();
    assert!(text(&shown.stdout).contains(": true\n1 of 1 succeeded"), "{shown:?}");
}

#[test]
fn a_line_is_never_mixed_with_another_host_s() {
    let room = Room::new();
    let output =
        room.output(&["h[01-06]", "seq -f 'number %g of a longer line' 2000; printf unfinished"]);
    assert!(output.status.success(), "{output:?}");
    let mut expected = Vec::new();
    for host in 1..=6 {
        expected.extend(
            (1..=2000).map(|number| format!("h{host:02}: number {number} of a longer line")),
        );
        expected.push(format!("h{host:02}: unfinished"));
    }
    expected.sort();
    assert!(sorted_lines(&output.stdout) == expected);

    // A line without end comes in pieces, of which none is lost.
    let endless = room.output(&["h[01-02]", "head -c 200000 /dev/zero | tr '\\0' x"]);
    let pieces = text(&endless.stdout);
    assert_eq!(pieces.lines().count(), 8);
    assert_eq!(pieces.matches('x').count(), 400_000);
}

#[test]
fn equal_outputs_are_shown_once() {
    let room = Room::new();
    let line =
        format!("mkdir '{}' 2>/dev/null && printf 'same\\nother\\n' || printf 'same\\nmost\\n'", {
            room.labshd.file("once")
        });
    let gathered = text(&room.output(&["--gather", "h[01-12]", &line]).stdout);
    let lines: Vec<&str> = gathered.lines().collect();
    assert!(
        lines[0].starts_with("---- h[") && lines[0].ends_with(" (11 hosts) ----"),
        "{gathered}"
    );
    assert_eq!(lines[1..3], ["same", "most"]);
    assert!(lines[3].ends_with(" (1 host) ----"), "{gathered}");
    assert_eq!(lines[4..], ["same", "other"]);

    fs::remove_dir(room.labshd.file("once")).unwrap();
    let differences = text(&room.output(&["--diff", "h[01-12]", &line]).stdout);
    assert!(differences.contains("\n-most\n+other\n"), "{differences}");

    // What stderr holds is under a heading there, wherever that goes.
    let errors = text(&room.output(&["--gather", "h[01-02]", "echo wrong >&2"]).stderr);
    assert!(errors.contains("---- h[01-02] (2), stderr ----\nwrong\n"), "{errors}");
}

#[test]
fn files_hold_every_byte_and_a_full_disk_is_told() {
    let room = Room::new();
    let directory = room.labshd.file("out");
    let words = ["--out", &directory, "h[01-03]", "printf 'a\\0\\377b'; printf oops >&2"];
    assert!(room.output(&words).status.success());
    for host in ["h01", "h02", "h03"] {
        assert_eq!(fs::read(format!("{directory}/{host}.stdout")).unwrap(), b"a\0\xffb");
        assert_eq!(fs::read(format!("{directory}/{host}.stderr")).unwrap(), b"oops");
    }
    fs::remove_file(format!("{directory}/h02.stdout")).unwrap();
    symlink("/dev/full", format!("{directory}/h02.stdout")).unwrap();
    let full = room.output(&words);
    assert_eq!(full.status.code(), Some(255), "{full:?}");
    assert!(text(&full.stderr).contains("h02.stdout"), "{full:?}");
    assert!(text(&full.stderr).contains("No space left on device"), "{full:?}");
}

#[test]
fn stdin_goes_to_all_of_them_and_waits_for_none() {
    let room = Room::new();
    let input: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    // One of them reads nothing at all.
    let line =
        format!("mkdir '{}' 2>/dev/null && exec echo nothing; wc -c", room.labshd.file("once"));
    let output = pipe_through(&mut room.command(&["h[01-08]", &line]), &input);
    assert!(output.status.success(), "{output:?}");
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().filter(|line| line.ends_with(": 3000000")).count(), 7, "{lines}");
    assert_eq!(lines.lines().filter(|line| line.ends_with(": nothing")).count(), 1, "{lines}");
}

#[test]
fn ctrl_c_shows_who_runs_then_interrupts_then_leaves() {
    let room = Room::new();
    let mut run = Running::start(&mut room.command(&["h[01-03]", "exec sleep 300"]));
    room.labshd.log().wait_for_nth("command started", 3);
    run.signal(2);
    assert!(run.error_line().starts_with("labsh: still running on h[01-03] (3); "));
    run.signal(2);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("labsh: signal 2 (SIGINT) (3): h[01-03]"), "{output:?}");

    // A command that does not heed it is left to its host, which ends it.
    let stubborn = sh("trap 'echo no' INT; echo up; while :; do sleep 0.1; done");
    let mut run = Running::start(&mut room.command(&[&["h[01-03]"], &stubborn[..]].concat()));
    for _ in 0..3 {
        assert!(run.line().ends_with(": up"));
    }
    run.signal(2);
    assert!(run.error_line().contains("still running"));
    run.signal(2);
    for _ in 0..3 {
        assert!(run.line().ends_with(": no"));
    }
    run.signal(2);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("labsh: lost (3): h[01-03]: "), "{output:?}");
    room.labshd.log().wait_for_nth("command ended", 6);
}

#[test]
fn a_host_that_waits_for_its_turn_is_not_begun_once_the_run_is_interrupted() {
    let room = Room::of(1);
    // A network on which connections hang until they are let through.
    let (held, labshd) = (TcpListener::bind("127.0.0.1:0").unwrap(), room.labshd.tls);
    let (let_through, gate) = mpsc::channel::<()>();
    let slow = held.local_addr().unwrap();
    thread::spawn(move || {
        let (mut client, _) = held.accept().unwrap();
        gate.recv().unwrap();
        let mut server = TcpStream::connect(labshd).unwrap();
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from, &mut to));
        let _ = io::copy(&mut client, &mut server);
    });
    let config = room.labshd.file("config/labsh/config.toml");
    let line = format!("[hosts.a]\naddress = \"{slow}\"\nhost_id = \"{HOST}\"\n");
    File::options().append(true).open(config).unwrap().write_all(line.as_bytes()).unwrap();

    let words = ["--parallel", "1", "--connect-timeout", "1m", "a,h01", "exec sleep 300"];
    let mut run = Running::start(&mut room.command(&words));
    // The first one in the list has made room while its connection hangs.
    room.labshd.log().wait_for_nth("command started", 1);
    let_through.send(()).unwrap();
    room.labshd.log().wait_for_nth(" authenticated ", 2);
    run.signal(2);
    run.error_line();
    run.signal(2);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("labsh: not begun: a\n"), "{output:?}");
    assert_eq!(room.labshd.log().count("command started"), 1);
}

#[test]
fn a_termination_reaches_every_command() {
    let room = Room::new();
    let run = Running::start(&mut room.command(&["h[01-03]", "exec sleep 300"]));
    room.labshd.log().wait_for_nth("command started", 3);
    run.signal(15);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(143));
    assert!(
        text(&output.stderr).contains("labsh: signal 15 (SIGTERM) (3): h[01-03]"),
        "{output:?}"
    );
}

#[test]
fn a_reader_who_has_seen_enough_ends_the_run() {
    let room = Room::new();
    let command = room.command(&["h[01-04]", "yes"]);
    let script = "\"$@\" </dev/null | head -n 1; exit ${PIPESTATUS[0]}";
    let output = in_shell(script, &command).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("cannot write to standard output: "), "{errors}");
    assert!(errors.contains("labsh: 0 of 4 succeeded"), "{errors}");
}

#[test]
fn the_exit_status_can_be_the_highest_one_and_the_summary_goes_to_a_descriptor() {
    let room = Room::new();
    assert_eq!(room.output(&["--max-status", "h[01-03]", "exit 7"]).status.code(), Some(7));
    // What one host alone would have given.
    assert_eq!(
        room.output(&["--max-status", "h[01-03]", "no-such-program", "x"]).status.code(),
        Some(127)
    );
    let command = room.command(&["--status-fd", "3", "h[01-03]", "exit 7"]);
    let output = in_shell("\"$@\" 3>&1 >/dev/null 2>&1 </dev/null", &command).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output.stdout)["outcomes"]["exited"]["hosts"], "h[01-03]");
    let terminal = room.output(&["-t", "h[01-03]", "true"]);
    assert_eq!(terminal.status.code(), Some(125));
    assert!(text(&terminal.stderr).contains("one host at a time"), "{terminal:?}");
}

#[test]
fn no_more_hosts_are_begun_after_a_failure_where_that_is_wanted() {
    let room = Room::new();
    let output = room.output(&["--rolling", "1", "--json=summary", "h[01-12]", "exit 7"]);
    assert_eq!(output.status.code(), Some(125));
    let summary = json(&output.stdout);
    assert_eq!(summary["outcomes"]["exited"]["hosts"], "h01");
    assert_eq!(summary["outcomes"]["not-begun"]["hosts"], "h[02-12]");
    assert_eq!(room.labshd.log().count("command started"), 1);
}

#[test]
fn one_host_by_its_plain_name_has_the_shapes_of_a_set() {
    let room = Room::new();
    assert!(room.output(&["h[01-02]", "true"]).status.success());
    let gathered = room.output(&["--gather", "h03", "echo well"]);
    assert_eq!(text(&gathered.stdout), "---- h03 (1 host) ----\nwell\n", "{gathered:?}");
    assert_eq!(text(&room.output(&["-q", "h03", "echo well"]).stdout), "");
    let directory = room.labshd.file("one");
    assert!(room.output(&["--out", &directory, "h03", "echo well"]).status.success());
    assert_eq!(fs::read(format!("{directory}/h03.stdout")).unwrap(), b"well\n");
    let planned = text(&room.output(&["--dry-run", "h03", "touch", "a b"]).stdout);
    assert!(planned.starts_with("h03 (1)\nh03: 127.1.7.3:"), "{planned}");
    assert!(planned.ends_with("runs exactly: touch 'a b'\n"), "{planned}");
    let address = text(&room.output(&["--dry-run", "[::1]:5275", "true"]).stdout);
    assert!(address.starts_with("[::1]:5275 (1)\n[::1]:5275: [::1]:5275, key "), "{address}");
    let bare = text(&room.output(&["--dry-run", "--plain", "h03", "true"]).stdout);
    assert!(bare.contains(", no TLS\n"), "{bare}");
    let known = text(&room.output(&["--dry-run", "h0?!h0[4-9]", "true"]).stdout);
    assert!(known.starts_with("h[01-03] (3)\n"), "{known}");
    let nobody = room.output(&["-x", "h03", "h03", "true"]);
    assert!(text(&nobody.stderr).contains("is no host at all"), "{nobody:?}");
    let terminal = room.output(&["--gather", "-t", "h03", "true"]);
    assert_eq!(terminal.status.code(), Some(125));
    assert!(text(&terminal.stderr).contains("leave -t out"), "{terminal:?}");
    // None of these was a run of many hosts.
    assert!(
        text(&room.output(&["--dry-run", "@last", "true"]).stdout).starts_with("h[01-02] (2)\n")
    );
}

#[test]
fn shapes_that_contradict_each_other_are_refused_before_anything_is_started() {
    let room = Room::of(1);
    let directory = room.labshd.file("out");
    for (words, said) in [
        (&["--json", "-q"][..], "--json=summary goes with -q"),
        (&["--json", "--out", &directory], "--json=summary goes with --out"),
        (&["--json=summary", "--gather"], "leave one of them out"),
        (&["--gather", "--diff"], "cannot be used with"),
    ] {
        let output = room.output(&[words, &["h01", "true"]].concat());
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
    assert_eq!(room.labshd.log().count("command started"), 0);
}

#[test]
fn a_character_that_comes_in_two_pieces_is_still_text() {
    let room = Room::new();
    let mut command =
        room.command(&["--json", "h[01]", "printf 'a\\344\\275'; read line; printf '\\240b\\303'"]);
    let mut run = Running::adopt(command.stdin(Stdio::piped()));
    let event = |run: &mut Running| json(run.line().as_bytes());
    assert_eq!(event(&mut run)["event"], "started");
    assert_eq!(event(&mut run)["text"], "a");
    run.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(event(&mut run)["text"], "你b");
    // What never became a character is no text.
    assert_eq!(event(&mut run)["bytes"], serde_json::json!([0xc3]));
    assert_eq!(event(&mut run)["outcome"], "ok");
    assert!(run.finish().status.success());
}
