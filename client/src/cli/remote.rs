//! One command on one session: its streams joined to ours, our signals to it, until both its ends are known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::message::{Program, Until};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::child::Child;
use crate::cli::local_streams::{Activity, read_in, write_out};
use crate::cli::note;
use crate::cli::options::CommandOptions;
use crate::cli::outcome::Outcome;
use crate::command::Stdio;
use crate::error::CommandError;
use crate::session::Session;

/// How long streams may stay open and silent behind a command's end before the user is told why nothing happens.
const MOMENT: Duration = Duration::from_secs(1);

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// What is known when it is over, and whether our stdout had been closed.
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) stdout_closed: bool,
}

/// Runs the command to its end.
pub(crate) async fn carry(session: &Session, program: &Program, options: &CommandOptions) -> End {
    match start(session, program, options).await {
        Ok(child) => follow(child, options.no_wait_eof).await,
        Err(error) => End { outcome: Outcome::Failed(error), stdout_closed: false },
    }
}

async fn start(
    session: &Session,
    program: &Program,
    options: &CommandOptions,
) -> Result<Child, CommandError> {
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
    command.stdin(if options.no_stdin { Stdio::Null } else { Stdio::Piped });
    command.open().await
}

async fn follow(mut child: Child, no_wait_eof: bool) -> End {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            let error = CommandError::Lost(format!("signals cannot be watched: {error}"));
            return End { outcome: Outcome::Failed(error), stdout_closed: false };
        }
    };
    let unreadable = match child.stdin.take().map(read_in).transpose() {
        Ok(unreadable) => unreadable,
        Err(error) => return End { outcome: Outcome::NotRead { error }, stdout_closed: false },
    };
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
                if let Some(from) = stdout { write_out(from, io::stdout(), copying()).await } else { Ok(()) }
            },
            async {
                if let Some(from) = stderr { write_out(from, io::stderr(), copying()).await } else { Ok(()) }
            },
        )
    });

    let mut written = None;
    let mut interrupts = 0;
    let mut terminations = 0;
    let mut only_leftovers = false;
    let ended = loop {
        let held_open = async {
            if child.ended().await.is_err() {
                return std::future::pending().await;
            }
            // A slow reader here, or a slow link, is not the fault of anything that was left behind.
            activity.quiet(MOMENT).await;
        };
        tokio::select! {
            result = &mut output, if written.is_none() => written = Some(result),
            () = held_open, if written.is_none() && !only_leftovers && !no_wait_eof => {
                only_leftovers = true;
                note(
                    "the command has ended, but a process that it left behind holds its output open; \
                     waiting for that (--no-wait-eof leaves at once)",
                );
            }
            result = child.exited(), if written.is_some() => break result,
            failure = &mut unreadable, if reading => {
                reading = false;
                if let Ok(error) = failure {
                    return End { outcome: Outcome::NotRead { error }, stdout_closed: false };
                }
            }
            _ = signals.interrupt.recv() => {
                interrupts += 1;
                match interrupts {
                    // The command has ended already; only the wait for what it left behind can be cut short.
                    _ if only_leftovers => return left(SIGINT),
                    1 => {}
                    2 => note("the command was told again; once more leaves it to the host, which ends it"),
                    _ => return left(SIGINT),
                }
                child.signal(SIGINT);
            }
            _ = signals.terminate.recv() => {
                terminations += 1;
                if terminations > 1 {
                    return left(SIGTERM);
                }
                child.signal(SIGTERM);
            }
        }
    };

    let (stdout, stderr) = written.unwrap_or((Ok(()), Ok(())));
    let closed = |result: &io::Result<()>| {
        result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    let stdout_closed = closed(&stdout);
    let failed =
        [("standard output", stdout), ("standard error", stderr)].into_iter().find_map(|(stream, result)| {
            Some((stream, result.err().filter(|e| e.kind() != io::ErrorKind::BrokenPipe)?))
        });
    let outcome = match (failed, ended) {
        (Some((stream, error)), _) => Outcome::NotWritten { stream, error },
        (None, Ok(status)) => Outcome::Ended(status),
        (None, Err(error)) => Outcome::Failed(error),
    };
    End { outcome, stdout_closed }
}

fn left(signal: u8) -> End {
    End { outcome: Outcome::Left { signal }, stdout_closed: false }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }
}
