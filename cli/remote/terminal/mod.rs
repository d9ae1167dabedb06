//! Runs one command in a terminal on the host: the local terminal in raw mode, its size, signals,
//! and escapes.
//!
//! The command's output goes to the local terminal without escaping, as with ssh: control sequences
//! are meant to be obeyed.

pub(crate) mod escapes;
mod input;
mod raw_mode;
mod size;
mod suspend;

use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

use labsh_client::terminal_text::escape;
use labsh_client::{Child, CommandError, Session, Stdio};
use labsh_proto::environment;
use labsh_proto::message::{Program, Resize, Terminal, Variable};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::console::{note, program};
use crate::flags::CommandFlags;
use crate::flags::EscapeCharacter;
use crate::remote::follow::{self, End, LocalUser, follow};
use crate::remote::optional_env;
use crate::remote::outcome::{CommandState, Outcome};
use crate::remote::terminal::escapes::{Escapes, Request};
use crate::remote::terminal::input::{Input, read_keys};
use crate::remote::terminal::raw_mode::RawMode;
use crate::signals::{EndSignal, EndSignals, received, unless_ignored};

/// How the local user and the terminal on the host are joined.
#[derive(Debug, Clone)]
pub(crate) struct Interaction {
    /// The escape character. It has no effect if stdin is no terminal, because stdin may then carry
    /// any byte.
    pub(crate) escape: EscapeCharacter,
    /// The name of the host for the closing line, as ssh prints one; none to print no line.
    pub(crate) host: Option<String>,
}

/// Runs the command in a terminal of its own, to its end.
///
/// If stdin is a terminal, it is in raw mode while the command runs, and restored on every way out.
/// Otherwise stdin is typed into the terminal on the host. The local locale is passed on unless the
/// host refuses it. Does not report the outcome.
pub(crate) async fn run(
    session: &Session,
    program: &Program,
    options: &CommandFlags,
    end_signals: &mut EndSignals,
    interaction: &Interaction,
) -> End {
    let size = size::ours();
    let started = tokio::select! {
        started = start(session, program, options, size) => started,
        signal = end_signals.recv() => {
            return Outcome::Left { signal, command: CommandState::Sent }.into();
        }
    };
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error).into(),
    };
    let is_terminal = io::stdin().is_terminal();
    let escapes =
        Escapes::new(if is_terminal { interaction.escape } else { EscapeCharacter(None) });
    let help = escapes.help();
    // Signal handlers first, so that a signal after the change of modes restores them.
    let signals = match Signals::new(end_signals, is_terminal) {
        Ok(signals) => signals,
        Err(error) => return Outcome::no_signals(&error).into(),
    };
    let raw = match is_terminal.then(|| RawMode::enter(io::stdin())).transpose() {
        Ok(raw) => raw,
        Err(error) => return Outcome::NotRead { error }.into(),
    };
    let input = child.stdin.take().map(|stdin| read_keys(stdin, escapes)).transpose();
    let (input, unreadable) = match input {
        Ok(input) => input.unzip(),
        Err(error) => return Outcome::NotRead { error }.into(),
    };
    let mut here = TerminalUser { signals, raw, input, size, help };
    // The size may have changed before the handler for it was installed.
    here.tell_size(&child);
    let end = follow(child, unreadable, options.no_wait_eof, &mut here).await;

    let ended = matches!(&end.outcome, Outcome::Ended(status) if status.code().is_some()
        && !status.timed_out());
    if here.raw.is_some() && !ended && io::stderr().is_terminal() {
        // labsh's messages start on a line of their own.
        let _ = io::stderr().write_all(b"\r\n");
    }
    drop(here);
    if let (true, Some(host)) = (ended, &interaction.host) {
        note(&format!("the session on {host} is over"));
    }
    end
}

