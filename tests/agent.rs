//! Commands through a connection that is open already: as through one of their own, and everything
//! that may go wrong.

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
use crate::support::agent::Kept;
use crate::support::screen::Screen;
use crate::support::*;

#[test]
fn the_second_command_opens_no_connection() {
    let kept = Kept::warm();
    for number in 0..5 {
        let output = kept.through_the_agent(|| {
            kept.output(&sh(&format!("echo {number}; echo err >&2; exit {number}")))
        });
        assert_eq!(text(&output.stdout), format!("{number}\n"));
        assert_eq!(text(&output.stderr), "err\n");
        assert_eq!(output.status.code(), Some(number));
    }
}

#[test]
fn a_client_whose_input_does_not_end_gives_the_connection_back() {
    let kept = Kept::warm();
    for _ in 0..3 {
        kept.through_the_agent(|| {
            let mut client = kept.run(&["true"]).stdin(Stdio::piped()).spawn().unwrap();
            let input = client.stdin.take();
            assert!(client.wait().unwrap().success());
            drop(input);
        });
    }
}

/// The messages of some pieces of a conversation but for questions whether the other is there, and
/// who said each.
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
    let kept = Kept::start();
    // In plain mode, where the messages can be read on the way.
    let proxy = Proxy::start(kept.0.plain, Cut::Pass);
    let run = || {
        let mut labsh = kept.labsh();
        labsh.args(["run", "-n", "--plain", &proxy.address.to_string(), "true"]);
        super::support::run(&mut labsh)
    };
    run();
    kept.idle();
    let said = kept.through_the_agent(|| {
        let before = proxy.pieces().len();
        run();
        // What the client says last may still be on its way.
        let said = || messages(&proxy.pieces()[before..]);
        eventually("the channel is closed", || said().contains(&(Side::Client, Kind::Close)));
        said()
    });
    assert_eq!(said[0], (Side::Client, Kind::Open), "{said:?}");
    // Behind its command and the end of its input the client says nothing until it has heard
    // everything.
    let first = said.iter().position(|(side, _)| *side == Side::Server).unwrap();
    let exit = said.iter().position(|(_, kind)| *kind == Kind::Exit).unwrap();
    let between = &said[first..exit];
    assert!(
        between.iter().all(|(side, kind)| *side == Side::Server || *kind == Kind::Eof),
        "{said:?}"
    );
    assert_eq!(said.last(), Some(&(Side::Client, Kind::Close)), "{said:?}");
}

#[test]
fn everything_arrives_whole_and_input_too() {
    let kept = Kept::warm();
    let output =
        kept.through_the_agent(|| kept.output(&sh("seq 1 3000000 & seq 1 2000000 >&2; wait")));
    assert!(output.status.success());
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines(&output.stdout), lines(&output.stderr)), (3_000_000, 2_000_000));
    assert!(output.stdout.ends_with(b"\n3000000\n") && output.stderr.ends_with(b"\n2000000\n"));
    let input = output.stdout;
    let back = kept.through_the_agent(|| feed(&mut kept.run(&["cat"]), &input));
    assert!(back.stdout == input);
}

