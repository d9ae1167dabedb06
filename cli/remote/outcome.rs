//! The outcome of a command: an exit status for shells, a line for people, JSON for programs.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use labsh_client::fanout::{End, Host};
use labsh_client::{Child, CommandError, ConnectError, ExitStatus};
use labsh_proto::message::{Program, RefuseCode, Status};
use labsh_proto::signal_name::signal_name;

use crate::console::{CONNECTION_FAILED, REFUSED, note, note_json};
use crate::flags::CommandFlags;
use crate::json::{self, Event, Fields};
use crate::remote::record;
use crate::signals::EndSignal;

const TIMED_OUT: u8 = 124;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const SIGNAL_BASE: u8 = 128;

/// A command on one host.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) host: &'a Host,
    pub(crate) program: &'a Program,
    pub(crate) options: &'a CommandFlags,
    /// When labsh began to connect.
    pub(crate) began: Instant,
}

/// The outcome of a command.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran, and its output is complete.
    Ended(ExitStatus),
    /// It did not run, or its outcome is unknown.
    Failed(CommandError),
    /// It ran, but its output could not be written locally.
    NotWritten { stream: &'static str, error: std::io::Error },
    /// Local stdin could not be read to its end, so the command must not see an end of input.
    NotRead { error: std::io::Error },
    /// The user left by a signal to labsh.
    Left { signal: EndSignal, command: CommandState },
    /// The user left by an escape typed in the terminal.
    Escaped,
}

/// What was known of a command when the user left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandState {
    /// It was not sent to the host.
    NotSent,
    /// It was sent, and its end was not reported.
    Sent,
    /// It had ended, but its output had not.
    Ended(Status),
}

impl Outcome {
    /// Returns the outcome of a command whose user leaves now.
    pub(crate) fn left(signal: EndSignal, child: &Child) -> Self {
        let command = child.end_status().map_or(CommandState::Sent, CommandState::Ended);
        Self::Left { signal, command }
    }

    /// Whether the user left before the end.
    pub(crate) fn is_left(&self) -> bool {
        matches!(self, Outcome::Left { .. } | Outcome::Escaped)
    }

    /// Returns the outcome when signal handlers cannot be installed: without them the terminal
    /// could not be restored.
    pub(crate) fn no_signals(error: &std::io::Error) -> Self {
        Self::Failed(CommandError::Lost(format!("signals cannot be watched: {error}")))
    }

