//! Follows a running command to its end: copies its output, waits for its exit, serves the user.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use labsh_client::{Child, ChildStderr, ChildStdout, Command, Session};
use labsh_proto::message::Program;
use tokio::sync::oneshot;

use crate::flags::CommandFlags;
use crate::remote::local_streams::{Activity, write_out};
use crate::remote::outcome::Outcome;

/// How long the output may stay open and silent after the command has ended before the user gets
/// the reason for the wait.
const LEFTOVERS_NOTICE_DELAY: Duration = Duration::from_secs(1);

/// The end of a command, and whether the reader of stdout had gone by then.
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) stdout_closed: bool,
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, stdout_closed: false }
    }
}

/// The local user of a command, a person or a program: signals and keys that are not input.
pub(crate) trait LocalUser {
    /// Waits for a signal or a key and acts on it; returns an outcome if labsh is to leave.
    /// Cancel safe. `only_leftovers`: the command has ended, and the user has been notified that
    /// other processes hold its output open.
    async fn attend(&mut self, child: &Child, only_leftovers: bool) -> Option<Outcome>;

    /// Shows a line while the command still runs.
    fn notify(&self, text: &str);
}

/// Builds the command as the options describe it, without its stdin; sends nothing.
pub(crate) fn command(session: &Session, program: &Program, options: &CommandFlags) -> Command {
    let mut command = session.program(program.clone());
    command.options(options.remote());
    command
}

/// Copies the command's output to stdout and stderr until the command and both streams have ended.
/// `stdin_error` resolves with an error if local stdin cannot be read to its end, and never
/// otherwise.
pub(crate) async fn follow(
    mut child: Child,
    stdin_error: Option<oneshot::Receiver<io::Error>>,
    no_wait_eof: bool,
    user: &mut impl LocalUser,
) -> End {
    let mut stdin_error = std::pin::pin!(async {
        match stdin_error {
            Some(error) => error.await,
            None => std::future::pending().await,
        }
    });
    let mut reading = true;
    let activity = Arc::new(Activity::default());
    let output = copy_output(child.stdout.take(), child.stderr.take(), &activity);
    let mut output = std::pin::pin!(output);
    let mut written = None;
    let mut only_leftovers = false;
    let ended = loop {
        let held_open = async {
            if child.ended().await.is_err() {
                return std::future::pending().await;
            }
            // Output that a slow local reader or a slow link delays is not held open.
            activity.quiet(LEFTOVERS_NOTICE_DELAY).await;
        };
        tokio::select! {
            result = &mut output, if written.is_none() => written = Some(result),
            () = held_open, if written.is_none() && !only_leftovers && !no_wait_eof => {
                only_leftovers = true;
                user.notify(
                    "the command has ended, but a process that it left behind holds its output \
                     open; waiting for that (--no-wait-eof leaves at once)",
                );
            }
            result = child.exited(), if written.is_some() => break result,
            failure = &mut stdin_error, if reading => {
                reading = false;
                if let Ok(error) = failure {
                    return Outcome::NotRead { error }.into();
                }
            }
            left = user.attend(&child, only_leftovers) => {
                if let Some(outcome) = left {
                    activity.abandon().await;
                    return outcome.into();
                }
            }
        }
    };
    let written = written.unwrap_or(Written { stdout: Ok(()), stderr: Ok(()) });
    let stdout_closed = written.stdout.as_ref().is_err_and(is_broken_pipe);
    let outcome = match (written.failure(), ended) {
        (Some((stream, error)), _) => Outcome::NotWritten { stream, error },
        (None, Ok(status)) => Outcome::Ended(status),
        (None, Err(error)) => Outcome::Failed(error),
    };
    End { outcome, stdout_closed }
}

/// Whether each output could be written here.
struct Written {
    stdout: io::Result<()>,
    stderr: io::Result<()>,
}

impl Written {
    /// Returns the first output that could not be written, unless its reader has closed it.
    fn failure(self) -> Option<(&'static str, io::Error)> {
        let outputs = [("standard output", self.stdout), ("standard error", self.stderr)];
        let error = |result: io::Result<()>| result.err().filter(|error| !is_broken_pipe(error));
        outputs.into_iter().find_map(|(stream, result)| Some((stream, error(result)?)))
    }
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

async fn copy_output(
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    activity: &Arc<Activity>,
) -> Written {
    let (stdout, stderr) = tokio::join!(
        async {
            match stdout {
                Some(from) => write_out(from, io::stdout(), activity.clone()).await,
                None => Ok(()),
            }
        },
        async {
            match stderr {
                Some(from) => write_out(from, io::stderr(), activity.clone()).await,
                None => Ok(()),
            }
        },
    );
    Written { stdout, stderr }
}