async fn start(
    session: &Session,
    program: &Program,
    options: &CommandFlags,
    size: Resize,
) -> Result<Child, CommandError> {
    let mut command = follow::command(session, program, options);
    command.terminal(Terminal { name: terminal_name(), size }).stdin(Stdio::Piped);
    optional_env::open(&command, [locale(), options.env_where_allowed.clone()].concat()).await
}

/// Returns the value of TERM, or `dumb`, which promises no capability.
fn terminal_name() -> String {
    std::env::var("TERM").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "dumb".to_owned())
}

/// Returns the variables of the locale (locale(7)).
fn locale() -> Vec<Variable> {
    let passes = |name: &[u8]| {
        (name == b"LANG" || name.starts_with(b"LC_")) && environment::check(name).is_ok()
    };
    std::env::vars_os()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .filter(|(name, _)| passes(name))
        .collect()
}

/// The local user of a terminal on the host.
struct TerminalUser<'a> {
    signals: Signals<'a>,
    raw: Option<RawMode>,
    input: Option<Input>,
    /// The size that the host knows.
    size: Resize,
    help: String,
}

impl TerminalUser<'_> {
    fn tell_size(&mut self, child: &Child) {
        let size = size::ours();
        if size != self.size {
            child.resize(size);
            self.size = size;
        }
    }

    /// Stops this process until it is continued; the terminal has the shell's modes meanwhile.
    fn suspend(&mut self, child: &Child) {
        if let Some(raw) = &self.raw {
            raw.leave();
        }
        suspend::stop_here();
        self.resume(child);
    }

    fn resume(&mut self, child: &Child) {
        if let Some(raw) = &self.raw {
            // If the terminal has gone, the next read reports it.
            let _ = raw.enter_again();
        }
        self.tell_size(child);
    }

    async fn request(input: &mut Option<Input>) -> Request {
        match input {
            Some(input) => match input.requests.recv().await {
                Some(request) => request,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

impl LocalUser for TerminalUser<'_> {
    async fn attend(&mut self, child: &Child) -> Option<Outcome> {
        let signals = &mut self.signals;
        tokio::select! {
            // In raw mode keys send no signals, so each of these is meant for labsh.
            signal = signals.end.recv() => return Some(Outcome::left(signal, child)),
            _ = signals.window_change.recv() => self.tell_size(child),
            _ = signals.continuation.recv() => self.resume(child),
            () = received(&mut signals.stop) => self.suspend(child),
            request = Self::request(&mut self.input) => match request {
                Request::Leave => return Some(Outcome::Escaped),
                // Like the suspend key at a terminal in cooked mode: for the whole job. It comes
                // back as SIGTSTP.
                Request::Suspend => suspend::ask_job(),
                Request::Help => self.notify(&self.help),
            },
        }
        None
    }

    fn passed_on(&self) -> Option<EndSignal> {
        None
    }

    fn notify(&self, text: &str) {
        if self.raw.is_none() {
            return note(text);
        }
        // In raw mode a line feed does not return to the first column. A closed stderr cannot be
        // reported anywhere.
        let mut said = format!("\r\n{}: ", program());
        for line in text.lines() {
            said += &format!("{}\r\n", escape(line));
        }
        let _ = io::stderr().write_all(said.as_bytes());
    }
}

struct Signals<'a> {
    end: &'a mut EndSignals,
    window_change: Signal,
    continuation: Signal,
    /// Only if there are modes to restore; otherwise the default action of SIGTSTP suffices.
    stop: Option<Signal>,
}

impl<'a> Signals<'a> {
    fn new(end: &'a mut EndSignals, is_terminal: bool) -> io::Result<Self> {
        end.receive_quit()?;
        let stop = is_terminal.then(|| unless_ignored(SignalKind::from_raw(suspend::SIGTSTP)));
        Ok(Self {
            end,
            window_change: signal(SignalKind::window_change())?,
            continuation: signal(SignalKind::from_raw(suspend::SIGCONT))?,
            stop: stop.transpose()?.flatten(),
        })
    }
}
