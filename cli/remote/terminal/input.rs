//! Passes keys to a terminal on the host. One task or thread reads them, another sends them and
//! waits for flow control, so that an escape is recognised even while the command reads nothing.

use std::io::{self, IsTerminal, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::thread;

use bytes::Bytes;
use labsh_client::ChildStdin;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::remote::own_terminal::OwnTerminal;
use crate::remote::terminal::escapes::{Escapes, Request};

/// The maximum size of a read, in bytes.
const MAX_READ: usize = 16 << 10;

/// The maximum number of reads that wait for the command; beyond it nothing is read, and no escape
/// is recognised. A terminal returns at most 4 KiB at once, so this is 256 KiB of keys.
const MAX_PENDING_READS: usize = 64;

/// Reads local stdin for the command. Dropped, it reads no more, and the next reader of the
/// terminal gets further keys.
pub(crate) struct Input {
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    _reading: Reading,
}

/// The reader, a task or a thread; dropped, it stops.
enum Reading {
    Task(AbortHandle),
    Thread(#[expect(dead_code, reason = "its end is what the thread waits for")] PipeWriter),
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Self::Task(task) = self {
            task.abort();
        }
    }
}

/// A message from the reader to the sender.
enum Typed {
    Keys(Bytes),
    End,
}

/// Starts to pass keys to the command and to recognise escapes. The receiver resolves if reading
/// fails. The command sees an end of input only if stdin ends, not if reading fails or the user
/// leaves.
pub(crate) fn read_keys(
    to: ChildStdin,
    escapes: Escapes,
) -> io::Result<(Input, oneshot::Receiver<io::Error>)> {
    let (ask, requests) = mpsc::unbounded_channel();
    let (pass, passed) = mpsc::channel(MAX_PENDING_READS);
    let (fail, failed) = oneshot::channel();
    tokio::spawn(pass_on(passed, to));
    let mut sorting = Sorting { escapes, ask };
    let reading = match OwnTerminal::to_read(io::stdin()) {
        Some(terminal) => {
            let task = tokio::spawn(async move {
                let error = read_terminal(&terminal, &mut sorting, &pass).await;
                let _ = fail.send(error);
            });
            Reading::Task(task.abort_handle())
        }
        None => {
            let (stopped, stop) = io::pipe()?;
            thread::Builder::new().name("keys".into()).spawn(move || {
                if let Some(error) = read_blocking(&stopped, &mut sorting, &pass) {
                    let _ = fail.send(error);
                }
            })?;
            Reading::Thread(stop)
        }
    };
    Ok((Input { requests, _reading: reading }, failed))
}

/// Sends keys to the command as fast as it accepts them.
async fn pass_on(mut passed: mpsc::Receiver<Typed>, mut to: ChildStdin) {
    loop {
        match passed.recv().await {
            Some(Typed::Keys(keys)) => {
                if to.send(keys).await.is_err() {
                    // The command stopped reading; escapes still work.
                    return;
                }
            }
            Some(Typed::End) => return drop(to),
            None => return to.leave_open(),
        }
    }
}

struct Sorting {
    escapes: Escapes,
    ask: mpsc::UnboundedSender<Request>,
}

impl Sorting {
    /// Separates the escapes and queues the rest for the command.
    fn sort(&mut self, typed: &[u8]) -> Option<Typed> {
        let mut keys = Vec::with_capacity(typed.len() + 1);
        self.escapes.sort(typed, &mut keys, |request| {
            // The receiver has gone once the session is over.
            let _ = self.ask.send(request);
        });
        (!keys.is_empty()).then(|| Typed::Keys(keys.into()))
    }
}

/// Reads a terminal until it fails. When the queue has closed the session is over.
async fn read_terminal(
    terminal: &OwnTerminal,
    sorting: &mut Sorting,
    pass: &mpsc::Sender<Typed>,
) -> io::Error {
    let mut buffer = vec![0; MAX_READ];
    loop {
        match terminal.read(&mut buffer).await {
            // A raw terminal has no end of file, so an empty read means that it has gone.
            Ok(0) => return Errno::EIO.into(),
            Ok(count) => {
                if let Some(keys) = sorting.sort(&buffer[..count]) {
                    let _ = pass.send(keys).await;
                }
            }
            Err(error) => return error,
        }
    }
}

/// Reads a descriptor in a thread until it fails, ends, or the reader is dropped.
fn read_blocking(
    stopped: &PipeReader,
    sorting: &mut Sorting,
    pass: &mpsc::Sender<Typed>,
) -> Option<io::Error> {
    let stdin = io::stdin();
    // Checked before reading, because a terminal that has gone no longer looks like one. Here it is
    // a terminal that could not be opened again.
    let is_terminal = stdin.is_terminal();
    let mut buffer = vec![0; MAX_READ];
    loop {
        let mut ready =
            [stdin.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let polled = poll(&mut ready, PollTimeout::NONE);
        if polled.is_ok() && ready[1].any() != Some(false) {
            return None;
        }
        match polled.and_then(|_| nix::unistd::read(stdin.as_fd(), &mut buffer)) {
            // A raw terminal has no end of file, so an empty read means that it has gone.
            Ok(0) if is_terminal => return Some(Errno::EIO.into()),
            Ok(0) => {
                if let Some(held) = sorting.escapes.rest() {
                    let _ = pass.blocking_send(Typed::Keys(Bytes::copy_from_slice(&[held])));
                }
                let _ = pass.blocking_send(Typed::End);
                return None;
            }
            Ok(count) => {
                if let Some(keys) = sorting.sort(&buffer[..count]) {
                    let _ = pass.blocking_send(keys);
                }
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Some(error.into()),
        }
    }
}
