//! One command from its request to its exit: spawning, its streams, its signals, and each way that
//! it can end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use labsh_proto::frame::ChannelId;
use labsh_proto::message::{Open, Program, Refuse, RefuseCode, Resize, Status, Until, Usage};
use labsh_transport::multiplexer::Multiplexer;
use nix::libc::{SIGCONT, SIGKILL, SIGTERM};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::copying;
use crate::logs::Escaped;
use crate::request::{self, Origin};
use crate::shared::{self, Shared};
use crate::spawner::{Process, SpawnError, Spawned};
use crate::streams;
use crate::users::User;

/// For output that waits for its reader when labshd stops.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A command that a client has asked for.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    pub(crate) multiplexer: Arc<Multiplexer>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) id: ChannelId,
    pub(crate) open: Open,
    /// Signals that the client sends.
    pub(crate) signals: mpsc::Receiver<u8>,
    /// The newest size of its terminal that the client has told.
    pub(crate) sizes: watch::Receiver<Option<Resize>>,
    /// The client has closed the channel, or the connection has gone.
    pub(crate) client_gone: CancellationToken,
}

/// Why a command is being ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    ClientGone,
    /// Nobody reads the terminal any more; where there are pipes, the command finds out by itself.
    ReaderGone,
    Timeout,
    Stopping,
}

impl Job {
    /// Runs the command to its end. Whatever happens, nothing of it is left running unless it put
    /// itself in the background before it ended.
    pub(crate) async fn run(mut self) {
        let started = Instant::now();
        let what = Escaped(&describe(&self.open.program)).to_string();
        let spawned = match self.spawn().await {
            Ok(Some(spawned)) => spawned,
            Ok(None) => return,
            Err(refuse) => {
                tracing::info!(
                    key = %self.origin.entry.key.key_id(), command = %self.open.command,
                    reason = %Escaped(&refuse.reason), "command refused"
                );
                return self.multiplexer.with(|channels| channels.refuse(self.id, &refuse));
            }
        };
        tracing::info!(
            key = %self.origin.entry.key.key_id(), user = %self.origin.user.name,
                command = %self.open.command,
            pid = spawned.pid, %what, "command started"
        );
        self.multiplexer.with(|channels| channels.started(self.id, spawned.pid));
        self.carry(spawned, started).await;
    }

    /// `None` when the client has gone meanwhile: the spawner then ends what it may have started.
    async fn spawn(&mut self) -> Result<Option<Spawned>, Refuse> {
        if self.shared.draining.is_cancelled() {
            return Err(shared::stopping());
        }
        // A session may outlive the time for which its key was enrolled.
        let source = self.origin.peer.map(|peer| peer.ip());
        let permitted = self.origin.entry.permits(source, SystemTime::now());
        permitted
            .map_err(|why| Refuse::new(RefuseCode::NOT_PERMITTED, why.to_string(), why.remedy()))?;
        let request = request::prepare(&self.open, &self.origin, &self.shared.config())?;
        // A megabyte of short words takes several once it is decoded, and the command may run for
        // days.
        (self.open.program, self.open.environment) = (Program::Argv(Vec::new()), Vec::new());
        tokio::select! {
            spawned = self.shared.spawner.spawn(request) => {
                spawned.map(Some).map_err(|error| refusal(error, &self.origin.user))
            }
            () = self.client_gone.cancelled() => Ok(None),
            // A child can hang before it becomes the command, in a directory whose file server does
            // not answer.
            () = self.shared.stopping.cancelled() => Err(shared::stopping()),
        }
    }

