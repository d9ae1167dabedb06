//! The driver for ordinary commands: shared input, output as events, and signals.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use labsh_proto::message::Stream;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::{Broadcast, Driver, Event, StopLevel};
use crate::child::{Child, ChildStderr, ChildStdin, ChildStdout, SIGINT, SIGTERM};
use crate::error::CommandError;
use crate::exit_status::ExitStatus;

/// How long the output of a command that has ended may stay open and silent before the other
/// processes that hold it are reported, or no longer waited for.
const LEFTOVERS_DELAY: Duration = Duration::from_secs(1);

/// How long a host may take to answer once the run is being stopped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends every command the same input, and passes its output on.
#[derive(Debug)]
pub(super) struct StreamDriver {
    pub(super) stdin: Option<Broadcast>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stop: watch::Receiver<StopLevel>,
    /// Whether the hosts wait until other processes have closed the output as well.
    pub(super) waits_for_streams: bool,
}

impl Driver for StreamDriver {
    async fn drive(&self, host: usize, mut child: Child) -> Result<ExitStatus, CommandError> {
        let stdin = child.stdin.take().zip(self.stdin.clone());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let activity = Activity::default();
        let output = async {
            tokio::join!(
                self.copy(host, Stream::Stdout, stdout.map(Output::Stdout), &activity),
                self.copy(host, Stream::Stderr, stderr.map(Output::Stderr), &activity),
            );
            child.exited().await
        };
        let mut output = std::pin::pin!(output);
        let mut input = std::pin::pin!(feed(stdin));
        let (mut is_feeding, mut reported) = (true, !self.waits_for_streams);
        let mut stop = self.stop.clone();
        let mut signaled = StopLevel::None;
        loop {
            let stopping = signaled != StopLevel::None;
            let held_open = async {
                let Ok(status) = child.ended().await else { return std::future::pending().await };
                activity.quiet(stopping).await;
                status
            };
            // A host that does not answer has not received the signal.
            let unreachable = async {
                if timeout(ANSWER_TIMEOUT, child.ping()).await.is_ok() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                exited = &mut output => return exited,
                () = unreachable, if signaled >= StopLevel::Terminate => {
                    let reason = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
                    return Err(CommandError::Lost(reason));
                }
                fed = &mut input, if is_feeding => {
                    is_feeding = false;
                    // The command must not take half an input for all of it. It loses its client
                    // instead, and the host ends it.
                    fed.map_err(|error| CommandError::Input(error.into()))?;
                }
                level = higher_than(&mut stop, signaled) => {
                    signaled = level;
                    if let Some(status) = child.end_status() {
                        return Ok(ExitStatus::without_output(status, activity.totals()));
                    }
                    let signal = if level == StopLevel::Interrupt { SIGINT } else { SIGTERM };
                    let _ = child.signal(signal);
                }
                status = held_open, if stopping || !reported => {
                    if stopping {
                        return Ok(ExitStatus::without_output(status, activity.totals()));
                    }
                    reported = true;
                    let _ = self.events.send(Event::Leftovers(host)).await;
                }
            }
        }
    }
}

/// The output that was passed on so far.
#[derive(Debug, Default)]
struct Activity {
    bytes: [AtomicU64; 2],
    /// How many pieces wait until the reader of the events takes them.
    waiting: AtomicUsize,
}

impl Activity {
    fn totals(&self) -> [u64; 2] {
        [0, 1].map(|stream| self.bytes[stream].load(Ordering::Relaxed))
    }

    /// Resolves once no output was passed on for [`LEFTOVERS_DELAY`], and none waits for the reader
    /// of the events, who does not count when the run is `stopping`.
    async fn quiet(&self, stopping: bool) {
        loop {
            let before = self.totals();
            sleep(LEFTOVERS_DELAY).await;
            let waits = self.waiting.load(Ordering::Relaxed) > 0 && !stopping;
            if !waits && self.totals() == before {
                return;
            }
        }
    }
}

impl StreamDriver {
    /// Sends the output of one stream as events, until it ends or no one receives them.
    async fn copy(&self, host: usize, stream: Stream, from: Option<Output>, activity: &Activity) {
        let Some(mut from) = from else { return };
        let total = &activity.bytes[usize::from(stream == Stream::Stderr)];
        while let Some(bytes) = from.next().await {
            let length = bytes.len();
            activity.waiting.fetch_add(1, Ordering::Relaxed);
            let sent = self.events.send(Event::Output(host, stream, bytes)).await;
            activity.waiting.fetch_sub(1, Ordering::Relaxed);
            if sent.is_err() {
                return;
            }
            total.fetch_add(length as u64, Ordering::Relaxed);
            from.consumed(length);
        }
    }
}

/// Waits for a level above the one that the command was already signaled for.
async fn higher_than(stop: &mut watch::Receiver<StopLevel>, signaled: StopLevel) -> StopLevel {
    match stop.wait_for(|level| *level > signaled).await.map(|level| *level) {
        Ok(level) => level,
        Err(_) => std::future::pending().await,
    }
}

enum Output {
    Stdout(ChildStdout),
    Stderr(ChildStderr),
}

impl Output {
    async fn next(&mut self) -> Option<Bytes> {
        // If the connection is lost, `Child::exited` returns the error.
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

/// Writes the input to the command's stdin, until it ends or the command stops reading.
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
        // That the command stops reading is not an error; `Child::exited` reports a lost
        // connection.
        if stdin.send(bytes).await.is_err() {
            return Ok(());
        }
    }
    let _ = stdin.shutdown().await;
    Ok(())
}