    /// Returns the exit status of labsh.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Outcome::Ended(status) => status_of(status),
            Outcome::Failed(error) => exit_status(error),
            // Leaving by an escape gives 255, as with ssh.
            Outcome::NotWritten { .. } | Outcome::NotRead { .. } | Outcome::Escaped => {
                CONNECTION_FAILED
            }
            Outcome::Left { signal, .. } => signal.exit_status(),
        }
    }

    /// Returns the error and what to do next; none if the command ended normally.
    pub(crate) fn text(&self, program: &Program, quiet_pipe: bool) -> Option<String> {
        const SIGPIPE: u8 = 13;
        match self {
            Outcome::Ended(status) if status.timed_out() => {
                Some("the command was ended by the host: its time was up (--timeout)".into())
            }
            Outcome::Ended(status) => match status.signal()? {
                // A closed stdout explains the signal.
                SIGPIPE if quiet_pipe => None,
                signal => {
                    let core = if status.core_dumped() { ", core dumped" } else { "" };
                    Some(format!(
                        "the command was ended by signal {signal} ({}{core})",
                        signal_name(signal)
                    ))
                }
            },
            Outcome::Failed(error) => Some(explain(error, program)),
            Outcome::NotWritten { stream, error } => Some(format!(
                "cannot write to {stream}: {error}; the command's output is not complete here"
            )),
            Outcome::NotRead { error } => {
                Some(format!("cannot read standard input: {error}; the host ends the command"))
            }
            Outcome::Left { command: CommandState::NotSent, .. } => {
                Some("left before the command was sent; nothing was started".into())
            }
            Outcome::Left { command: CommandState::Ended(status), .. } => {
                let how = match status {
                    Status::Exited(code) => format!("exit {code}"),
                    Status::Signaled { signal, .. } => {
                        format!("signal {signal}, {}", signal_name(*signal))
                    }
                };
                Some(format!("left; the command had ended ({how}), but its output had not"))
            }
            Outcome::Left { command: CommandState::Sent, .. } | Outcome::Escaped => {
                Some("left; the host ends the command, if it still runs".into())
            }
        }
    }

    /// Reports the outcome on stderr, and as JSON where requested. Returns the exit status.
    pub(crate) fn report(self, run: &Run<'_>, quiet_pipe: bool) -> ExitCode {
        let text = self.text(run.program, quiet_pipe);
        if let Some(text) = text.as_deref().filter(|_| run.options.json.is_none()) {
            note(text);
        }
        if run.options.json.is_some() || run.options.status_fd.is_some() {
            let event = Event::of_host("over", &run.host.name)
                .with_all(json::location(&run.host.connection.address))
                .with_all(self.fields(run.program, text.as_deref().unwrap_or_default()))
                .with("duration_ms", json::milliseconds(run.began.elapsed()));
            if let Some(descriptor) = run.options.status_fd {
                write_status(descriptor, &event.clone().line());
            }
            if run.options.json.is_some() {
                note_json(event);
            }
        }
        ExitCode::from(self.exit_status())
    }

    /// Returns the fields of the outcome; `text` is the error of one that a command has not alone.
    fn fields(&self, program: &Program, text: &str) -> Fields {
        let word = match self {
            Outcome::Ended(status) => {
                return record::of_command(&End::Ended(*status), program);
            }
            Outcome::Failed(error) => return record::of_command(&End::of(error.clone()), program),
            Outcome::NotWritten { .. } => "not-written",
            Outcome::NotRead { .. } => "not-read",
            Outcome::Left { .. } | Outcome::Escaped => "left",
        };
        // The text begins with what labsh did, or with a subject of its own.
        let subject = if word == "left" { "labsh " } else { "" };
        let mut fields = Fields::from_iter([
            ("outcome".to_owned(), word.into()),
            ("exit_status".to_owned(), self.exit_status().into()),
            ("error".to_owned(), json::error_of_text(word, &format!("{subject}{text}"))),
        ]);
        if let Outcome::Left { command: CommandState::Ended(status), .. } = self {
            let (code, signal) = match *status {
                Status::Exited(code) => (Some(code), None),
                Status::Signaled { signal, .. } => (None, Some(signal)),
            };
            fields.insert("code".into(), code.into());
            fields.insert("signal".into(), signal.into());
        }
        fields
    }
}

/// Returns the exit status by a shell's convention: the code, or 128 plus the signal.
pub(crate) fn status_of(status: &ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        _ if status.timed_out() => TIMED_OUT,
        (Some(code), _) => code,
        (_, signal) => SIGNAL_BASE.saturating_add(signal.unwrap_or(0)),
    }
}

/// Returns whether the command's time was up before it had started.
pub(crate) fn is_timed_out(error: &CommandError) -> bool {
    matches!(error, CommandError::Refused(refuse) if refuse.code == RefuseCode::TIMED_OUT)
}

/// Returns the exit status for a command that did not run, or whose outcome is unknown.
pub(crate) fn exit_status(error: &CommandError) -> u8 {
    match error {
        CommandError::Refused(refuse) if refuse.code == RefuseCode::NOT_FOUND => NOT_FOUND,
        CommandError::Refused(refuse) if refuse.code == RefuseCode::NOT_EXECUTABLE => {
            NOT_EXECUTABLE
        }
        error if is_timed_out(error) => TIMED_OUT,
        CommandError::Refused(_) | CommandError::Bad(_) | CommandError::Exhausted => REFUSED,
        CommandError::Connect(ConnectError::Refused { .. }) => REFUSED,
        CommandError::Connect(_)
        | CommandError::Lost(_)
        | CommandError::Input(_)
        | CommandError::Incomplete { .. } => CONNECTION_FAILED,
    }
}