    async fn carry(&mut self, spawned: Spawned, started: Instant) {
        let Spawned { pid, streams, mut process } = spawned;
        let grace = self.shared.config().termination_grace;
        let (input, output, terminal) = match streams::watch(streams) {
            Ok(ends) => ends,
            Err(error) => {
                // Dropping the process kills its group. The channel has started, so it must exit as
                // well.
                tracing::error!(pid, %error, "cannot watch a command's streams");
                let killed = Status::Signaled { signal: SIGKILL as u8, core_dumped: false };
                return self
                    .multiplexer
                    .with(|channels| channels.exit(self.id, killed, false, Usage::default()));
            }
        };

        let (multiplexer, id) = (self.multiplexer.clone(), self.id);
        let ending = CancellationToken::new();
        let reader_gone = CancellationToken::new();
        let mut input = std::pin::pin!(input.carry(&multiplexer, id));
        let mut output = std::pin::pin!(output.carry(&multiplexer, id, &ending, &reader_gone));
        let mut time_is_up = std::pin::pin!(async {
            match Duration::from_millis(self.open.timeout) {
                Duration::ZERO => std::future::pending().await,
                after => tokio::time::sleep(after).await,
            }
        });
        let (mut input_open, mut output_open) = (true, true);
        let mut ended: Option<(Status, Usage)> = None;
        let mut told = false;
        let mut escalation: Option<Escalation> = None;
        let mut give_up: Option<Instant> = None;

        loop {
            if let (Some((status, usage)), false, false) = (ended, output_open, told) {
                let timed_out =
                    escalation.as_ref().is_some_and(|ongoing| ongoing.cause == Cause::Timeout);
                multiplexer.with(|channels| channels.exit(id, status, timed_out, usage));
                told = true;
            }
            let firmer = escalation.as_ref().and_then(Escalation::due);
            if ended.is_some() && firmer.is_none() && (told || self.client_gone.is_cancelled()) {
                return;
            }
            let cause = tokio::select! {
                outcome = process.ended(), if ended.is_none() => {
                    let Ok(outcome) = outcome else { return multiplexer.lose() };
                    let status = outcome.status;
                    let cause = escalation.as_ref().map(|ongoing| ongoing.cause);
                    self.log_end(pid, status, cause, started);
                    multiplexer.with(|channels| channels.ended(id, status));
                    ended = Some((status, outcome.usage));
                    // A terminal is for its leader: it is hung up behind what was written on it,
                    // whoever has it open.
                    if self.open.until == Until::CommandEnds || cause.is_some()
                        || terminal.is_some() {
                        ending.cancel();
                    }
                    None
                }
                () = &mut input, if input_open => { input_open = false; None }
                () = &mut output, if output_open => { output_open = false; None }
                Some(signal) = self.signals.recv(),
                    if ended.is_none() => { process.signal(signal.into()); None }
                Ok(()) = self.sizes.changed(), if terminal.is_some() => {
                    let size = *self.sizes.borrow_and_update();
                    if let (Some(terminal), Some(size)) = (&terminal, size) {
                        terminal.resize(size);
                    }
                    None
                }
                () = at(firmer) =>
                    { escalation.iter_mut().for_each(|ongoing| ongoing.step(&process)); None }
                () = self.client_gone.cancelled(),
                    if escalation.is_none() => Some(Cause::ClientGone),
                () = reader_gone.cancelled(), if escalation.is_none()
                    && ended.is_none() => Some(Cause::ReaderGone),
                () = &mut time_is_up, if escalation.is_none()
                    && ended.is_none() => Some(Cause::Timeout),
                () = self.shared.stopping.cancelled(), if give_up.is_none() => {
                    let until_the_last = if terminal.is_some() { 2 * grace } else { grace };
                    give_up = Some(Instant::now() + until_the_last + LAST_WORDS);
                    Some(Cause::Stopping)
                }
                // labshd stops, and the client takes nothing any more.
                () = at(give_up) => return,
            };
            if let Some(cause) = cause
                && escalation.is_none()
            {
                // What a command's end has left behind was put in the background on purpose.
                let words = if ended.is_some() { &[] } else { cause.words(terminal.is_some()) };
                let mut new = Escalation { cause, words, due: Instant::now(), grace };
                new.step(&process);
                escalation = Some(new);
                if ended.is_some() {
                    ending.cancel();
                }
            }
        }
    }

    fn log_end(&self, pid: u32, status: Status, cause: Option<Cause>, started: Instant) {
        let status = match status {
            Status::Exited(code) => format!("exit {code}"),
            Status::Signaled { signal, core_dumped: false } => format!("signal {signal}"),
            Status::Signaled { signal, core_dumped: true } => {
                format!("signal {signal}, core dumped")
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let cause = cause.map(Cause::name);
        tracing::info!(command = %self.open.command, pid, status, cause, seconds, "command ended");
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Cause::ClientGone => "client gone",
            Cause::ReaderGone => "reader gone",
            Cause::Timeout => "timeout",
            Cause::Stopping => "labshd stops",
        }
    }

    /// Ever firmer. A shell hears of a lost client as it would of a lost terminal. Where it has a
    /// terminal, that is how it always begins: nothing else reaches every job of an interactive
    /// shell, which itself ignores SIGTERM.
    fn words(self, terminal: bool) -> &'static [Word] {
        match self {
            Cause::Timeout | Cause::Stopping if !terminal => {
                &[Word::Signal(SIGTERM), Word::Signal(SIGKILL)]
            }
            _ => &[Word::HangUp, Word::Signal(SIGTERM), Word::Signal(SIGKILL)],
        }
    }
}

/// One thing that a command is told when it is to end.
#[derive(Debug, Clone, Copy)]
enum Word {
    /// SIGHUP, to everybody ([`Process::hang_up`]).
    HangUp,
    /// A signal ([`Process::signal`]).
    Signal(i32),
}

