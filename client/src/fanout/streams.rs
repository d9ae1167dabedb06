//! The driver for ordinary commands: shared input, output as events, and signals.

use std::io;

use bytes::Bytes;
use labsh_proto::message::Stream;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};

use super::{Broadcast, Driver, Event, StopLevel};
use crate::child::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, SIGINT, SIGTERM};
use crate::error::CommandError;

/// Sends every command the same input, and passes its output on.
#[derive(Debug)]
pub(super) struct StreamDriver {
    pub(super) stdin: Option<Broadcast>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stop: watch::Receiver<StopLevel>,
}

impl Driver for StreamDriver {
    async fn drive(&self, host: usize, mut child: Child) -> Result<ExitStatus, CommandError> {
        let stdin = child.stdin.take().zip(self.stdin.clone());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let output = async {
            tokio::join!(
                self.copy(host, Stream::Stdout, stdout.map(Output::Stdout)),
                self.copy(host, Stream::Stderr, stderr.map(Output::Stderr)),
            );
            child.exited().await
        };
        let mut output = std::pin::pin!(output);
        let mut input = std::pin::pin!(feed(stdin));
        let mut is_feeding = true;
        let mut stop = self.stop.clone();
        let mut signaled = StopLevel::None;
        loop {
            tokio::select! {
                exited = &mut output => return exited,
                fed = &mut input, if is_feeding => {
                    is_feeding = false;
                    // The command must not take half an input for all of it. It loses its client
                    // instead, and the host ends it.
                    fed.map_err(|error| CommandError::Input(error.into()))?;
                }
                level = higher_than(&mut stop, signaled) => {
                    signaled = level;
                    let signal = if level == StopLevel::Interrupt { SIGINT } else { SIGTERM };
                    let _ = child.signal(signal);
                }
            }
        }
    }
}

impl StreamDriver {
    /// Sends the output of one stream as events, until it ends or no one receives them.
    async fn copy(&self, host: usize, stream: Stream, from: Option<Output>) {
        let Some(mut from) = from else { return };
        while let Some(bytes) = from.next().await {
            let length = bytes.len();
            if self.events.send(Event::Output(host, stream, bytes)).await.is_err() {
                return;
            }
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
