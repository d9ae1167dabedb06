//! One host of many: its connection, its command, its output, its end.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::Bytes;
use labsh_proto::message::Stream;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep};

use super::{Broadcast, Crew, End, Event, Host, Wish};
use crate::child::Stdio;
use crate::child::{ChildStderr, ChildStdin, ChildStdout};
use crate::error::{CommandError, ConnectError};
use crate::session::Session;

/// Before the first new attempt; each further one waits twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(250);

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// A place among the hosts at work, or none for now.
type Turn = Option<OwnedSemaphorePermit>;

pub(super) async fn run(crew: &Crew, index: usize, host: Host, mut turn: Turn) {
    let begun = Instant::now();
    let (end, session) = match crew.enough() {
        true => (End::NotBegun, None),
        false => attempt(crew, index, &host, &mut turn).await,
    };
    if !end.success() {
        crew.failed.send_replace(true);
    }
    let _ = crew.events.send(Event::Over(index, end, begun.elapsed())).await;
    drop(turn);
    // Only now: saying goodbye to a host that has stopped reading takes a while.
    if let Some(session) = session {
        session.close().await;
    }
}

async fn attempt(
    crew: &Crew,
    index: usize,
    host: &Host,
    turn: &mut Turn,
) -> (End, Option<Session>) {
    let mut wish = crew.wish.clone();
    let _ = crew.events.send(Event::Begun(index)).await;
    let left = async {
        if wish.wait_for(|wish| *wish == Wish::Leave).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let work = async {
        let mut stop = crew.wish.clone();
        let connected = tokio::select! {
            biased;
            // Nothing has been sent that could start anything.
            Ok(_) = stop.wait_for(|wish| *wish != Wish::Finish) => return (End::NotBegun, None),
            connected = connect(crew, host, turn) => connected,
        };
        let session = match connected {
            Ok(session) => session,
            Err(error) => return (no_session(error), None),
        };
        if turn.is_none() {
            tokio::select! {
                biased;
                Ok(_) = stop.wait_for(|wish| *wish != Wish::Finish) => return (End::NotBegun,
                    Some(session)),
                next = crew.turn() => *turn = next,
            }
        }
        (command(crew, index, host, &session).await, Some(session))
    };
    tokio::select! {
        ended = work => ended,
        () = left => {
            let why = "labsh left before the command had ended";
            (End::Lost(CommandError::Lost(why.into())), None)
        }
    }
}

/// Connects, as often as was allowed. What has been sent by then starts nothing, so trying again is
/// safe.
async fn connect(crew: &Crew, host: &Host, turn: &mut Turn) -> Result<Session, ConnectError> {
    let mut left = crew.retries;
    let mut wait = RETRY_AFTER;
    loop {
        match open(crew, host, turn).await {
            Err(
                ConnectError::Unreachable { .. }
                | ConnectError::Timeout { .. }
                | ConnectError::Broken { .. },
            ) if left > 0 && !crew.enough() => {}
            connected => return connected,
        }
        sleep(wait).await;
        left -= 1;
        wait *= 2;
    }
}

async fn open(crew: &Crew, host: &Host, turn: &mut Turn) -> Result<Session, ConnectError> {
    super::open(&crew.connecting, Session::connect_early(&host.connection), || {
        // Where a failure is to stop the others, they wait for it.
        if !crew.stop_at_failure {
            *turn = None;
        }
    })
    .await
}

async fn command(crew: &Crew, index: usize, host: &Host, session: &Session) -> End {
    let work = &crew.work;
    let mut command = session.program(work.program.clone());
    for (name, value) in &work.environment {
        command.env_bytes(name, value);
    }
    if let Some(directory) = &work.directory {
        command.current_dir(OsStr::from_bytes(directory));
    }
    if let Some(user) = &host.user {
        command.user(user);
    }
    if let Some(timeout) = work.timeout {
        command.timeout(timeout);
    }
    command.until(work.until);
    let piped = work.stdin.is_some() || work.companion.is_some();
    command.stdin(if piped { Stdio::Piped } else { Stdio::Null });
    let mut child = match command.open().await {
        Ok(child) => child,
        Err(error) => return End::of(error),
    };
    match child.started().await {
        Ok(_) => {
            let _ = crew.events.send(Event::Started(index)).await;
        }
        Err(error) => return End::of(error),
    }
    if let Some(companion) = &work.companion {
        return companion.attend(index, child).await.map_or_else(End::of, End::Ended);
    }
    let stdin = child.stdin.take().zip(work.stdin.clone());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = async {
        tokio::join!(
            copy(crew, index, Stream::Stdout, stdout.map(Output::Stdout)),
            copy(crew, index, Stream::Stderr, stderr.map(Output::Stderr)),
        );
        child.exited().await
    };
    let mut output = std::pin::pin!(output);
    let mut input = std::pin::pin!(feed(stdin));
    let mut feeding = true;
    let mut wish = crew.wish.clone();
    let mut told = Wish::Finish;
    loop {
        tokio::select! {
            exited = &mut output => {
                return match exited {
                    Ok(status) => End::Ended(status),
                    Err(error) => End::of(error),
                };
            }
            fed = &mut input, if feeding => {
                feeding = false;
                if let Err(error) = fed {
                    // Half an input must not look like all of it: the host ends a command that
                    // loses its client.
                    return End::Lost(CommandError::Input(error.into()));
                }
            }
            now = next(&mut wish, told) => {
                told = now;
                let _ = child.signal(if now == Wish::Interrupt { SIGINT } else { SIGTERM });
            }
        }
    }
}

/// What is wished beyond what the command was told already.
async fn next(wish: &mut watch::Receiver<Wish>, told: Wish) -> Wish {
    match wish.wait_for(|wish| *wish > told).await.map(|wish| *wish) {
        Ok(wish) => wish,
        Err(_) => std::future::pending().await,
    }
}

enum Output {
    Stdout(ChildStdout),
    Stderr(ChildStderr),
}

impl Output {
    async fn next(&mut self) -> Option<Bytes> {
        // A lost connection shows in how the command ended.
        match self {
            Output::Stdout(stdout) => stdout.next().await.unwrap_or(None),
            Output::Stderr(stderr) => stderr.next().await.unwrap_or(None),
        }
    }

    fn consumed(&self, bytes: usize) {
        match self {
            Output::Stdout(stdout) => stdout.consumed(bytes),
            Output::Stderr(stderr) => stderr.consumed(bytes),
        }
    }
}

async fn copy(crew: &Crew, index: usize, stream: Stream, from: Option<Output>) {
    let Some(mut from) = from else { return };
    while let Some(bytes) = from.next().await {
        let length = bytes.len();
        if crew.events.send(Event::Output(index, stream, bytes)).await.is_err() {
            return;
        }
        from.consumed(length);
    }
}

/// Gives the command its input, as far as it takes it.
async fn feed(stdin: Option<(ChildStdin, Broadcast)>) -> io::Result<()> {
    let Some((mut stdin, mut input)) = stdin else { return Ok(()) };
    let mut position = 0;
    loop {
        let bytes = tokio::select! {
            bytes = input.read(position) => bytes?,
            () = stdin.closed() => return Ok(()),
        };
        let Some(bytes) = bytes else { break };
        position += bytes.len() as u64;
        // A command that reads no more, or a connection that has gone, shows in how the command
        // ended.
        if stdin.send(bytes).await.is_err() {
            return Ok(());
        }
    }
    let _ = stdin.shutdown().await;
    Ok(())
}

/// Where no session came about, nothing can have been started.
pub(super) fn no_session(error: ConnectError) -> End {
    match error {
        ConnectError::Broken { .. } => End::Unreachable(CommandError::Connect(error)),
        _ => End::of(CommandError::Connect(error)),
    }
}
