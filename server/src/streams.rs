//! The streams of one command: three pipes, or one terminal.

use std::io;
use std::sync::Arc;

use labsh_proto::frame::ChannelId;
use labsh_proto::message::Stream;
use labsh_transport::multiplexer::Multiplexer;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::pump::{self, OutputEnd};
use crate::spawner::Streams;
use crate::terminal::Terminal;
use crate::wake_order;

/// labshd's end of a command's stdin.
#[derive(Debug)]
pub(crate) enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
}

/// labshd's ends of a command's output.
#[derive(Debug)]
pub(crate) enum Output {
    Pipes { stdout: pipe::Receiver, stderr: pipe::Receiver },
    Terminal(Arc<Terminal>),
}

/// Registers a command's streams with the runtime. Returns its input, its output, and its terminal,
/// if it has one.
///
/// # Errors
///
/// When the runtime cannot watch a descriptor.
pub(crate) fn watch(streams: Streams) -> io::Result<(Input, Output, Option<Arc<Terminal>>)> {
    match streams {
        Streams::Pipes { stdin, stdout, stderr } => {
            let stdout = pipe::Receiver::from_owned_fd(stdout)?;
            let stderr = pipe::Receiver::from_owned_fd(stderr)?;
            let stdin = pipe::Sender::from_owned_fd(stdin)?;
            Ok((Input::Pipe(stdin), Output::Pipes { stdout, stderr }, None))
        }
        Streams::Terminal(master) => {
            let terminal = Arc::new(Terminal::new(master)?);
            Ok((
                Input::Terminal(terminal.clone()),
                Output::Terminal(terminal.clone()),
                Some(terminal),
            ))
        }
    }
}

impl Input {
    /// Copies stdin from the channel until its end, or until the command stops reading.
    pub(crate) async fn copy(self, multiplexer: &Multiplexer, id: ChannelId) {
        match self {
            Self::Pipe(pipe) => pump::copy_input(multiplexer, id, pipe).await,
            Self::Terminal(terminal) => pump::type_input(multiplexer, id, &terminal).await,
        }
    }
}

impl Output {
    /// Copies stdout and stderr to the channel until their ends, as [`pump::copy_output`] does. If
    /// the client stops reading a terminal's output, `reader_gone` is cancelled: unlike a pipe, a
    /// terminal cannot be closed to stop the command.
    pub(crate) async fn copy(
        self,
        multiplexer: &Multiplexer,
        id: ChannelId,
        ending: &CancellationToken,
        reader_gone: &CancellationToken,
    ) {
        match self {
            Self::Pipes { stdout, stderr } => {
                // Their order matters: a reader may act on one before it gets the other.
                wake_order::join(
                    pump::copy_output(multiplexer, id, Stream::Stdout, stdout, ending),
                    pump::copy_output(multiplexer, id, Stream::Stderr, stderr, ending),
                )
                .await;
            }
            Self::Terminal(terminal) => {
                // A terminal has a single output.
                multiplexer.with(|channels| channels.finish(id, Stream::Stderr));
                let terminal = &*terminal;
                let end =
                    pump::copy_output(multiplexer, id, Stream::Stdout, terminal, ending).await;
                if end == OutputEnd::ReaderStopped {
                    reader_gone.cancel();
                    pump::discard_output(&terminal, ending).await;
                }
            }
        }
    }
}
