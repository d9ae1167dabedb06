//! What is typed, on its way to a terminal over there: a blocking thread, since the descriptor is shared with others, and a
//! task that waits for room, so that an escape is seen even where the command reads nothing.

use std::io::{self, IsTerminal, PipeWriter};
use std::os::fd::AsFd;
use std::thread;

use bytes::Bytes;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

use crate::child::ChildStdin;
use crate::cli::interactive::escapes::{Escapes, Request};

/// The most that is read at once, in bytes.
const CHUNK: usize = 16 << 10;

/// How many reads may wait for the command before no more is read, and so no escape seen: 1 MiB of typing ahead.
const WAITING: usize = 64;

/// Our stdin while it is the command's. Nothing more is read once this is dropped: what is typed then is for whoever has
/// the terminal next.
pub(crate) struct Input {
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    _stop: PipeWriter,
}

/// Passes what is typed on to the command and sorts out the escapes. The receiver hears if reading fails; then the
/// command must not take what it got for the whole, so it sees no end either.
pub(crate) fn read_keys(
    mut to: ChildStdin,
    mut escapes: Escapes,
) -> io::Result<(Input, oneshot::Receiver<io::Error>)> {
    let (ask, requests) = mpsc::unbounded_channel();
    let (pass, mut passed) = mpsc::channel::<Bytes>(WAITING);
    let (fail, failed) = oneshot::channel();
    let (stopped, stop) = io::pipe()?;
    tokio::spawn(async move {
        while let Some(bytes) = passed.recv().await {
            if to.send(bytes).await.is_err() {
                // The command reads no more; escapes still count.
                passed.close();
            }
        }
    });
    thread::Builder::new().name("keys".into()).spawn(move || {
        let stdin = io::stdin();
        let mut buffer = vec![0; CHUNK];
        loop {
            let mut ready = [stdin.as_fd(), stopped.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            if poll(&mut ready, PollTimeout::NONE).is_err() {
                continue;
            }
            if ready[1].any() != Some(false) {
                return;
            }
            let error = match nix::unistd::read(stdin.as_fd(), &mut buffer) {
                // A raw terminal has no end of file; it has gone.
                Ok(0) if stdin.is_terminal() => Errno::EIO,
                Ok(0) => {
                    if let Some(held) = escapes.rest() {
                        let _ = pass.blocking_send(Bytes::copy_from_slice(&[held]));
                    }
                    return;
                }
                Ok(count) => {
                    let mut keys = Vec::with_capacity(count + 1);
                    escapes.sort(&buffer[..count], &mut keys, |request| {
                        // Nobody listens any more once the session is over.
                        let _ = ask.send(request);
                    });
                    if !keys.is_empty() {
                        let _ = pass.blocking_send(keys.into());
                    }
                    continue;
                }
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                Err(error) => error,
            };
            let _ = fail.send(error.into());
            // Its drop would be the command's end-of-file.
            return std::mem::forget(pass);
        }
    })?;
    Ok((Input { requests, _stop: stop }, failed))
}
