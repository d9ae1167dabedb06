//! The client library: many commands and connections at once, which do not affect each other.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use labsh_client::{Address, Child, CommandError, ConnectError, ConnectOptions, Session, Stdio};
use labsh_proto::key::HostId;
use labsh_proto::message::{RefuseCode, Until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Labshd, TEST_TIMEOUT, eventually, is_alive, sh_on};

/// Awaits a future, and panics after the timeout of the tests.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, what).await.expect("it never came")
}

/// Echoes numbers, each with a command of its own, all at once.
async fn echo_all(session: &Session, count: usize) {
    let mut commands = JoinSet::new();
    for number in 0..count {
        let session = session.clone();
        commands.spawn(async move {
            let output = session.command("echo").arg(number.to_string()).output().await.unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap().trim().parse::<usize>().unwrap()
        });
    }
    let found: HashSet<usize> = soon(commands.join_all()).await.into_iter().collect();
    assert_eq!(found.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_commands_run_at_once_on_one_connection() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    // All commands wait for the same event, so all of them must run at once.
    let gate = labshd.file("gate");
    assert!(session.command("mkfifo").arg(&gate).status().await.unwrap().success());
    let mut children = Vec::new();
    for number in 0..200 {
        let line = format!("read line < {gate}; exit {number}");
        children.push(soon(sh_on(&session, &line).spawn()).await.unwrap());
    }
    labshd.log().wait_for_nth("command started", 201);
    let opener = format!("exec 3<>{gate}; for i in $(seq 200); do echo go >&3; done; sleep 300");
    let opener = sh_on(&session, &opener).spawn().await.unwrap();
    for (number, mut child) in children.into_iter().enumerate() {
        assert_eq!(soon(child.wait()).await.unwrap().code(), Some(number as u8));
    }
    drop(opener);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_beyond_the_limit_wait_for_their_turn() {
    let labshd = Labshd::with("max_channels = 4");
    echo_all(&labshd.session().await, 60).await;
    echo_all(&Session::connect(&labshd.plain_options()).await.unwrap(), 20).await;
    assert_eq!(labshd.log().count("refused"), 0, "{}", labshd.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_connections_at_once_all_authenticate() {
    let labshd = Labshd::start();
    let mut sessions = JoinSet::new();
    for number in 0..50 {
        let options = if number % 2 == 0 { labshd.options() } else { labshd.plain_options() };
        sessions.spawn(async move {
            let session = Session::connect(&options).await.unwrap();
            session.command("echo").arg("here").output().await.unwrap().stdout
        });
    }
    assert!(soon(sessions.join_all()).await.iter().all(|stdout| stdout == b"here\n"));
    labshd.log().wait_for_nth("authenticated", 50);
    assert_eq!(labshd.log().count("authenticated"), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_blocks_no_other_channel() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut ignored = Vec::new();
    for _ in 0..4 {
        ignored.push(session.command("yes").spawn().await.unwrap());
    }
    echo_all(&session, 50).await;
    let pids: Vec<i32> = (1..=4).map(|count| labshd.command_pid(count)).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // No output was lost for the commands that were not read.
    let mut first = ignored.remove(0);
    let mut bytes = vec![0; 4 << 20];
    soon(first.stdout.as_mut().unwrap().read_exact(&mut bytes)).await.unwrap();
    assert!(bytes.chunks(2).all(|line| line == b"y\n"));
    drop((first, ignored));
    eventually("all are gone", || !pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_on_one_channel_does_not_delay_commands_on_another() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut flood = session.command("yes").spawn().await.unwrap();
    let mut stdout = flood.stdout.take().unwrap();
    let reading = tokio::spawn(async move {
        let mut total = 0;
        while let Ok(Some(bytes)) = stdout.next().await {
            total += bytes.len();
            stdout.consumed(bytes.len());
        }
        total
    });
    for _ in 0..50 {
        // Far more than it takes, and far less than behind the flood.
        let status = timeout(Duration::from_secs(5), session.command("true").status()).await;
        assert!(status.expect("stuck behind the flood").unwrap().success());
    }
    flood.signal(15).unwrap();
    assert_eq!(soon(flood.wait()).await.unwrap().signal(), Some(15));
    assert!(soon(reading).await.unwrap() > 1 << 20, "there was no flood");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_child_ends_its_command() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    let session = labshd.session().await;
    let child = sh_on(&session, "trap '' HUP; sleep 300; sleep 300").spawn().await.unwrap();
    let pid = child.started().await.unwrap() as i32;
    assert!(is_alive(pid));
    drop(child);
    eventually("it is gone", || !is_alive(pid));
    assert!(session.command("true").status().await.unwrap().success(), "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lasts_as_long_as_anyone_uses_it() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut cat = session.command("cat").stdin(Stdio::Piped).spawn().await.unwrap();
    let clone = session.clone();
    drop(session);
    assert_eq!(clone.command("echo").arg("x").output().await.unwrap().stdout, b"x\n");
    drop(clone);
    let mut stdin = cat.stdin.take().unwrap();
    stdin.write_all(b"still here").await.unwrap();
    drop(stdin);
    assert_eq!(soon(cat.wait_with_output()).await.unwrap().stdout, b"still here");
    labshd.log().wait_for("session ended");
    assert_eq!(labshd.log().count("authenticated"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_run_in_three_ways() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let both = session.shell("echo out; echo err >&2; exit 3");
    let output = both.output().await.unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!((output.status.code(), output.status.totals()), (Some(3), (4, 4)));
    // The output is discarded, and its writer must not notice.
    let status = session.shell("head -c 3000000 /dev/zero && echo done").status().await.unwrap();
    assert_eq!((status.code(), status.totals()), (Some(0), (3_000_005, 0)));

    let mut child = session.command("cat").stdin(Stdio::Piped).spawn().await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answer = [0; 4];
    for question in [b"ping", b"pong"] {
        stdin.write_all(question).await.unwrap();
        soon(stdout.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, question);
    }
    stdin.shutdown().await.unwrap();
    assert_eq!(stdout.read(&mut answer).await.unwrap(), 0);
    assert!(soon(child.wait()).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_command() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut child = session.command("sleep").arg("300").spawn().await.unwrap();
    child.signal(9).unwrap();
    let status = soon(child.wait()).await.unwrap();
    assert_eq!((status.signal(), status.code(), status.success()), (Some(9), None, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_command_on_an_ending_connection_is_an_error() {
    let labshd = Labshd::start();
    for _ in 0..200 {
        let session = labshd.session().await;
        let mut commands = JoinSet::new();
        for _ in 0..8 {
            let session = session.clone();
            commands.spawn(async move {
                let refused = async || {
                    let output = soon(session.command("no-such-program").output()).await;
                    matches!(output, Err(CommandError::Refused(_)))
                };
                while refused().await {}
            });
        }
        session.close().await;
        while let Some(result) = commands.join_next().await {
            result.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_session_reports_that_it_was_closed() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    // It outlives the signal that labshd sends it, so that its end cannot arrive first.
    let script = "trap '' HUP TERM; echo; while :; do sleep 1; done";
    let mut command = sh_on(&session, script);
    let mut child = command.stdout(Stdio::Piped).spawn().await.unwrap();
    child.stdout.as_mut().unwrap().read_u8().await.unwrap();
    session.clone().close().await;
    for error in [
        soon(child.wait()).await.unwrap_err(),
        soon(session.command("true").output()).await.unwrap_err(),
        soon(session.ping()).await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "the connection was lost: this client closed it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_command_still_has_its_process_id() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut child = sh_on(&session, "echo $$").open().await.unwrap();
    let mut own = String::new();
    soon(child.stdout.take().unwrap().read_to_string(&mut own)).await.unwrap();
    assert!(soon(child.exited()).await.unwrap().success());
    assert_eq!(child.started().await.unwrap().to_string(), own.trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_signal_is_an_error_and_harms_no_command() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut child = session.command("sleep").arg("300").spawn().await.unwrap();
    for number in [0, 32, 255] {
        assert!(child.signal(number).unwrap_err().to_string().contains("from 1 to 31"));
    }
    assert!(soon(session.command("true").status()).await.unwrap().success());
    child.signal(15).unwrap();
    assert_eq!(soon(child.wait()).await.unwrap().signal(), Some(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_written_before_the_end_arrives_before_the_end() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    for _ in 0..100 {
        let output = session.shell("printf x").until(Until::CommandEnds).output().await.unwrap();
        assert_eq!(output.stdout, b"x");
    }
}

async fn refused(child: Result<Child, CommandError>) -> RefuseCode {
    match child {
        Err(CommandError::Refused(refuse)) => {
            assert!(!refuse.reason.is_empty() && !refuse.remedy.is_empty());
            refuse.code
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_for_not_starting_is_an_error_of_its_own() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    assert_eq!(
        refused(session.command("no-such-program").spawn().await).await,
        RefuseCode::NOT_FOUND
    );
    assert_eq!(
        refused(session.command("/etc/passwd").spawn().await).await,
        RefuseCode::NOT_EXECUTABLE
    );
    let mut command = session.command("true");
    assert_eq!(refused(command.current_dir("/no/such").spawn().await).await, RefuseCode::DIRECTORY);
    let mut command = session.command("true");
    assert_eq!(
        refused(command.env("LD_PRELOAD", "x").spawn().await).await,
        RefuseCode::ENVIRONMENT
    );
    for bad in ["a\0b".to_owned(), "x".repeat(1 << 20)] {
        let error = session.command("echo").arg(bad).spawn().await.unwrap_err();
        assert!(matches!(error, CommandError::Bad(_)), "{error:?}");
    }
    // A refusal affects only its command.
    assert!(session.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_for_not_connecting_is_an_error_of_its_own() {
    let labshd = Labshd::start();
    let stranger = labshd.key.for_host(&HostId::new("elsewhere").unwrap());
    let address = labshd.options().address;
    let error =
        Session::connect(&ConnectOptions::new(address, stranger.clone())).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongServer { .. }), "{error:?}");
    let options = ConnectOptions { key: stranger, ..labshd.plain_options() };
    let error = Session::connect(&options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    let options = ConnectOptions { mode: labshd.options().mode, ..labshd.plain_options() };
    let error = Session::connect(&options).await.unwrap_err();
    assert!(matches!(error, ConnectError::PortIsPlain { .. }), "{error:?}");
    let nowhere = Address::Unix(labshd.path().join("nothing-here"));
    let error =
        Session::connect(&ConnectOptions::new(nowhere, labshd.host_key())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_a_lost_connection_for_every_command() {
    let mut labshd = Labshd::start();
    let session = labshd.session().await;
    let mut child = session.command("sleep").arg("300").spawn().await.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    labshd.signal(9);
    labshd.wait();
    assert!(matches!(soon(child.wait()).await, Err(CommandError::Lost(_))));
    for _ in 0..2 {
        assert!(soon(stdout.next()).await.is_err(), "a lost stream is no end of file");
    }
    assert!(matches!(soon(session.command("true").output()).await, Err(CommandError::Lost(_))));
    assert!(soon(session.ping()).await.is_err());
}
