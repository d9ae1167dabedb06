//! Follows a running command to its end: copies its output, waits for its exit, serves the user.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use labsh_client::{Child, ChildStderr, ChildStdout, Command, SIGINT, Session};
use labsh_proto::message::{Program, Status};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::flags::CommandFlags;
use crate::remote::local_streams::{Activity, write_out};
use crate::remote::outcome::Outcome;
use crate::signals::EndSignal;

/// How long the output may stay open and silent after the command has ended. Then a user who has
/// asked labsh to end need not wait longer, and any other gets the reason for the wait.
const LEFTOVERS_DELAY: Duration = Duration::from_secs(1);

/// How many times as long a local reader that takes nothing delays the end of labsh when the user
/// has asked for it.
const READER_INTERVALS: u32 = 5;

/// How long a host may take to answer when the user has asked for the end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const LEFTOVERS_NOTICE: &str = "the command has ended, but a process that it left behind holds its \
    output open; waiting for that (--no-wait-eof leaves at once)";

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
    /// Cancel safe.
    async fn attend(&mut self, child: &Child) -> Option<Outcome>;

    /// Returns the last signal to labsh that was passed on to the command.
    fn passed_on(&self) -> Option<EndSignal>;

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
    let mut notified = no_wait_eof;
    let ended = loop {
        let passed_on = user.passed_on();
        let waits = written.is_none() && (passed_on.is_some() || !notified);
        let terminated = passed_on.filter(|signal| *signal == EndSignal::Terminate);
        tokio::select! {
            result = &mut output, if written.is_none() => written = Some(result),
            ended_by = held_open(&child, &activity, passed_on), if waits => {
                if let Some(signal) = ended_by {
                    return leave(Outcome::left(signal, &child), &activity).await;
                }
                if !std::mem::replace(&mut notified, true) {
                    user.notify(LEFTOVERS_NOTICE);
                }
            }
            result = child.exited(), if written.is_some() => break result,
            () = unreachable(&child), if terminated.is_some() => {
                return leave(Outcome::left(EndSignal::Terminate, &child), &activity).await;
            }
            failure = &mut stdin_error, if reading => {
                reading = false;
                if let Ok(error) = failure {
                    return Outcome::NotRead { error }.into();
                }
            }
            left = user.attend(&child) => {
                if let Some(outcome) = left {
                    return leave(outcome, &activity).await;
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

/// Resolves once the command has ended and its output is silent. Returns the signal if the command
/// has ended by it.
async fn held_open(
    child: &Child,
    activity: &Activity,
    passed_on: Option<EndSignal>,
) -> Option<EndSignal> {
    let Ok(status) = child.ended().await else { return std::future::pending().await };
    let ended_by = passed_on.filter(|signal| is_end_by(status, *signal));
    // Output that a slow local reader delays is not held open.
    let reader_intervals = if ended_by.is_some() { READER_INTERVALS } else { u32::MAX };
    activity.quiet(LEFTOVERS_DELAY, reader_intervals).await;
    ended_by
}

/// Resolves if the host does not answer: then it has not received a signal either.
async fn unreachable(child: &Child) {
    if timeout(ANSWER_TIMEOUT, child.ping()).await.is_ok() {
        std::future::pending().await
    }
}

/// Whether a command that ended so has done what a signal to labsh, passed on to it, asked for. A
/// command may also take SIGINT as something else than the request to end.
fn is_end_by(status: Status, signal: EndSignal) -> bool {
    let by_shell = Status::Exited(signal.exit_status());
    signal != EndSignal::Interrupt
        || status == by_shell
        || matches!(status, Status::Signaled { signal: SIGINT, .. })
}

/// Stops writing, and returns the end.
async fn leave(outcome: Outcome, activity: &Activity) -> End {
    activity.abandon().await;
    outcome.into()
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
