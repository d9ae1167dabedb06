//! Many commands on one connection, many connections, through the client library.

use std::time::Duration;

use labsh_client::{CommandError, ConnectError, Session, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Labshd, PATIENCE, eventually, is_alive, text};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_commands_at_once_each_get_their_own_output() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut running = JoinSet::new();
    for number in 0..200 {
        let session = session.clone();
        running.spawn(async move {
            let script = format!("echo {number}; seq 1 2000; echo error {number} >&2; exit {}", number % 7);
            (number, session.shell(script).output().await)
        });
    }
    let sequence: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    while let Some(outcome) = running.join_next().await {
        let (number, output) = outcome.unwrap();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some((number % 7) as u8));
        assert!(text(&output.stdout) == format!("{number}\n{sequence}"), "stdout of {number}");
        assert_eq!(text(&output.stderr), format!("error {number}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_beyond_the_limit_wait_for_their_turn() {
    let labshd = Labshd::with("max_channels = 3");
    let session = labshd.session().await;
    let mut running = JoinSet::new();
    for _ in 0..50 {
        let session = session.clone();
        running.spawn(async move { session.command("true").status().await });
    }
    while let Some(status) = running.join_next().await {
        assert!(status.unwrap().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_connections_at_once() {
    let labshd = Labshd::start();
    let mut running = JoinSet::new();
    for number in 0..50_u8 {
        let options = labshd.options();
        running.spawn(async move {
            let session = Session::connect(&options).await.unwrap();
            let status = session.shell(format!("exit {number}")).status().await.unwrap();
            assert_eq!(status.code(), Some(number));
        });
    }
    while let Some(outcome) = running.join_next().await {
        outcome.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_and_a_reader_that_sleeps_delay_nobody_else() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let flood = session.command("yes").stdout(Stdio::Null).spawn().await.unwrap();
    // Piped and never read: its window fills, and there it stops.
    let asleep = session.command("yes").spawn().await.unwrap();
    for _ in 0..100 {
        let status = timeout(PATIENCE, session.command("true").status()).await.unwrap().unwrap();
        assert!(status.success());
    }
    drop((flood, asleep));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_child_ends_its_command_and_leaves_the_session() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    let session = labshd.session().await;
    let child = session.command("sleep").arg("1000").spawn().await.unwrap();
    let pid = child.started().await.unwrap() as i32;
    assert!(is_alive(pid));
    drop(child);
    eventually("the command is gone", || !is_alive(pid));
    assert!(session.command("true").status().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_piped_both_ways_while_the_command_runs() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut child = session.command("cat").stdin(Stdio::Piped).spawn().await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for line in ["one\n", "two\n", "three\n"] {
        stdin.write_all(line.as_bytes()).await.unwrap();
        let mut back = vec![0; line.len()];
        stdout.read_exact(&mut back).await.unwrap();
        assert_eq!(text(&back), line);
    }
    drop(stdin);
    assert_eq!(stdout.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_whole_group() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let mut child = session.shell("sleep 1000 | sleep 1000").spawn().await.unwrap();
    child.signal(15);
    assert_eq!(child.wait().await.unwrap().signal(), Some(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_types() {
    let labshd = Labshd::start();
    let session = labshd.session().await;
    let missing = session.command("no-such-program-anywhere").output().await.unwrap_err();
    assert!(
        matches!(&missing, CommandError::Refused(refuse) if refuse.code.name() == "not-found"),
        "{missing}"
    );
    let nul = session.command("a\0b").output().await.unwrap_err();
    assert!(matches!(nul, CommandError::Bad(_)), "{nul}");
    let mut options = labshd.options();
    options.key = labshd.key.for_host(&labsh_proto::key::HostId::new("elsewhere").unwrap());
    let wrong = Session::connect(&options).await.unwrap_err();
    assert!(matches!(wrong, ConnectError::WrongServer { .. }), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_the_servers_and_is_told() {
    let labshd = Labshd::with("termination_grace = '100ms'");
    let session = labshd.session().await;
    let mut command = session.shell("trap '' TERM; echo on; while :; do sleep 1; done");
    let output = command.timeout(Duration::from_millis(300)).output().await.unwrap();
    assert!(output.status.timed_out());
    assert_eq!((output.status.signal(), text(&output.stdout).as_str()), (Some(9), "on\n"));
}
