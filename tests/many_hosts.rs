//! One command on many hosts: whole lines, grouped output, kinds of failure, and the last run.

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

/// Hosts h01 to h12, each at an address of its own, and three that fail: `dead` refuses
/// connections, `mute` accepts them and sends nothing, and on `stranger` the key is not enrolled.
pub struct Lab {
    pub labshd: Labshd,
    _dead: Socket,
    _mute: TcpListener,
}

impl Lab {
    pub fn new() -> Self {
        Self::of(HOSTS)
    }

    /// With this number of hosts instead of twelve.
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
fn kinds_of_failure_are_distinguished_and_delay_no_other_host() {
    let lab = Lab::new();
    // The host that creates the directory first fails.
    let line = format!("mkdir '{}' 2>/dev/null && exit 3; echo well", lab.labshd.file("once"));
    let output = lab.output(&["h[01-12],dead,mute,stranger", &line]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert_eq!(text(&output.stdout).lines().filter(|line| line.ends_with(" well")).count(), 11);
    let errors = text(&output.stderr);
    assert!(errors.contains("labsh: 11 of 15 succeeded in "), "{errors}");
    assert!(errors.contains("labsh: exit 3: h"), "{errors}");
    assert!(errors.contains("labsh: unreachable: dead: cannot connect to 127.1.7.13:"), "{errors}");
    assert!(errors.contains("labsh: unreachable: mute: no answer from 127.1.7.14:"), "{errors}");
    assert!(errors.contains("labsh: refused: stranger: "), "{errors}");

    // Failed hosts can be chosen, all together and by outcome.
    let again = lab.output(&["--dry-run", "@last:failed!@last:exited", "true"]);
    assert!(text(&again.stdout).starts_with("dead,mute,stranger (3)\n"), "{again:?}");
    let unreachable = lab.output(&["--dry-run", "@last:unreachable", "true"]);
    assert!(text(&unreachable.stdout).starts_with("dead,mute (2)\n"), "{unreachable:?}");
    let refused = lab.output(&["@last:refused", "true"]);
    assert_eq!(refused.status.code(), Some(125));
}

#[test]
fn the_last_run_is_recorded_for_its_user_alone() {
    let lab = Lab::new();
    let line = format!("mkdir '{}' 2>/dev/null && exit 3; true", lab.labshd.file("once"));
    assert_eq!(lab.output(&["h[01-04]", &line]).status.code(), Some(1));
    let file = lab.labshd.file("state/labsh/last.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let last = || lab.labshd.labsh().args(["last", "--json"]).output().unwrap().stdout;
    let first = json(&last());
    assert_eq!(first["command"], line.as_str());
    let codes: Vec<_> =
        first["hosts"].as_object().unwrap().values().map(|host| &host["code"]).collect();
    assert_eq!(codes.iter().filter(|code| ***code == 3).count(), 1);

    // A command on one host is not recorded as the last run.
    assert!(lab.output(&["h01", "true"]).status.success());
    assert_eq!(json(&last()), first);
    let retried = lab.output(&["@last:failed", "true"]);
    assert!(text(&retried.stderr).contains("labsh: 1 of 1 succeeded"), "{retried:?}");

    let nothing = lab.output(&["@last:failed", "true"]);
    assert_eq!(nothing.status.code(), Some(125));
    assert!(text(&nothing.stderr).contains("is no host at all; `labsh last` shows"), "{nothing:?}");
    let unknown = lab.output(&["@last:broken", "true"]);
    assert!(text(&unknown.stderr).contains("there is no such outcome"), "{unknown:?}");
    let shown = lab.labshd.labsh().arg("last").output().unwrap();
    assert!(text(&shown.stdout).contains(": true\n1 of 1 succeeded"), "{shown:?}");
}

#[test]
fn lines_of_different_hosts_are_never_mixed() {
    let lab = Lab::new();
    let output =
        lab.output(&["h[01-06]", "seq -f 'number %g of a longer line' 2000; printf unfinished"]);
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
}

#[test]
fn a_long_line_is_printed_whole_and_an_endless_one_in_marked_pieces() {
    let lab = Lab::of(2);
    // Larger than a frame, as a JSON document without line breaks often is.
    let line = "printf '\"'; head -c 421083 /dev/zero | tr '\\0' x; printf '\"\\n'; echo 1";
    let output = lab.output(&["h[01-02]", line]);
    let lines = sorted_lines(&output.stdout);
    assert_eq!(lines.len(), 4, "{:?}", output.stderr);
    for line in lines {
        let (_, document) = line.split_once(": ").unwrap();
        json(document.as_bytes());
    }

    let bytes = 17 << 20;
    let line = format!("head -c {bytes} /dev/zero | tr '\\0' x; echo; echo end");
    let shown = text(&lab.output(&["h[01]", &line]).stdout);
    let pieces: Vec<&str> = shown.lines().map(|line| line.strip_prefix("h01: ").unwrap()).collect();
    assert_eq!(pieces.len(), 3);
    assert!(pieces[0].ends_with("x [line continues]") && pieces[1].ends_with('x'));
    assert_eq!(pieces[2], "end");
    assert!(pieces[0].len() > 16 << 20);
    assert_eq!(shown.matches('x').count(), bytes);
}

#[test]
fn equal_outputs_are_shown_once() {
    let lab = Lab::new();
    let line =
        format!("mkdir '{}' 2>/dev/null && printf 'same\\nother\\n' || printf 'same\\nmost\\n'", {
            lab.labshd.file("once")
        });
    let gathered = text(&lab.output(&["--gather", "h[01-12]", &line]).stdout);
    let lines: Vec<&str> = gathered.lines().collect();
    assert!(
        lines[0].starts_with("---- h[") && lines[0].ends_with(" (11 hosts) ----"),
        "{gathered}"
    );
    assert_eq!(lines[1..3], ["same", "most"]);
    assert!(lines[3].ends_with(" (1 host) ----"), "{gathered}");
    assert_eq!(lines[4..], ["same", "other"]);

    fs::remove_dir(lab.labshd.file("once")).unwrap();
    let differences = text(&lab.output(&["--diff", "h[01-12]", &line]).stdout);
    assert!(differences.contains("\n-most\n+other\n"), "{differences}");

    // The same text with and without a last newline would look equal.
    let once = lab.labshd.file("newline");
    let script = format!(
        "if mkdir '{once}' 2>/dev/null; then printf x; printf e >&2; else echo x; echo e >&2; fi"
    );
    for form in ["--gather", "--diff"] {
        let output = lab.output(&[&[form, "h[01-03]"], &sh(&script)[..]].concat());
        fs::remove_dir(&once).unwrap();
        let (shown, errors) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(shown.matches("x\n\\ No newline at end of file\n").count(), 1, "{shown}");
        assert_eq!(errors.matches("e\n\\ No newline at end of file\n").count(), 1, "{errors}");
    }
    let alone = lab.output(&["--gather", "h[01-02]", "printf x"]).stdout;
    assert_eq!(text(&alone), "---- h[01-02] (2 hosts) ----\nx\n");
    // Bytes that are not text differ as well.
    let line = format!("mkdir '{}' && printf '\\376' || printf '\\377'", lab.labshd.file("byte"));
    let differences = text(&lab.output(&["--diff", "h[01-03]", &line]).stdout);
    assert!(differences.contains("\n-\\xff\n"), "{differences}");
    assert!(differences.contains("\n+\\xfe\n"), "{differences}");

    // Gathered stderr goes to stderr, under its own heading.
    let errors = text(&lab.output(&["--gather", "h[01-02]", "echo wrong >&2"]).stderr);
    assert!(errors.contains("---- h[01-02] (2), stderr ----\nwrong\n"), "{errors}");
}

#[test]
fn out_files_hold_every_byte_and_a_full_disk_is_reported() {
    let lab = Lab::new();
    let directory = lab.labshd.file("out");
    let words = ["--out", &directory, "h[01-03]", "printf 'a\\0\\377b'; printf oops >&2"];
    assert!(lab.output(&words).status.success());
    for host in ["h01", "h02", "h03"] {
        assert_eq!(fs::read(format!("{directory}/{host}.stdout")).unwrap(), b"a\0\xffb");
        assert_eq!(fs::read(format!("{directory}/{host}.stderr")).unwrap(), b"oops");
    }
    fs::remove_file(format!("{directory}/h02.stdout")).unwrap();
    symlink("/dev/full", format!("{directory}/h02.stdout")).unwrap();
    let full = lab.output(&words);
    assert_eq!(full.status.code(), Some(255), "{full:?}");
    assert!(text(&full.stderr).contains("h02.stdout"), "{full:?}");
    assert!(text(&full.stderr).contains("No space left on device"), "{full:?}");
}

#[test]
fn stdin_goes_to_all_hosts_and_a_slow_one_delays_none() {
    let lab = Lab::new();
    let input: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    // One of the hosts reads nothing.
    let line =
        format!("mkdir '{}' 2>/dev/null && exec echo nothing; wc -c", lab.labshd.file("once"));
    let output = pipe_through(&mut lab.command(&["h[01-08]", &line]), &input);
    assert!(output.status.success(), "{output:?}");
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().filter(|line| line.ends_with(": 3000000")).count(), 7, "{lines}");
    assert_eq!(lines.lines().filter(|line| line.ends_with(": nothing")).count(), 1, "{lines}");
}

#[test]
fn ctrl_c_lists_running_hosts_then_interrupts_then_leaves() {
    let lab = Lab::new();
    let sleep = sh("echo up; exec sleep 300");
    let mut run = Running::start(&mut lab.command(&[&["h[01-03]"], &sleep[..]].concat()));
    // By then labsh knows that the commands run.
    for _ in 0..3 {
        assert!(run.line().ends_with(": up"));
    }
    run.signal(2);
    let listed = run.error_line();
    assert!(listed.starts_with("labsh: still running on h[01-03] (3); "), "{listed}");
    run.signal(2);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("labsh: signal 2 (SIGINT) (3): h[01-03]"), "{output:?}");

    // A command that ignores the interrupt is left to its host, which ends it.
    let stubborn = sh("trap 'echo no' INT; echo up; while :; do sleep 0.1; done");
    let mut run = Running::start(&mut lab.command(&[&["h[01-03]"], &stubborn[..]].concat()));
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
    lab.labshd.log().wait_for_nth("command ended", 6);
}

#[test]
fn an_interrupted_run_starts_no_further_host() {
    let lab = Lab::of(1);
    // A proxy on which connections hang until the test lets them through.
    let (held, labshd) = (TcpListener::bind("127.0.0.1:0").unwrap(), lab.labshd.tls);
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
    let config = lab.labshd.file("config/labsh/config.toml");
    let line = format!("[hosts.a]\naddress = \"{slow}\"\nhost_id = \"{HOST}\"\n");
    File::options().append(true).open(config).unwrap().write_all(line.as_bytes()).unwrap();

    let words = ["--parallel", "1", "--connect-timeout", "1m", "a,h01", "sleep", "300"];
    let mut run = Running::start(&mut lab.command(&words));
    // The first host of the list does not count as running while its connection hangs.
    lab.labshd.log().wait_for_nth("command started", 1);
    let_through.send(()).unwrap();
    lab.labshd.log().wait_for_nth(" authenticated ", 2);
    run.signal(2);
    run.error_line();
    run.signal(2);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("labsh: not begun: a\n"), "{output:?}");
    assert_eq!(lab.labshd.log().count("command started"), 1);
}

