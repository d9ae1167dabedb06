//! A command that runs, followed until both its ends are known: its outputs written here, its exit
//! awaited, its user heard.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use labsh_client::Child;
use labsh_client::Command;
use labsh_client::Session;
use labsh_proto::message::{Program, Until};
use tokio::sync::oneshot;

use crate::flags::CommandOptions;
use crate::remote::local_streams::{Activity, write_out};
use crate::remote::outcome::Outcome;

/// How long streams may stay open and silent behind a command's end before the user is told why
/// nothing happens.
const MOMENT: Duration = Duration::from_secs(1);

/// What is known when it is over, and whether our stdout had been closed.
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) stdout_closed: bool,
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, stdout_closed: false }
    }
}

/// The person or program on this side: what comes from there, other than input.
pub(crate) trait Here {
    /// Waits for something to happen here and passes it on to the command; with an outcome where
    /// that means leaving. Dropped half-way and called again, it misses nothing. `only_leftovers`:
    /// the command itself has ended, and the user was told that others hold its output open.
    async fn attend(&mut self, child: &Child, only_leftovers: bool) -> Option<Outcome>;

    /// Says a line while the command still runs.
    fn say(&self, text: &str);
}

/// A command as the options have it, not yet sent; its stdin is still to be decided.
pub(crate) fn command(session: &Session, program: &Program, options: &CommandOptions) -> Command {
    let mut command = session.program(program.clone());
    for (name, value) in &options.env {
        command.env_bytes(name, value);
    }
    if let Some(directory) = &options.cwd {
        command.current_dir(directory);
    }
    if let Some(timeout) = options.timeout {
        command.timeout(timeout);
    }
    if options.no_wait_eof {
        command.until(Until::CommandEnds);
    }
    if let Some(user) = &options.user {
        command.user(user);
    }
    command
}

/// Writes its outputs to ours until it has ended and they have. `unreadable` tells that our stdin
/// cannot be read to its end; nothing comes from it where all is well.
pub(crate) async fn follow(
    mut child: Child,
    unreadable: Option<oneshot::Receiver<io::Error>>,
    no_wait_eof: bool,
    here: &mut impl Here,
) -> End {
    let mut unreadable = std::pin::pin!(async {
        match unreadable {
            Some(unreadable) => unreadable.await,
            None => std::future::pending().await,
        }
    });
    let mut reading = true;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let activity = Arc::new(Activity::default());
    let mut output = std::pin::pin!(async {
        let copying = || activity.clone();
        tokio::join!(
            async {
                if let Some(from) = stdout {
                    write_out(from, io::stdout(), copying()).await
                } else {
                    Ok(())
                }
            },
            async {
                if let Some(from) = stderr {
                    write_out(from, io::stderr(), copying()).await
                } else {
                    Ok(())
                }
            },
        )
    });

    let mut written = None;
    let mut only_leftovers = false;
    let ended = loop {
        let held_open = async {
            if child.ended().await.is_err() {
                return std::future::pending().await;
            }
            // A slow reader here, or a slow link, is not the fault of anything that was left
            // behind.
            activity.quiet(MOMENT).await;
        };
        tokio::select! {
            result = &mut output, if written.is_none() => written = Some(result),
            () = held_open, if written.is_none() && !only_leftovers && !no_wait_eof => {
                only_leftovers = true;
                here.say(
                    "the command has ended, but a process that it left behind holds its output \
                     open; \
                     waiting for that (--no-wait-eof leaves at once)",
                );
            }
            result = child.exited(), if written.is_some() => break result,
            failure = &mut unreadable, if reading => {
                reading = false;
                if let Ok(error) = failure {
                    return Outcome::NotRead { error }.into();
                }
            }
            left = here.attend(&child, only_leftovers) => {
                if let Some(outcome) = left {
                    activity.abandon().await;
                    return outcome.into();
                }
            }
        }
    };

    let (stdout, stderr) = written.unwrap_or((Ok(()), Ok(())));
    let closed = |result: &io::Result<()>| {
        result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    let stdout_closed = closed(&stdout);
    let failed = [("standard output", stdout), ("standard error", stderr)].into_iter().find_map(
        |(stream, result)| {
            Some((stream, result.err().filter(|e| e.kind() != io::ErrorKind::BrokenPipe)?))
        },
    );
    let outcome = match (failed, ended) {
        (Some((stream, error)), _) => Outcome::NotWritten { stream, error },
        (None, Ok(status)) => Outcome::Ended(status),
        (None, Err(error)) => Outcome::Failed(error),
    };
    End { outcome, stdout_closed }
}
