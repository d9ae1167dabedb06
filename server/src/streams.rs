//! The streams of one command together: three pipes, or one terminal.

use std::io;
use std::sync::Arc;

use labsh_proto::frame::ChannelId;
use labsh_proto::message::Stream;
use labsh_transport::multiplexer::Multiplexer;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::pump::{self, Carried};
use crate::spawner::Streams;
use crate::terminal::Terminal;

/// Where a command's stdin goes.
#[derive(Debug)]
pub(crate) enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
}

/// Where a command's output comes from.
#[derive(Debug)]
pub(crate) enum Output {
    Pipes { stdout: pipe::Receiver, stderr: pipe::Receiver },
    Terminal(Arc<Terminal>),
}

/// Both directions of a command that was just spawned, and its terminal, if it has one.
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
    /// Carries stdin until its end, or until nobody reads it.
    pub(crate) async fn carry(self, multiplexer: &Multiplexer, id: ChannelId) {
        match self {
            Self::Pipe(pipe) => pump::input(multiplexer, id, pipe).await,
            Self::Terminal(terminal) => pump::typing(multiplexer, id, &terminal).await,
        }
    }
}

impl Output {
    /// Carries both outputs until their ends, as [`pump::output`] does. Where the client reads no
    /// more of a terminal, `reader_gone` is cancelled: there is no pipe whose end would tell the
    /// command.
    pub(crate) async fn carry(
        self,
        multiplexer: &Multiplexer,
        id: ChannelId,
        ending: &CancellationToken,
        reader_gone: &CancellationToken,
    ) {
        match self {
            Self::Pipes { stdout, stderr } => {
                tokio::join!(
                    pump::output(multiplexer, id, Stream::Stdout, stdout, ending),
                    pump::output(multiplexer, id, Stream::Stderr, stderr, ending),
                );
            }
            Self::Terminal(terminal) => {
                // A terminal has one output.
                multiplexer.with(|channels| channels.finish(id, Stream::Stderr));
                let terminal = &*terminal;
                if pump::output(multiplexer, id, Stream::Stdout, terminal, ending).await
                    == Carried::Stopped
                {
                    reader_gone.cancel();
                    pump::discard(&terminal, ending).await;
                }
            }
        }
    }
}