#[test]
fn a_termination_reaches_every_command() {
    let lab = Lab::new();
    let run = Running::start(&mut lab.command(&["h[01-03]", "sleep", "300"]));
    lab.labshd.log().wait_for_nth("command started", 3);
    run.signal(15);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(143));
    assert!(
        text(&output.stderr).contains("labsh: signal 15 (SIGTERM) (3): h[01-03]"),
        "{output:?}"
    );
}

#[test]
fn a_closed_stdout_ends_the_run() {
    let lab = Lab::new();
    let command = lab.command(&["h[01-04]", "yes"]);
    let script = "\"$@\" </dev/null | head -n 1; exit ${PIPESTATUS[0]}";
    let output = in_shell(script, &command).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("cannot write to standard output: "), "{errors}");
    assert!(errors.contains("labsh: 0 of 4 succeeded"), "{errors}");
}

#[test]
fn max_status_and_status_fd_work_for_many_hosts() {
    let lab = Lab::new();
    assert_eq!(lab.output(&["--max-status", "h[01-03]", "exit 7"]).status.code(), Some(7));
    // The status that a single host would have given.
    assert_eq!(
        lab.output(&["--max-status", "h[01-03]", "no-such-program", "x"]).status.code(),
        Some(127)
    );
    let command = lab.command(&["--status-fd", "3", "h[01-03]", "exit 7"]);
    let output = in_shell("\"$@\" 3>&1 >/dev/null 2>&1 </dev/null", &command).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output.stdout)["outcomes"]["exited"]["set"], "h[01-03]");
    let terminal = lab.output(&["-t", "h[01-03]", "true"]);
    assert_eq!(terminal.status.code(), Some(125));
    assert!(text(&terminal.stderr).contains("one host at a time"), "{terminal:?}");
}

