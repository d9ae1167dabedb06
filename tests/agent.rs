//! Commands on a connection of the agent's: they behave as on one of their own, also when the
//! agent, the client or the host fails.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use labsh_proto::frame::{Decoder, Frame, Kind};
use labsh_proto::limits;
use labsh_proto::message::{Features, Goodbye};

use crate::peer::proxy::{Cut, Proxy, Side};
use crate::peer::{bytes, close, message, open};
use crate::support::agent::Login;
use crate::support::screen::Screen;
use crate::support::*;

#[test]
fn the_second_command_opens_no_connection() {
    let login = Login::warm();
    for number in 0..5 {
        let output = login.through_the_agent(|| {
            login.output(&sh(&format!("echo {number}; echo err >&2; exit {number}")))
        });
        assert_eq!(text(&output.stdout), format!("{number}\n"));
        assert_eq!(text(&output.stderr), "err\n");
        assert_eq!(output.status.code(), Some(number));
    }
}

#[test]
fn a_client_whose_stdin_stays_open_returns_the_connection() {
    let login = Login::warm();
    for _ in 0..3 {
        login.through_the_agent(|| {
            let mut client = login.run(&["true"]).stdin(Stdio::piped()).spawn().unwrap();
            let input = client.stdin.take();
            assert!(client.wait().unwrap().success());
            drop(input);
        });
    }
}

/// The messages in recorded pieces of a connection, without pings and pongs, and who sent each.
fn messages(pieces: &[(Side, Vec<u8>)]) -> Vec<(Side, Kind)> {
    let (mut client, mut server) = (Decoder::default(), Decoder::default());
    let mut messages = Vec::new();
    for (side, piece) in pieces {
        let decoder = if *side == Side::Client { &mut client } else { &mut server };
        decoder.buffer().extend_from_slice(piece);
        while let Some(Frame { kind, .. }) = decoder.next_frame(limits::MAX_BODY).unwrap() {
            messages.push((*side, kind));
        }
    }
    messages.retain(|(_, kind)| !matches!(kind, Kind::Ping | Kind::Pong));
    messages
}

#[test]
fn the_second_command_costs_one_round_trip() {
    let login = Login::start();
    // In plain mode, in which the proxy can read the messages.
    let proxy = Proxy::start(login.0.plain, Cut::Pass);
    let run = || {
        let mut labsh = login.labsh();
        labsh.args(["run", "-n", "--plain", &proxy.address.to_string(), "true"]);
        super::support::run(&mut labsh)
    };
    run();
    login.idle();
    let sent = login.through_the_agent(|| {
        let before = proxy.pieces().len();
        run();
        // The client's last message may not have arrived yet.
        let sent = || messages(&proxy.pieces()[before..]);
        eventually("the channel is closed", || sent().contains(&(Side::Client, Kind::Close)));
        sent()
    });
    assert_eq!(sent[0], (Side::Client, Kind::Open), "{sent:?}");
    // After its command and the end of stdin the client sends nothing until the exit has arrived.
    let first = sent.iter().position(|(side, _)| *side == Side::Server).unwrap();
    let exit = sent.iter().position(|(_, kind)| *kind == Kind::Exit).unwrap();
    let between = &sent[first..exit];
    assert!(
        between.iter().all(|(side, kind)| *side == Side::Server || *kind == Kind::Eof),
        "{sent:?}"
    );
    assert_eq!(sent.last(), Some(&(Side::Client, Kind::Close)), "{sent:?}");
}

#[test]
fn stdin_stdout_and_stderr_arrive_complete() {
    let login = Login::warm();
    let output =
        login.through_the_agent(|| login.output(&sh("seq 1 3000000 & seq 1 2000000 >&2; wait")));
    assert!(output.status.success());
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines(&output.stdout), lines(&output.stderr)), (3_000_000, 2_000_000));
    assert!(output.stdout.ends_with(b"\n3000000\n") && output.stderr.ends_with(b"\n2000000\n"));
    let input = output.stdout;
    let back = login.through_the_agent(|| feed(&mut login.run(&["cat"]), &input));
    assert!(back.stdout == input);
}

