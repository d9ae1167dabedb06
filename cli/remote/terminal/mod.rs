//! One command in a terminal over there: our terminal raw and joined to it, its size, our signals,
//! the escapes.
//!
//! What the command writes goes to our terminal as it is: whoever asks for a terminal wants it to
//! be obeyed.

pub(crate) mod escapes;
mod input;
mod raw_mode;
mod size;
mod suspend;

use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

use labsh_client::terminal_text::escape;
use labsh_client::{Child, CommandError, Session, Stdio};
use labsh_proto::message::{Program, Resize, Terminal, Variable};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::console::{note, survive_file_size_limit};
use crate::flags::CommandOptions;
use crate::flags::EscapeCharacter;
use crate::remote::follow::{self, End, LocalUser, follow};
use crate::remote::optional_env;
use crate::remote::outcome::Outcome;
use crate::remote::terminal::escapes::{Escapes, Request};
use crate::remote::terminal::input::{Input, read_keys};
use crate::remote::terminal::raw_mode::RawMode;

/// How the person here and the terminal there are joined.
#[derive(Debug, Clone)]
pub(crate) struct Interaction {
    /// What begins an escape. Where our stdin is no terminal nothing does: it may carry any bytes.
    pub(crate) escape: EscapeCharacter,
    /// The host's name for the line that tells of the end, as ssh has one; without it there is
    /// none.
    pub(crate) host: Option<String>,
}

/// Runs the command in a terminal of its own over there, to its end.
///
/// If our stdin is a terminal, it is raw for as long as the command runs; on every way out its
/// modes are what they were before. If not, what it carries is what is typed over there. Whether a
/// terminal is wanted at all is the caller's business. Our locale goes along, unless the host's
/// configuration does not let it in. The outcome is not reported.
pub(crate) async fn run(
    session: &Session,
    program: &Program,
    options: &CommandOptions,
    interaction: &Interaction,
) -> End {
    let size = size::ours();
    let mut child = match start(session, program, options, size).await {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error).into(),
    };
    let is_terminal = io::stdin().is_terminal();
    let escapes =
        Escapes::new(if is_terminal { interaction.escape } else { EscapeCharacter(None) });
    let help = escapes.help();
    // First whoever restores the modes when a signal comes, then the modes.
    let signals = match Signals::new(is_terminal) {
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
    let mut here = Person { signals, raw, input, size, help };
    // It may have changed while nobody watched.
    here.tell_size(&child);
    let end = follow(child, unreadable, options.no_wait_eof, &mut here).await;

    let ended = matches!(&end.outcome, Outcome::Ended(status) if status.code().is_some()
        && !status.timed_out());
    if here.raw.is_some() && !ended && io::stderr().is_terminal() {
        // What labsh has to say begins on a line of its own.
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
    options: &CommandOptions,
    size: Resize,
) -> Result<Child, CommandError> {
    let mut command = follow::command(session, program, options);
    command.terminal(Terminal { name: terminal_name(), size }).stdin(Stdio::Piped);
    optional_env::open(&command, [locale(), options.env_where_allowed.clone()].concat()).await
}

/// The value of TERM; `dumb` promises nothing, for those who have none that can be passed on.
fn terminal_name() -> String {
    std::env::var("TERM").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "dumb".to_owned())
}

/// The variables that say in which language and characters people are spoken to here (locale(7)).
fn locale() -> Vec<Variable> {
    let passes = |name: &[u8]| name == b"LANG" || name.starts_with(b"LC_");
    std::env::vars_os()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .filter(|(name, _)| passes(name))
        .collect()
}

/// Who sits here, at a terminal or not.
struct Person {
    signals: Signals,
    raw: Option<RawMode>,
    input: Option<Input>,
    /// As it was last told.
    size: Resize,
    help: String,
}

impl Person {
    fn tell_size(&mut self, child: &Child) {
        let size = size::ours();
        if size != self.size {
            child.resize(size);
            self.size = size;
        }
    }

    /// Stops this process until it is continued, with the terminal as the shell expects it.
    fn suspend(&mut self, child: &Child) {
        if let Some(raw) = &self.raw {
            raw.leave();
        }
        suspend::stop_here();
        self.resume(child);
    }

    fn resume(&mut self, child: &Child) {
        if let Some(raw) = &self.raw {
            // Without a terminal any more there is nothing to be made raw; reading it says so.
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

impl LocalUser for Person {
    async fn attend(&mut self, child: &Child, _: bool) -> Option<Outcome> {
        let left = |signal| Some(Outcome::Left { signal });
        let signals = &mut self.signals;
        tokio::select! {
            // Keys send none of these: raw, they are bytes for the command. Whoever sends one means
            // labsh.
            _ = signals.hangup.recv() => return left(1),
            _ = signals.interrupt.recv() => return left(2),
            _ = signals.quit.recv() => return left(3),
            _ = signals.terminate.recv() => return left(15),
            _ = signals.window_change.recv() => self.tell_size(child),
            _ = signals.continuation.recv() => self.resume(child),
            _ = received(&mut signals.stop) => self.suspend(child),
            request = Self::request(&mut self.input) => match request {
                Request::Leave => return Some(Outcome::Escaped),
                // As the key would at a terminal that is not raw: to all of our job. It comes back
                // as a signal.
                Request::Suspend => suspend::ask_job(),
                Request::Help => self.notify(&self.help),
            },
        }
        None
    }

    fn notify(&self, text: &str) {
        if self.raw.is_none() {
            return note(text);
        }
        // In a raw terminal a line end alone does not return to the first column. When stderr is
        // closed there is nobody to tell.
        let mut said = "\r\nlabsh: ".to_owned();
        for line in text.lines() {
            said += &format!("{}\r\n", escape(line));
        }
        let _ = io::stderr().write_all(said.as_bytes());
    }
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    window_change: Signal,
    continuation: Signal,
    /// Only where there are modes to restore; otherwise a stop is nobody's business.
    stop: Option<Signal>,
}

impl Signals {
    fn new(is_terminal: bool) -> io::Result<Self> {
        survive_file_size_limit()?;
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            window_change: signal(SignalKind::window_change())?,
            continuation: signal(SignalKind::from_raw(suspend::SIGCONT))?,
            stop: is_terminal
                .then(|| signal(SignalKind::from_raw(suspend::SIGTSTP)))
                .transpose()?,
        })
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
