//! Both ends refuse what exceeds a limit, and name the limit.

use std::process::Stdio;

use labsh_client::CommandError;
use labsh_proto::limits;
use labsh_proto::message::{BadCommand, Refuse, RefuseCode, Status};

use crate::peer::{
    Peer, assert_well, close, open, open_body, open_body_with_variables, open_frames,
};
use crate::support::{Labshd, eventually, text};

const LONGEST_WORD: usize = limits::MAX_WORD_WITH_NUL - 1;

#[test]
fn long_command_lines_arrive_complete() {
    let labshd = Labshd::start();
    let words: Vec<String> = (0..1_024).map(|number| format!("{number:0100}")).collect();
    let mut arguments = vec!["sh", "-c", "printf '%s\\n' \"$@\" | sha256sum; echo $#", "sh"];
    arguments.extend(words.iter().map(String::as_str));
    let output = labshd.output(&arguments);
    let mut expected = String::new();
    words.iter().for_each(|word| expected += &format!("{word}\n"));
    use sha2::Digest;
    let digest: String = sha2::Sha256::digest(expected.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(text(&output.stdout), format!("{digest}  -\n1024\n"));

    let word = "x".repeat(LONGEST_WORD);
    let output = labshd.output(&["sh", "-c", "echo ${#1}", "sh", &word]);
    assert_eq!(text(&output.stdout), "131071\n", "{}", text(&output.stderr));
}

#[tokio::test]
async fn labsh_refuses_what_is_too_long_before_it_sends_it() {
    let labshd = Labshd::start();
    // Two words that fit on a command line, joined for the remote shell.
    let half = "x".repeat(70_000);
    let mut labsh = labshd.labsh();
    labsh.args(["run", "--shell", &labshd.target(), &half, &half]);
    let output = labsh.stdin(Stdio::null()).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("140001 bytes long, the limit is 131071"), "{stderr}");
    assert!(stderr.contains("send long data on standard input"), "{stderr}");
    // More than a megabyte of words.
    let word = "x".repeat(LONGEST_WORD);
    let output = labshd.output(&[&["echo"][..], &[word.as_str(); 9]].concat());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("longer than 1 MiB, the limit"), "{stderr}");
    // More than a local command line can hold, with the library.
    let session = labshd.session().await;
    let refused = session.command("echo").arg("x".repeat(limits::MAX_WORD_WITH_NUL)).output().await;
    let length = limits::MAX_WORD_WITH_NUL;
    let what = "a word of the command";
    assert!(
        matches!(&refused, Err(CommandError::Bad(bad)) if *bad == BadCommand::Word { what,
            length }),
        "{refused:?}"
    );
    let refused = session.command("echo").arg("a\0b").output().await;
    assert!(matches!(refused, Err(CommandError::Bad(BadCommand::Nul(_)))), "{refused:?}");
    let mut command = session.command("echo");
    for number in 0..=limits::MAX_VARIABLES {
        command.env(format!("A{number}"), "");
    }
    let refused = command.output().await;
    assert!(
        matches!(refused, Err(CommandError::Bad(BadCommand::TooManyVariables(1_025)))),
        "{refused:?}"
    );
    assert_eq!(session.command("echo").arg("well").output().await.unwrap().stdout, b"well\n");
    labshd.log().wait_for("command ended");
    assert_eq!(labshd.log().count("command started"), 1);
}