#[test]
fn rolling_stops_after_a_failure() {
    let lab = Lab::new();
    let output = lab.output(&["--rolling", "1", "--json=summary", "h[01-12]", "exit 7"]);
    assert_eq!(output.status.code(), Some(125));
    let summary = json(&output.stdout);
    assert_eq!(summary["outcomes"]["exited"]["set"], "h01");
    assert_eq!(summary["outcomes"]["not-begun"]["set"], "h[02-12]");
    assert_eq!(lab.labshd.log().count("command started"), 1);
}

#[test]
fn a_single_host_takes_the_output_options_of_a_set() {
    let lab = Lab::new();
    assert!(lab.output(&["h[01-02]", "true"]).status.success());
    let gathered = lab.output(&["--gather", "h03", "echo well"]);
    assert_eq!(text(&gathered.stdout), "---- h03 (1 host) ----\nwell\n", "{gathered:?}");
    assert_eq!(text(&lab.output(&["-q", "h03", "echo well"]).stdout), "");
    let directory = lab.labshd.file("one");
    assert!(lab.output(&["--out", &directory, "h03", "echo well"]).status.success());
    assert_eq!(fs::read(format!("{directory}/h03.stdout")).unwrap(), b"well\n");
    let planned = text(&lab.output(&["--dry-run", "h03", "touch", "a b"]).stdout);
    assert!(planned.starts_with("h03 (1)\nh03: 127.1.7.3:"), "{planned}");
    assert!(planned.ends_with("runs exactly: touch 'a b'\n"), "{planned}");
    let address = text(&lab.output(&["--dry-run", "[::1]:5275", "true"]).stdout);
    assert!(address.starts_with("[::1]:5275 (1)\n[::1]:5275: [::1]:5275, key "), "{address}");
    let bare = text(&lab.output(&["--dry-run", "--plain", "h03", "true"]).stdout);
    assert!(bare.contains(", no TLS\n"), "{bare}");
    let known = text(&lab.output(&["--dry-run", "h0?!h0[4-9]", "true"]).stdout);
    assert!(known.starts_with("h[01-03] (3)\n"), "{known}");
    let excluded = lab.output(&["-x", "h03", "h03", "true"]);
    assert!(text(&excluded.stderr).contains("is no host at all"), "{excluded:?}");
    let terminal = lab.output(&["--gather", "-t", "h03", "true"]);
    assert_eq!(terminal.status.code(), Some(125));
    assert!(text(&terminal.stderr).contains("leave -t out"), "{terminal:?}");
    // None of these was a run on many hosts.
    assert!(
        text(&lab.output(&["--dry-run", "@last", "true"]).stdout).starts_with("h[01-02] (2)\n")
    );
}

