//! One host of many: its connection, its command, its output, its end.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::Bytes;
use labsh_proto::message::Stream;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::{Broadcast, Crew, End, Event, Host, Wish};
use crate::child::{ChildStderr, ChildStdin, ChildStdout};
use crate::command::Stdio;
use crate::error::{CommandError, ConnectError};
use crate::session::Session;

/// After so long a connection that is still being opened makes room for others: it costs nothing but patience.
const SLOW: Duration = Duration::from_millis(500);

/// Before the first new attempt; each further one waits twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(250);

const SIGINT: u8 = 2;

pub(super) async fn run(crew: &Crew, index: usize, host: Host) {
    let begun = Instant::now();
    let end = if crew.enough() { End::NotBegun } else { attempt(crew, index, &host).await };
    if !end.success() {
        crew.failed.send_replace(true);
    }
    let _ = crew.events.send(Event::Over(index, end, begun.elapsed())).await;
}

async fn attempt(crew: &Crew, index: usize, host: &Host) -> End {
    let mut wish = crew.wish.clone();
    let _ = crew.events.send(Event::Begun(index)).await;
    let left = async {
        if wish.wait_for(|wish| *wish == Wish::Leave).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let work = async {
        let session = match connect(crew, host).await {
            Ok(session) => session,
            Err(error) => return classify(CommandError::Connect(error)),
        };
        let end = command(crew, index, &session).await;
        session.close().await;
        end
    };
    tokio::select! {
        end = work => end,
        () = left => End::Lost(CommandError::Lost("you left; the host ends what still runs".into())),
    }
}

/// Connects, as often as was allowed. What has been sent by then starts nothing, so trying again is safe.
async fn connect(crew: &Crew, host: &Host) -> Result<Session, ConnectError> {
    let mut left = crew.retries;
    let mut wait = RETRY_AFTER;
    loop {
        match open(crew, host).await {
            Err(
                ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } | ConnectError::Broken { .. },
            ) if left > 0 && !crew.enough() => {}
            connected => return connected,
        }
        sleep(wait).await;
        left -= 1;
        wait *= 2;
    }
}

async fn open(crew: &Crew, host: &Host) -> Result<Session, ConnectError> {
    let place = crew.connecting.acquire().await;
    let mut attempt = std::pin::pin!(Session::connect_early(&host.connection));
    tokio::select! {
        connected = &mut attempt => return connected,
        () = sleep(SLOW) => drop(place),
    }
    attempt.await
}

async fn command(crew: &Crew, index: usize, session: &Session) -> End {
    let work = &crew.work;
    let mut command = session.program(work.program.clone());
    for (name, value) in &work.environment {
        command.env_bytes(name, value);
    }
    if let Some(directory) = &work.directory {
        command.current_dir(OsStr::from_bytes(directory));
    }
    if let Some(user) = &work.user {
        command.user(user);
    }
    if let Some(timeout) = work.timeout {
        command.timeout(timeout);
    }
    command.until(work.until);
    command.stdin(if work.stdin.is_some() { Stdio::Piped } else { Stdio::Null });
    let mut child = match command.open().await {
        Ok(child) => child,
        Err(error) => return classify(error),
    };
    match child.started().await {
        Ok(_) => {
            let _ = crew.events.send(Event::Started(index)).await;
        }
        Err(error) => return classify(error),
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
    let mut interrupted = false;
    loop {
        tokio::select! {
            exited = &mut output => {
                return match exited {
                    Ok(status) => End::Ended(status),
                    Err(error) => classify(error),
                };
            }
            fed = &mut input, if feeding => {
                feeding = false;
                if let Err(error) = fed {
                    // Half an input must not look like all of it: the host ends a command that loses its client.
                    return End::Lost(CommandError::Lost(format!("standard input cannot be read: {error}")));
                }
            }
            Ok(_) = wish.wait_for(|wish| *wish >= Wish::Interrupt), if !interrupted => {
                interrupted = true;
                child.signal(SIGINT);
            }
        }
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
        // A command that reads no more, or a connection that has gone, shows in how the command ended.
        if stdin.send(bytes).await.is_err() {
            return Ok(());
        }
    }
    let _ = stdin.shutdown().await;
    Ok(())
}

fn classify(error: CommandError) -> End {
    match &error {
        CommandError::Bad(_) | CommandError::Refused(_) | CommandError::Exhausted => End::Refused(error),
        CommandError::Connect(connect) => match connect {
            ConnectError::Unreachable { .. }
            | ConnectError::Timeout { .. }
            | ConnectError::PortIsPlain { .. }
            | ConnectError::Foreign { .. }
            | ConnectError::Protocol { .. } => End::Unreachable(error),
            ConnectError::WrongServer { .. } | ConnectError::Refused { .. } => End::Refused(error),
            // The command may have been on its way.
            ConnectError::Broken { .. } => End::Lost(error),
        },
        CommandError::Lost(_) | CommandError::Incomplete { .. } => End::Lost(error),
    }
}