#[test]
fn labsh_rsh_uses_the_agent_too() {
    let login = Login::warm();
    let output = login.through_the_agent(|| {
        pipe_through(&mut login.rsh(&[HOST, "cat; echo err >&2; exit 7"]), b"\xff\0in")
    });
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"\xff\0in"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_terminal_gets_sizes_and_signals_through_the_agent() {
    let login = Login::warm();
    let session = format!("export LABSH_KEEP=5m XDG_RUNTIME_DIR={}", login.runtime().display());
    let Some(screen) = Screen::start(&login.0, &session) else { return };
    let script = "echo [$(stty size)]; trap 'echo [$(stty size)]' WINCH; trap 'exit 5' INT; while \
        :; do read -t 0.1; done";
    fs::write(login.0.file("script"), script).unwrap();
    login.through_the_agent(|| {
        screen.line("checked labsh run -t $T bash $PWD/script");
        screen.wait_for_line("[24 80]");
        screen.resize(100, 30);
        screen.wait_for_line("[30 100]");
        screen.press("C-c");
        screen.wait_for_line("status 5");
        screen.wait_for_line("the terminal is as before");
        screen.resize(80, 24);
        screen.line("clear; echo cle''ared");
        screen.wait_until("a cleared screen", |shown| shown.trim().starts_with("cleared"));
    });
}

#[test]
fn a_signal_reaches_the_command() {
    let login = Login::warm();
    let mut client =
        Running::start(&mut login.run(&sh(
            "trap 'echo got; exit 7' INT; echo ready; while :; do read x; sleep 0.05; done",
        )));
    assert_eq!(client.line(), "ready");
    client.signal(2);
    assert_eq!(client.line(), "got");
    assert_eq!(client.finish().status.code(), Some(7));
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let login = Login::warm();
    let output = login
        .through_the_agent(|| in_shell("\"$@\" | head -1", &login.run(&["yes"])).output().unwrap());
    assert_eq!(text(&output.stdout), "y\n");
    assert!(login.output(&["true"]).status.success());
}

/// A command that does not end by itself, and its process id.
fn sleeper(login: &Login) -> (Running, i32) {
    let mut client = Running::start(&mut login.run(&sh("echo $$; exec sleep 1000")));
    let pid = client.pid_line();
    (client, pid)
}

#[test]
fn killing_the_client_ends_its_command() {
    let login = Login::warm();
    let (client, pid) = login.through_the_agent(|| sleeper(&login));
    client.signal(9);
    eventually("the command ends", || !is_alive(pid));
    // The connection stays open.
    login.through_the_agent(|| assert!(login.output(&["true"]).status.success()));
}

#[test]
fn a_stopped_client_keeps_its_command_and_blocks_no_other() {
    let login = Login::warm();
    let client = login.through_the_agent(|| {
        let mut client = Running::start(&mut login.run(&sh("seq 1 2000000; echo end")));
        assert_eq!(client.line(), "1");
        client.signal(19);
        client
    });
    for _ in 0..3 {
        assert_eq!(text(&login.output(&sh("echo other")).stdout), "other\n");
    }
    client.signal(18);
    let output = client.finish();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 2_000_000);
    assert!(output.stdout.ends_with(b"\n2000000\nend\n"));
}

#[test]
fn a_killed_agent_is_a_lost_connection_and_is_replaced() {
    let login = Login::warm();
    let agent = login.pid().unwrap();
    let (client, command) = login.through_the_agent(|| sleeper(&login));
    kill(agent, 9);
    let end = client.finish();
    assert_eq!(end.status.code(), Some(255), "{}", text(&end.stderr));
    assert!(text(&end.stderr).contains("the connection was lost"), "{}", text(&end.stderr));
    eventually("the command ends", || !is_alive(command));
    assert!(login.socket().exists());
    login.warm_up();
    assert_ne!(login.pid(), Some(agent));
}

