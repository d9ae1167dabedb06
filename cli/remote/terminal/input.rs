//! What is typed, on its way to a terminal over there: read where it comes, by a task at a terminal
//! of ours and otherwise by a thread, and passed on by another task, which waits for room, so that
//! an escape is seen even where the command reads nothing.

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

/// The most that is read at once, in bytes.
const MAX_READ: usize = 16 << 10;

/// How many reads may wait for the command before no more is read, and so no escape seen: a quarter
/// of a MiB of typing ahead, as a terminal gives at most 4 KiB at once.
const MAX_PENDING_READS: usize = 64;

/// Our stdin while it is the command's. Nothing more is read once this is dropped: what is typed
/// then is for whoever has the terminal next.
pub(crate) struct Input {
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    _reading: Reading,
}

/// Who reads; dropped, it reads no more.
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

/// What there is to pass on.
enum Typed {
    Keys(Bytes),
    End,
}

/// Passes what is typed on to the command and sorts out the escapes. The receiver hears if reading
/// fails. The command sees an end only where stdin has one: not where reading fails, nor where the
/// user leaves.
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

/// Hands it to the command as fast as that takes it.
async fn pass_on(mut passed: mpsc::Receiver<Typed>, mut to: ChildStdin) {
    loop {
        match passed.recv().await {
            Some(Typed::Keys(keys)) => {
                if to.send(keys).await.is_err() {
                    // The command reads no more; escapes still count.
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
    /// What of it is for the command.
    fn sort(&mut self, typed: &[u8]) -> Option<Typed> {
        let mut keys = Vec::with_capacity(typed.len() + 1);
        self.escapes.sort(typed, &mut keys, |request| {
            // Nobody listens any more once the session is over.
            let _ = self.ask.send(request);
        });
        (!keys.is_empty()).then(|| Typed::Keys(keys.into()))
    }
}

/// Until it fails. Where nobody takes what is passed on any more, the session is over, and escapes
/// still count.
async fn read_terminal(
    terminal: &OwnTerminal,
    sorting: &mut Sorting,
    pass: &mpsc::Sender<Typed>,
) -> io::Error {
    let mut buffer = vec![0; MAX_READ];
    loop {
        match terminal.read(&mut buffer).await {
            // A raw terminal has no end of file; it has gone.
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

/// Until it fails or ends, or nobody wants it any more.
fn read_blocking(
    stopped: &PipeReader,
    sorting: &mut Sorting,
    pass: &mpsc::Sender<Typed>,
) -> Option<io::Error> {
    let stdin = io::stdin();
    // Asked now: one that has gone no longer looks like one. It is one where we may not open it
    // anew.
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
            // A raw terminal has no end of file; it has gone.
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