#[test]
fn labshd_refuses_what_is_too_long_from_any_client() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    let word = vec![b'x'; limits::MAX_WORD_WITH_NUL];
    let longest = &word[1..];
    let fill = limits::MAX_COMMAND - open_body(&[b"echo", b""]).len();
    let exactly = |length: usize| {
        // Eight words of the greatest length, and the rest.
        let mut words: Vec<&[u8]> = vec![b"true"];
        let mut left = length - open_body(&words).len();
        while left > 0 {
            let size = (left - 8).min(100_000);
            words.push(&longest[..size]);
            left -= size + 8;
        }
        let body = open_body(&words);
        assert_eq!(body.len(), length);
        body
    };
    assert!(fill > LONGEST_WORD);
    let mut id = 0;
    let mut ask = |body: &[u8]| -> Result<Status, Refuse> {
        id += 1;
        peer.send(&open_frames(id, body));
        loop {
            let frame = peer.next().unwrap();
            match frame.kind {
                labsh_proto::frame::Kind::Refuse => {
                    peer.send(&close(id));
                    return Err(labsh_proto::message::Body::from_frame(&frame).unwrap());
                }
                labsh_proto::frame::Kind::Exit => {
                    peer.send(&close(id));
                    let exit: labsh_proto::message::Exit =
                        labsh_proto::message::Body::from_frame(&frame).unwrap();
                    return Ok(exit.status);
                }
                _ => {}
            }
        }
    };
    for (body, limit) in [
        (
            open_body(&[b"echo", &word]),
            "a word of the command is 131072 bytes long, the limit is 131071",
        ),
        (exactly(limits::MAX_COMMAND + 1), "longer than 1 MiB, the limit"),
        (open_body(&[b"echo", b"a\0b"]), "a word of the command contains a NUL byte"),
        (open_body_with_variables(limits::MAX_VARIABLES + 1), "1025 environment variables, the"),
        (open_body(&[]), "the command is empty"),
        (open_body(&[b""]), "the command is empty"),
    ] {
        let refuse = ask(&body).unwrap_err();
        assert_eq!(refuse.code, RefuseCode::BAD_COMMAND);
        assert!(refuse.reason.contains(limit), "{refuse:?}");
        assert!(!refuse.remedy.is_empty());
    }
    assert_eq!(labshd.log().count("command started"), 0);
    assert_eq!(ask(&open_body(&[b"true", longest])), Ok(Status::Exited(0)));
    assert_eq!(ask(&exactly(limits::MAX_COMMAND)), Ok(Status::Exited(0)));
    assert_eq!(ask(&open_body_with_variables(limits::MAX_VARIABLES)), Ok(Status::Exited(0)));
    assert_well(&labshd);
}

#[tokio::test]
async fn more_commands_than_channels_wait_for_one() {
    let labshd = Labshd::with("max_channels = 2");
    let session = labshd.session().await;
    let tasks: Vec<_> = (0..10)
        .map(|number: u32| {
            let session = session.clone();
            tokio::spawn(
                async move { session.command("echo").arg(number.to_string()).output().await },
            )
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap().unwrap().stdout, format!("{number}\n").as_bytes());
    }
}

#[test]
fn a_connection_beyond_the_limit_is_refused_as_busy() {
    let labshd = Labshd::with("max_connections = 2");
    let mut first = Peer::authenticated(&labshd);
    let second = Peer::authenticated(&labshd);
    let output = labshd.output(&["true"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(
        stderr.contains("reached its limit on connections") && stderr.contains("max_connections"),
        "{stderr}"
    );
    labshd.log().wait_for("reached its limit on connections");
    first.check(1);
    drop(second);
    eventually("there is room again", || labshd.output(&["true"]).status.code() == Some(0));
    first.send(&open(2, &["true"]));
    first.finish(2);
}

#[test]
fn one_key_leaves_connections_to_another() {
    let labshd = Labshd::with("max_connections = 16");
    let other_key = labshd.another_key("other");
    let crowd: Vec<Peer> = (0..14).map(|_| Peer::authenticated(&labshd)).collect();
    let refuse = Peer::connect(labshd.plain).try_authenticate(&labshd).unwrap_err();
    assert_eq!(refuse.code, RefuseCode::BUSY);
    assert!(refuse.reason.contains("its limit: 14"), "{refuse:?}");
    assert!(refuse.remedy.contains("max_connections_per_key"), "{refuse:?}");
    let mut other = Peer::authenticated_with(&labshd, &other_key);
    other.check(1);
    drop((crowd, other));
    assert_well(&labshd);

    let labshd = Labshd::with("max_connections_per_key = 1");
    let only = Peer::authenticated(&labshd);
    let stderr = text(&labshd.output(&["true"]).stderr);
    assert!(stderr.contains("its limit: 1"), "{stderr}");
    drop(only);
    eventually("there is room again", || labshd.output(&["true"]).status.code() == Some(0));
}