/// Returns an error and what to do next.
pub(crate) fn explain(error: &CommandError, program: &Program) -> String {
    let remedy = remedy(error, program);
    if remedy.is_empty() { error.to_string() } else { format!("{error}; {remedy}") }
}

/// Returns what to do next after an error; it may be empty.
pub(crate) fn remedy(error: &CommandError, program: &Program) -> String {
    match error {
        CommandError::Refused(refuse)
            if refuse.code == RefuseCode::NOT_FOUND && looks_like_shell(program) =>
        {
            "the words look like a shell command: use --shell, or quote them as one word".into()
        }
        CommandError::Refused(refuse)
            if refuse.code == RefuseCode::NOT_FOUND && begins_with_option(program) =>
        {
            "labsh's own options come before the target".into()
        }
        CommandError::Refused(refuse)
            if refuse.code == RefuseCode::SUBSYSTEM && copies(program) =>
        {
            "its labshd is older than labsh cp: update it; meanwhile tar through a pipe copies as \
             well"
                .into()
        }
        CommandError::Refused(refuse) => refuse.remedy.clone(),
        CommandError::Connect(error) => error.remedy(),
        CommandError::Lost(_) => {
            "the host ends the command; whether it had done its work is not known".into()
        }
        CommandError::Input(_) => "the host ends the command".into(),
        CommandError::Incomplete { .. } => "do not trust this output; run the command again".into(),
        CommandError::Bad(error) => error.remedy().into(),
        CommandError::Exhausted => String::new(),
    }
}

fn copies(program: &Program) -> bool {
    matches!(program, Program::Subsystem(name) if name == labsh_copy::SUBSYSTEM.as_bytes())
}

fn begins_with_option(program: &Program) -> bool {
    matches!(program,
        Program::Argv(words) if words.first().is_some_and(|word| word.starts_with(b"-")))
}

fn looks_like_shell(program: &Program) -> bool {
    let Program::Argv(words) = program else { return false };
    words.iter().flatten().any(|byte| b"|&;<>()$`*?[#~={}".contains(byte))
        || words.first().is_some_and(|word| word.contains(&b' ') || BUILTINS.contains(&&word[..]))
}

/// Commands that exist only as builtins of a shell.
const BUILTINS: [&[u8]; 12] = [
    b"alias", b"cd", b"eval", b"exec", b"exit", b"export", b"set", b"source", b"trap", b"ulimit",
    b"umask", b"unset",
];

/// Checks that the descriptor of `--status-fd` is open for writing, before anything is started.
pub(crate) fn check_status_fd(options: &CommandFlags) -> anyhow::Result<()> {
    match options.status_fd {
        Some(number) if !is_writable(number) => anyhow::bail!(
            "--status-fd {number}: that descriptor is not open for writing; open it, as in \
             {number}>status.json"
        ),
        _ => Ok(()),
    }
}

/// Whether a descriptor is open for writing.
pub(crate) fn is_writable(number: RawFd) -> bool {
    // The mode of the link is the mode in which the descriptor is open (proc_pid_fd(5)).
    let link = Path::new(&format!("/proc/self/fd/{number}")).symlink_metadata();
    link.is_ok_and(|link| link.mode() & 0o200 != 0)
}

/// Writes a line to the descriptor of `--status-fd`.
#[allow(unsafe_code)]
pub(crate) fn write_status(number: RawFd, line: &str) {
    // SAFETY: the user passed this descriptor for labsh to write to, and `check_status_fd` found it
    // open. The borrow lasts only for the write, and nothing closes it. If another owner had closed
    // it, the write would fail.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    if let Err(error) = nix::unistd::write(descriptor, line.as_bytes()) {
        note(&format!("cannot write to descriptor {number}: {}", io::Error::from(error)));
    }
}