#[test]
fn contradicting_output_options_are_refused_before_anything_starts() {
    let lab = Lab::of(1);
    let directory = lab.labshd.file("out");
    for (words, message) in [
        (&["--json", "-q"][..], "--json=summary goes with -q"),
        (&["--json", "--out", &directory], "--json=summary goes with --out"),
        (&["--json=summary", "--gather"], "leave one of them out"),
        (&["--gather", "--diff"], "cannot be used with"),
    ] {
        let output = lab.output(&[words, &["h01", "true"]].concat());
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(text(&output.stderr).contains(message), "{output:?}");
    }
    assert_eq!(lab.labshd.log().count("command started"), 0);
}

#[test]
fn a_character_split_between_two_frames_is_text() {
    let lab = Lab::new();
    let mut command =
        lab.command(&["--json", "h[01]", "printf 'a\\344\\275'; read line; printf '\\240b\\303'"]);
    let mut run = Running::adopt(command.stdin(Stdio::piped()));
    let event = |run: &mut Running| json(run.line().as_bytes());
    assert_eq!(event(&mut run)["event"], "started");
    assert_eq!(event(&mut run)["text"], "a");
    run.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(event(&mut run)["text"], "你b");
    // An incomplete character is not text.
    assert_eq!(event(&mut run)["bytes"], serde_json::json!([0xc3]));
    assert_eq!(event(&mut run)["outcome"], "ok");
    assert!(run.finish().status.success());
}