#[test]
fn a_host_that_dies_is_a_lost_connection_and_leaves_the_pool() {
    let mut login = Login::warm();
    let (client, _) = login.through_the_agent(|| sleeper(&login));
    login.0.child.kill().unwrap();
    login.0.wait();
    assert_eq!(client.finish().status.code(), Some(255));
    eventually("the pool is empty", || login.list().is_empty());
    let output = login.output(&["true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("cannot connect to"), "{}", text(&output.stderr));
}

#[test]
fn a_hanging_host_times_out_as_soon_as_without_an_agent() {
    let login = Login::start();
    let attempt = || {
        login
            .run(&["true"])
            .env("LABSH_CONNECT_TIMEOUT", "2s")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert!(attempt().status.success());
    login.idle();
    login.0.signal(19);
    let output = attempt();
    login.0.signal(18);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{stderr}");
    // A client without an agent detects a silent peer only after 45 seconds.
    assert!(!stderr.contains("was silent for"), "{stderr}");
    login.warm_up();
}

#[test]
fn labshd_stops_without_waiting_for_idle_connections() {
    let mut login = Login::warm();
    login.0.signal(15);
    assert_eq!(login.0.wait(), Some(0));
    eventually("the pool is empty", || login.list().is_empty());
}

#[test]
fn a_key_removed_on_the_host_is_no_longer_used() {
    let login = Login::warm();
    for entry in fs::read_dir(login.0.path().join("keys.d")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    login.0.reload();
    assert!(!login.output(&["true"]).status.success());
    eventually("the pool is empty", || login.list().is_empty());
}

#[test]
fn a_key_replaced_or_removed_on_the_client_is_no_longer_used() {
    let login = Login::warm();
    let file = login.0.path().join("config/labsh/keys/test.key");
    fs::remove_file(&file).unwrap();
    // The same name with another secret, which the host does not know.
    run(login.labsh().args(["key", "new", "test"]));
    let output = login.output(&["true"]);
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    login.idle();
    fs::remove_file(&file).unwrap();
    let output = login.output(&["true"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
}

#[test]
fn two_hundred_processes_share_the_agent() {
    let login = Login::warm();
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let login = &login;
            scope.spawn(move || {
                for number in 0..25 {
                    let word = format!("{lane}.{number}");
                    let output = login.output(&["echo", &word]);
                    assert_eq!(text(&output.stdout), word + "\n", "{}", text(&output.stderr));
                    assert!(output.status.success());
                }
            });
        }
    });
}

/// A client's request to use this connection.
fn lend(login: &Login) -> Vec<u8> {
    let network = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let (address, name) = (login.0.tls, login.0.host_key().name().0);
    let route = serde_json::json!({
        "host": address.ip().to_string(), "port": address.port(), "plain": false, "name": name,
        "network": network, "features": Features::SUPPORTED.0,
    });
    encoded(&serde_json::json!({ "Lend": { "route": route, "keep": { "secs": 0, "nanos": 0 } } }))
}

/// A message to the agent, behind its length.
fn encoded(message: &serde_json::Value) -> Vec<u8> {
    let body = message.to_string();
    [&(body.len() as u32).to_be_bytes()[..], body.as_bytes()].concat()
}

/// The socket once the agent has lent a connection on it, and the highest channel used so far.
fn borrow(login: &Login) -> (UnixStream, u32) {
    let ask = || {
        let mut stream = UnixStream::connect(login.socket())?;
        stream.write_all(&lend(login))?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body)?;
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        if let Some(lent) = answer.get("Lent") {
            // Clients rely on these as if the host had sent them.
            assert_eq!(lent["features"], Features::SUPPORTED.0);
            assert_eq!(lent["version"], concat!("labshd ", env!("CARGO_PKG_VERSION")));
        }
        std::io::Result::Ok(
            answer["Lent"]["highest"].as_u64().map(|highest| (stream, highest as u32)),
        )
    };
    let mut lent = None;
    // A connection with a keep time of zero may close just as it is lent.
    eventually("a connection is lent", || {
        login.warm_up();
        lent = ask().ok().flatten();
        lent.is_some()
    });
    lent.unwrap()
}

#[test]
fn a_misbehaving_client_does_not_affect_the_next_one() {
    let login = Login::warm();
    let goodbye = || message(&Goodbye::new(""), 0);
    let frames: [&dyn Fn(u32) -> Vec<u8>; 7] = [
        // Nothing; bytes that are no frame; half a frame; a message of a host's; a channel that was
        // used before; a command that never ends, with and without a close.
        &|_| Vec::new(),
        &|_| vec![0xff; 100],
        &|id| open(id + 1, &["true"])[..20].to_vec(),
        &|id| bytes(Kind::Stdout, id + 1, b"x"),
        &|id| open(id, &["true"]),
        &|id| [open(id + 1, &["sleep", "1000"]), goodbye()].concat(),
        &|id| [open(id + 1, &["sleep", "1000"]), close(id + 1), goodbye()].concat(),
    ];
    for wrong in frames {
        let (mut stream, highest) = borrow(&login);
        stream.write_all(&wrong(highest)).unwrap();
        drop(stream);
        assert_eq!(text(&login.output(&sh("echo still")).stdout), "still\n");
    }
}

#[test]
fn garbage_from_a_local_client_does_no_harm() {
    let login = Login::warm();
    let agent = login.pid();
    for garbage in [&[0xff; 100][..], b"\0\0\0\x02{}", b"\0\0\0\x00", b"GET / HTTP/1.0\r\n\r\n"] {
        let mut stream = UnixStream::connect(login.socket()).unwrap();
        stream.write_all(garbage).unwrap();
    }
    assert_eq!(text(&login.output(&sh("echo still")).stdout), "still\n");
    assert_eq!(login.pid(), agent);
}