#[test]
fn tools_that_run_ssh_have_it_as_well() {
    let kept = Kept::warm();
    let output = kept.through_the_agent(|| {
        pipe_through(&mut kept.rsh(&[HOST, "cat; echo err >&2; exit 7"]), b"\xff\0in")
    });
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"\xff\0in"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_terminal_has_its_sizes_and_signals() {
    let kept = Kept::warm();
    let session = format!("export LABSH_KEEP=5m XDG_RUNTIME_DIR={}", kept.runtime().display());
    let Some(screen) = Screen::start(&kept.0, &session) else { return };
    let script = "echo [$(stty size)]; trap 'echo [$(stty size)]' WINCH; trap 'exit 5' INT; while \
        :; do read -t 0.1; done";
    fs::write(kept.0.file("script"), script).unwrap();
    kept.through_the_agent(|| {
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
    let kept = Kept::warm();
    let mut client =
        Running::start(&mut kept.run(&sh(
            "trap 'echo got; exit 7' INT; echo ready; while :; do read x; sleep 0.05; done",
        )));
    assert_eq!(client.line(), "ready");
    client.signal(2);
    assert_eq!(client.line(), "got");
    assert_eq!(client.finish().status.code(), Some(7));
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let kept = Kept::warm();
    let output = kept
        .through_the_agent(|| in_shell("\"$@\" | head -1", &kept.run(&["yes"])).output().unwrap());
    assert_eq!(text(&output.stdout), "y\n");
    assert!(kept.output(&["true"]).status.success());
}

/// A command that does not end by itself, and its process id.
fn sleeper(kept: &Kept) -> (Running, i32) {
    let mut client = Running::start(&mut kept.run(&sh("echo $$; exec sleep 1000")));
    let pid = client.pid_line();
    (client, pid)
}

#[test]
fn a_client_that_is_killed_takes_its_command_along() {
    let kept = Kept::warm();
    let (client, pid) = kept.through_the_agent(|| sleeper(&kept));
    client.signal(9);
    eventually("the command ends", || !is_alive(pid));
    // Its connection stays.
    kept.through_the_agent(|| assert!(kept.output(&["true"]).status.success()));
}

#[test]
fn a_client_that_is_stopped_keeps_its_command_and_holds_up_nobody() {
    let kept = Kept::warm();
    let client = kept.through_the_agent(|| {
        let mut client = Running::start(&mut kept.run(&sh("seq 1 2000000; echo end")));
        assert_eq!(client.line(), "1");
        client.signal(19);
        client
    });
    for _ in 0..3 {
        assert_eq!(text(&kept.output(&sh("echo other")).stdout), "other\n");
    }
    client.signal(18);
    let output = client.finish();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 2_000_000);
    assert!(output.stdout.ends_with(b"\n2000000\nend\n"));
}

#[test]
fn an_agent_that_is_killed_is_a_lost_connection_and_then_replaced() {
    let kept = Kept::warm();
    let agent = kept.pid().unwrap();
    let (client, command) = kept.through_the_agent(|| sleeper(&kept));
    kill(agent, 9);
    let end = client.finish();
    assert_eq!(end.status.code(), Some(255), "{}", text(&end.stderr));
    assert!(text(&end.stderr).contains("the connection was lost"), "{}", text(&end.stderr));
    eventually("the command ends", || !is_alive(command));
    assert!(kept.socket().exists());
    kept.warm_up();
    assert_ne!(kept.pid(), Some(agent));
}

#[test]
fn a_host_that_goes_is_a_lost_connection_and_is_forgotten() {
    let mut kept = Kept::warm();
    let (client, _) = kept.through_the_agent(|| sleeper(&kept));
    kept.0.child.kill().unwrap();
    kept.0.wait();
    assert_eq!(client.finish().status.code(), Some(255));
    eventually("nothing is kept", || kept.list().is_empty());
    let output = kept.output(&["true"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("cannot connect to"), "{}", text(&output.stderr));
}

#[test]
fn a_host_that_hangs_is_given_up_as_soon_as_without_an_agent() {
    let kept = Kept::start();
    let attempt = || {
        kept.run(&["true"])
            .env("LABSH_CONNECT_TIMEOUT", "2s")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert!(attempt().status.success());
    kept.idle();
    kept.0.signal(19);
    let output = attempt();
    kept.0.signal(18);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{told}");
    // What a client finds out by itself on a connection that is open takes 45 seconds.
    assert!(!told.contains("was silent for"), "{told}");
    kept.warm_up();
}

#[test]
fn a_host_that_is_told_to_end_does_not_wait_for_idle_connections() {
    let mut kept = Kept::warm();
    kept.0.signal(15);
    assert_eq!(kept.0.wait(), Some(0));
    eventually("nothing is kept", || kept.list().is_empty());
}

#[test]
fn a_key_that_is_removed_over_there_is_not_used_any_more() {
    let kept = Kept::warm();
    for entry in fs::read_dir(kept.0.path().join("keys.d")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    kept.0.reload();
    assert!(!kept.output(&["true"]).status.success());
    eventually("nothing is kept", || kept.list().is_empty());
}

#[test]
fn a_key_that_is_replaced_or_removed_here_is_not_used_any_more() {
    let kept = Kept::warm();
    let file = kept.0.path().join("config/labsh/keys/test.key");
    fs::remove_file(&file).unwrap();
    // The same name, another secret, which that host does not know.
    run(kept.labsh().args(["key", "new", "test"]));
    let output = kept.output(&["true"]);
    assert_eq!(output.status.code(), Some(255), "{}", text(&output.stderr));
    kept.idle();
    fs::remove_file(&file).unwrap();
    let output = kept.output(&["true"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
}

#[test]
fn two_hundred_commands_from_as_many_processes() {
    let kept = Kept::warm();
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let kept = &kept;
            scope.spawn(move || {
                for number in 0..25 {
                    let word = format!("{lane}.{number}");
                    let output = kept.output(&["echo", &word]);
                    assert_eq!(text(&output.stdout), word + "\n", "{}", text(&output.stderr));
                    assert!(output.status.success());
                }
            });
        }
    });
}

/// What a client asks to be lent this connection.
fn lend(kept: &Kept) -> Vec<u8> {
    let network = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let (address, name) = (kept.0.tls, kept.0.host_key().name().0);
    let route = serde_json::json!({
        "host": address.ip().to_string(), "port": address.port(), "plain": false, "name": name,
        "network": network, "features": Features::SUPPORTED.0,
    });
    said(&serde_json::json!({ "Lend": { "route": route, "keep": { "secs": 0, "nanos": 0 } } }))
}

fn said(message: &serde_json::Value) -> Vec<u8> {
    let body = message.to_string();
    [&(body.len() as u32).to_be_bytes()[..], body.as_bytes()].concat()
}

/// The socket, once a connection was lent on it, and the highest channel that was used.
fn borrow(kept: &Kept) -> (UnixStream, u32) {
    let ask = || {
        let mut stream = UnixStream::connect(kept.socket())?;
        stream.write_all(&lend(kept))?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body)?;
        let answer: serde_json::Value = serde_json::from_slice(&body)?;
        if let Some(lent) = answer.get("Lent") {
            // Clients go by it as if the host had told them.
            assert_eq!(lent["features"], Features::SUPPORTED.0);
            assert_eq!(lent["version"], concat!("labshd ", env!("CARGO_PKG_VERSION")));
        }
        std::io::Result::Ok(
            answer["Lent"]["highest"].as_u64().map(|highest| (stream, highest as u32)),
        )
    };
    let mut lent = None;
    // What is kept for no time may end at the very moment at which it is lent.
    eventually("a connection is lent", || {
        kept.warm_up();
        lent = ask().ok().flatten();
        lent.is_some()
    });
    lent.unwrap()
}

#[test]
fn whatever_a_client_does_with_a_connection_the_next_one_is_served() {
    let kept = Kept::warm();
    let goodbye = || message(&Goodbye::new(""), 0);
    let frames: [&dyn Fn(u32) -> Vec<u8>; 7] = [
        // Nothing; no frame; half of one; what a host would say; a channel that was used; one that
        // never ends.
        &|_| Vec::new(),
        &|_| vec![0xff; 100],
        &|id| open(id + 1, &["true"])[..20].to_vec(),
        &|id| bytes(Kind::Stdout, id + 1, b"x"),
        &|id| open(id, &["true"]),
        &|id| [open(id + 1, &["sleep", "1000"]), goodbye()].concat(),
        &|id| [open(id + 1, &["sleep", "1000"]), close(id + 1), goodbye()].concat(),
    ];
    for wrong in frames {
        let (mut stream, highest) = borrow(&kept);
        stream.write_all(&wrong(highest)).unwrap();
        drop(stream);
        assert_eq!(text(&kept.output(&sh("echo still")).stdout), "still\n");
    }
}

#[test]
fn garbage_from_a_local_client_harms_nobody() {
    let kept = Kept::warm();
    let agent = kept.pid();
    for garbage in [&[0xff; 100][..], b"\0\0\0\x02{}", b"\0\0\0\x00", b"GET / HTTP/1.0\r\n\r\n"] {
        let mut stream = UnixStream::connect(kept.socket()).unwrap();
        stream.write_all(garbage).unwrap();
    }
    assert_eq!(text(&kept.output(&sh("echo still")).stdout), "still\n");
    assert_eq!(kept.pid(), agent);
}
