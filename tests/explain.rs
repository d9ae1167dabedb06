//! `labsh explain`: what a command would find, the refusals that it would meet, and that nothing is
//! started.

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
fn it_says_what_would_run_as_whom_and_where() {
    let labshd = Labshd::with("accept_env = ['LC_*']\nmax_channels = 7");
    let output = explain(&labshd, &[], &["--", "sh", "-c", "echo a | wc"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.starts_with("would run as "), "{said}");
    assert!(said.contains("/sh (exactly these words, no shell)\n"), "{said}");
    assert!(said.contains("  words      sh -c 'echo a | wc'\n"), "{said}");
    assert!(said.contains("granted by test+127.0.0.1.toml in keys.d there\n"), "{said}");
    assert!(said.contains("  usable     from anywhere, without end\n"), "{said}");
    assert!(said.contains("  may set    LC_*\n  at once    7 commands"), "{said}");

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
fn nothing_is_started_and_the_log_says_who_asked() {
    let labshd = Labshd::start();
    let trace = labshd.file("trace");
    assert!(explain(&labshd, &[], &["touch", &trace]).status.success());
    labshd.log().wait_for(" explained key=test ");
    assert!(!Path::new(&trace).exists());
    assert_eq!(labshd.log().count("command started"), 0);
    // The same words do leave a trace when they are run.
    assert!(labshd.output(&["touch", &trace]).status.success());
    assert!(Path::new(&trace).exists());
}

#[test]
fn what_would_be_refused_is_told_with_its_reason() {
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
        (&["--user", "somebody-else"], &["true", "x"], "not as somebody-else; "),
    ] {
        let output = explain(&labshd, options, words);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let said = text(&output.stdout);
        assert!(said.starts_with("would be refused: ") && said.contains(reason), "{said}");
        assert_eq!(answer(&labshd, options, words)["would_run"], false);
    }
    assert_eq!(labshd.log().count("command started"), 0);
}

#[test]
fn hosts_with_the_same_answer_stand_together() {
    let labshd = Labshd::start();
    // Bound and not listening: nobody else has the port, and nobody answers there.
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let nobody = dead.local_addr().unwrap().as_socket().unwrap().port();
    let port = labshd.tls.port();
    let hosts = [("h1", port), ("h2", port), ("h3", port), ("dead", nobody)].map(|(name, port)| {
        format!("[hosts.{name}]\naddress = \"127.0.0.1\"\nport = {port}\nhost_id = \"{HOST}\"\n")
    });
    fs::write(labshd.file("config/labsh/config.toml"), hosts.concat()).unwrap();
    let output =
        labshd.labsh().args(["explain", "h[1-3],dead", "--", "true", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.starts_with("---- h[1-3] (3 hosts) ----\nwould run as "), "{said}");
    assert!(
        said.contains("---- dead (1 host) ----\ncannot be asked: cannot connect to "),
        "{said}"
    );
}

#[test]
fn hosts_that_never_answer_delay_nobody() {
    let labshd = Labshd::start();
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let table = |name: &str, port: u16| {
        format!("[hosts.'{name}']\naddress = '127.0.0.1'\nport = {port}\nhost_id = '{HOST}'\n")
    };
    // As many as are gone about at once, and before the one that answers.
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
    let said = text(&output.stdout);
    assert!(said.contains("---- h (1 host) ----\nwould run as "), "{said}");
    assert!(said.contains("---- a-mute[01-64] (64 hosts) ----\ncannot be asked: "), "{said}");
}

#[test]
fn a_client_that_did_not_announce_it_gets_no_explanation() {
    let labshd = Labshd::start();
    let mut peer = Peer::connect(labshd.plain);
    peer.authenticate_with(&labshd, Features(0));
    let body = peer::open_body(&[b"true"]);
    let header = peer::header(body.len() as u32, Kind::Open as u8, FLAG_EXPLAIN, 0, 1);
    peer.send(&[header, body].concat());
    assert_eq!(peer.refused(1).code, RefuseCode::UNSUPPORTED);
    peer.check(2);
}
