//! Blocking access to a command's streams, for the copying threads.

use std::io::{self, Read, Write};

use bytes::Bytes;
use labsh_client::{ChildStdin, ChildStdout};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Stops the copying threads when it is dropped.
pub(super) struct Hold {
    /// Nothing is ever sent.
    _gone: watch::Sender<()>,
}

/// Observes [`Hold`] while a thread waits.
#[derive(Clone)]
pub(super) struct Held(watch::Receiver<()>);

impl Hold {
    pub(super) fn new() -> (Self, Held) {
        let (sender, receiver) = watch::channel(());
        (Self { _gone: sender }, Held(receiver))
    }
}

impl Held {
    /// Waits for an operation, or for the order to stop.
    fn wait<T>(
        &mut self,
        runtime: &Handle,
        what: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        runtime.block_on(async {
            tokio::select! {
                biased;
                done = what => done,
                _ = self.0.changed() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it \
                    was left")),
            }
        })
    }
}

/// Reads the command's stdout.
pub(super) struct FromCommand {
    pub(super) runtime: Handle,
    pub(super) stdout: ChildStdout,
    pub(super) held: Held,
}

impl Read for FromCommand {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.held.wait(&self.runtime, self.stdout.read(buffer))
    }
}

/// Writes the command's stdin; dropping it is the end of input.
pub(super) struct ToCommand {
    pub(super) runtime: Handle,
    pub(super) stdin: ChildStdin,
    pub(super) held: Held,
}

impl Write for ToCommand {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len();
        self.held.wait(&self.runtime, self.stdin.send(Bytes::copy_from_slice(bytes)))?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