/// Telling the whole group to end. The leader stays unreaped all the while, so that the signals
/// cannot hit a group that has taken over its number.
struct Escalation {
    cause: Cause,
    words: &'static [Word],
    due: Instant,
    grace: Duration,
}

impl Escalation {
    /// When the next word is due, if there is one.
    fn due(&self) -> Option<Instant> {
        (!self.words.is_empty()).then_some(self.due)
    }

    fn step(&mut self, process: &Process) {
        let Some((word, rest)) = self.words.split_first() else { return };
        match *word {
            Word::HangUp => process.hang_up(),
            Word::Signal(signal) => {
                process.signal(signal);
                // A stopped process acts on a signal only when it is continued.
                process.signal(SIGCONT);
            }
        }
        self.words = rest;
        self.due = Instant::now() + self.grace;
    }
}

/// What stands in the log: the first words, not a megabyte.
pub(crate) fn describe(program: &Program) -> String {
    const MOST: usize = 200;
    let mut text = match program {
        Program::Shell(line) => String::from_utf8_lossy(&line[..line.len().min(MOST)]).into_owned(),
        Program::LoginShell => "login shell".to_owned(),
        Program::Subsystem(name) => {
            format!("subsystem {}", String::from_utf8_lossy(&name[..name.len().min(MOST)]))
        }
        Program::Argv(words) => {
            let mut text = String::new();
            for word in words {
                if text.len() > MOST {
                    break;
                }
                let word = String::from_utf8_lossy(&word[..word.len().min(MOST)]);
                let plain = |c: char| c.is_alphanumeric() || "/._-:+,=@%".contains(c);
                // Exact words and a shell's line must not look alike.
                if word.is_empty() || !word.chars().all(plain) {
                    text += &format!("{word:?} ");
                } else {
                    text = text + &word + " ";
                }
            }
            text.trim_end().to_owned()
        }
    };
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push('…');
    }
    text
}

/// What the client is told of it; it was to run as this user.
pub(crate) fn refusal(error: SpawnError, user: &User) -> Refuse {
    let (code, remedy) = match &error {
        SpawnError::NotFound { program } if copying::is_own_program(program) => (
            RefuseCode::NOT_FOUND,
            "that is labshd itself, which copies files, and it was moved or removed: put it back \
             there, or restart it",
        ),
        SpawnError::NotFound { .. } => {
            (RefuseCode::NOT_FOUND, "check the name and the PATH over there")
        }
        SpawnError::NotExecutable { .. } => {
            (RefuseCode::NOT_EXECUTABLE, "check that it is a program, and that it may be executed")
        }
        SpawnError::Directory { .. } => {
            (RefuseCode::DIRECTORY, "name a directory that exists over there")
        }
        SpawnError::TooLarge => {
            (RefuseCode::BAD_COMMAND, "send long data on standard input, or in a file")
        }
        SpawnError::Resources { .. } => {
            (RefuseCode::RESOURCES, "try again when that machine is less busy")
        }
        SpawnError::Identity { .. } | SpawnError::Lost | SpawnError::Other { .. } => {
            (RefuseCode::INTERNAL, "labshd's log on that machine says more")
        }
    };
    let shell = match &error {
        SpawnError::NotFound { program } | SpawnError::NotExecutable { program, .. } => {
            *program == user.shell.to_string_lossy()
        }
        _ => false,
    };
    let remedy = if shell {
        let name = &user.name;
        format!(
            "that is the login shell of {name} over there: `chsh -s /bin/sh {name}` gives the \
             account another"
        )
    } else {
        remedy.to_owned()
    };
    Refuse::new(code, error.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(program: &str) -> String {
        let user = User {
            name: "bob".to_owned(),
            uid: 1000,
            gid: 1000,
            groups: Vec::new(),
            home: "/home/bob".into(),
            terminal_group: None,
            shell: "/usr/bin/nosh".into(),
        };
        refusal(SpawnError::NotFound { program: program.to_owned() }, &user).remedy
    }

    #[test]
    fn a_login_shell_that_does_not_exist_is_told_as_such() {
        let remedy = missing("/usr/bin/nosh");
        assert!(
            remedy.contains("login shell of bob") && remedy.contains("chsh -s /bin/sh bob"),
            "{remedy}"
        );
    }

    #[test]
    fn a_labshd_that_was_removed_while_it_runs_is_told_as_such() {
        let own = copying::words().unwrap_or_default().remove(0);
        assert!(missing(&own).contains("labshd itself"), "{}", missing(&own));
        assert!(missing("/bin/other").contains("check the name"));
    }
}
