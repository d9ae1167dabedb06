//! `labsh explain`: what a command would run as and with, which refusals it would get, and that
//! nothing is started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use labsh_proto::frame::{FLAG_EXPLAIN, Kind};
use labsh_proto::message::{Features, RefuseCode};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::peer::{self, Peer};
use crate::support::{HOST, Labshd, Running, am_root, text};

fn explain(labshd: &Labshd, options: &[&str], words: &[&str]) -> Output {
    labshd.labsh().arg("explain").args(options).arg(labshd.target()).args(words).output().unwrap()
}

fn answer(labshd: &Labshd, options: &[&str], words: &[&str]) -> Value {
    let options = [&["--json"], options].concat();
    serde_json::from_slice(&explain(labshd, &options, words).stdout).unwrap()
}

#[test]
fn explain_reports_program_user_and_directory() {
    let labshd = Labshd::with("accept_env = ['LC_*']\nmax_channels = 7");
    let output = explain(&labshd, &[], &["--", "sh", "-c", "echo a | wc"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("would run as "), "{stdout}");
    assert!(stdout.contains("/sh (exactly these words, no shell)\n"), "{stdout}");
    assert!(stdout.contains("  words      sh -c 'echo a | wc'\n"), "{stdout}");
    assert!(stdout.contains("granted by test+127.0.0.1.toml in keys.d there\n"), "{stdout}");
    assert!(stdout.contains("  usable     from anywhere, without end\n"), "{stdout}");
    assert!(stdout.contains("  may set    LC_*\n  at once    7 commands"), "{stdout}");

    let answer = answer(&labshd, &["--cwd", "/", "--env", "LC_ALL=C"], &["true"]);
    assert_eq!((&answer["would_run"], &answer["key"]), (&true.into(), &"test".into()));
    let explained = &answer["explained"];
    assert_eq!(explained["directory"], "/");
    assert_eq!(explained["words"].as_array().unwrap()[1..], ["-c", "true"].map(Value::from));
    assert_eq!(explained["environment"]["LC_ALL"], "C");
    assert_eq!(explained["environment"]["LABSH_KEY_ID"], "test");
    if am_root() {
        assert_eq!((&explained["user"], &explained["uid"]), (&"root".into(), &0.into()));
    }
}

#[test]
fn explain_starts_nothing_and_is_logged() {
    let labshd = Labshd::start();
    let trace = labshd.file("trace");
    assert!(explain(&labshd, &[], &["touch", &trace]).status.success());
    labshd.log().wait_for(" explained key=test ");
    assert!(!Path::new(&trace).exists());
    assert_eq!(labshd.log().count("command started"), 0);
    // Running the same words creates the file.
    assert!(labshd.output(&["touch", &trace]).status.success());
    assert!(Path::new(&trace).exists());
}

#[test]
fn explain_reports_refusals_with_the_reason() {
    let labshd = Labshd::with("accept_env = []");
    let plain = labshd.file("plain");
    fs::write(&plain, "no program").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let nowhere = labshd.file("nowhere");
    for (options, words, reason) in [
        (&[] as &[&str], &["nosuch", "x"] as &[&str], "nosuch: command not found; "),
        (&[], &[&plain, "x"], "plain: cannot be executed: Permission denied"),
        (&[], &["/", "x"], "/: cannot be executed: Permission denied"),
        (&["--cwd", &nowhere], &["true", "x"], "cannot enter the working directory "),
        (
            &["--env", "A=1"],
            &["true", "x"],
            "the environment variable A may not be set: accept_env",
        ),
        (&["--user", "another-user"], &["true", "x"], "not as another-user; "),
    ] {
        let output = explain(&labshd, options, words);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let stdout = text(&output.stdout);
        assert!(stdout.starts_with("would be refused: ") && stdout.contains(reason), "{stdout}");
        assert_eq!(answer(&labshd, options, words)["would_run"], false);
    }
    assert_eq!(labshd.log().count("command started"), 0);
}

#[test]
fn hosts_with_the_same_answer_are_grouped() {
    let labshd = Labshd::start();
    // Bound and not listening: no other program gets the port, and connections are refused.
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let dead_port = dead.local_addr().unwrap().as_socket().unwrap().port();
    let port = labshd.tls.port();
    let hosts =
        [("h1", port), ("h2", port), ("h3", port), ("dead", dead_port)].map(|(name, port)| {
            format!(
                "[hosts.{name}]\naddress = \"127.0.0.1\"\nport = {port}\nhost_id = \"{HOST}\"\n"
            )
        });
    fs::write(labshd.file("config/labsh/config.toml"), hosts.concat()).unwrap();
    let output =
        labshd.labsh().args(["explain", "h[1-3],dead", "--", "true", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("---- h[1-3] (3 hosts) ----\nwould run as "), "{stdout}");
    assert!(
        stdout.contains("---- dead (1 host) ----\ncannot be asked: cannot connect to "),
        "{stdout}"
    );
}

#[test]
fn hosts_that_never_answer_do_not_delay_others() {
    let labshd = Labshd::start();
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let table = |name: &str, port: u16| {
        format!("[hosts.'{name}']\naddress = '127.0.0.1'\nport = {port}\nhost_id = '{HOST}'\n")
    };
    // As many as labsh asks at once, before the one that answers.
    let hosts =
        [table("a-mute[01-64]", mute.local_addr().unwrap().port()), table("h", labshd.tls.port())]
            .concat();
    fs::write(labshd.file("config/labsh/hosts.toml"), hosts).unwrap();
    let mut command = labshd.labsh();
    command.args(["explain", "--connect-timeout", "1h", "a-mute[01-64],h", "--", "true"]);
    let run = Running::start(&mut command);
    labshd.log().wait_for(" explained key=test ");
    drop(mute);
    let output = run.finish();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let stdout = text(&output.stdout);
    assert!(stdout.contains("---- h (1 host) ----\nwould run as "), "{stdout}");
    assert!(stdout.contains("---- a-mute[01-64] (64 hosts) ----\ncannot be asked: "), "{stdout}");
}

#[test]
fn explain_is_refused_to_clients_that_did_not_announce_it() {
    let labshd = Labshd::start();
    let mut peer = Peer::connect(labshd.plain);
    peer.authenticate_with(&labshd, Features(0));
    let body = peer::open_body(&[b"true"]);
    let header = peer::header(body.len() as u32, Kind::Open as u8, FLAG_EXPLAIN, 0, 1);
    peer.send(&[header, body].concat());
    assert_eq!(peer.refused(1).code, RefuseCode::UNSUPPORTED);
    peer.check(2);
}
