//! One command from its request to its exit: spawning, streams, signals, and every way to end it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::frame::ChannelId;
use labsh_proto::message::{Open, Program, Refuse, Resize, Status, Until, Usage};
use labsh_transport::multiplexer::Multiplexer;
use nix::libc::SIGKILL;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::key_share::Permit;
use crate::logs::Escaped;
use crate::request::{self, Origin};
use crate::shared::Shared;
use crate::spawner::{Ended, Process, SpawnRequest, Spawned};
use crate::start_deadline::time_limit;
use crate::streams::{self, Input, Output};
use crate::terminal::Terminal;
use crate::termination::{Cause, Termination};

/// When labshd stops: how long output may wait for its reader after the command was killed.
const FINAL_OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// The status of a command that labshd has killed and does not wait for.
const KILLED: Status = Status::Signaled { signal: SIGKILL as u8, core_dumped: false };

/// Limit on a command's description in the log, in bytes; the rest is cut off.
const MAX_DESCRIPTION_LEN: usize = 200;

/// A command that a client has requested.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    pub(crate) multiplexer: Arc<Multiplexer>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) id: ChannelId,
    pub(crate) open: Open,
    /// The length of the encoded `open`, in bytes.
    pub(crate) length: usize,
    /// The share of a long command, until it is passed to the spawner.
    pub(crate) long: Option<Permit>,
    /// When the client's request arrived.
    pub(crate) requested: Instant,
    /// Signals from the client.
    pub(crate) signals: mpsc::Receiver<u8>,
    /// The latest terminal size from the client.
    pub(crate) sizes: watch::Receiver<Option<Resize>>,
    /// Cancelled when the client closes the channel, or the connection ends.
    pub(crate) client_gone: CancellationToken,
}

impl Job {
    /// Runs the command until its exit is sent or the client has gone. Afterwards no process of it
    /// runs, except those left in the background by a leader that exited by itself.
    pub(crate) async fn run(mut self) {
        let description = Escaped(&describe(&self.open.program)).to_string();
        let spawned = match self.spawn(prepare).await {
            Ok(Some((spawned, ()))) => spawned,
            Ok(None) => return,
            Err(refuse) => {
                tracing::info!(
                    key = %self.origin.entry.key.key_id(),
                    command = %self.open.command,
                    reason = %Escaped(&refuse.reason),
                    "command refused"
                );
                return self.multiplexer.with(|channels| channels.refuse(self.id, &refuse));
            }
        };
        let Spawned { pid, streams, process } = spawned;
        tracing::info!(
            key = %self.origin.entry.key.key_id(),
            user = %self.origin.user.name,
            command = %self.open.command,
            pid,
            what = %description,
            "command started"
        );
        self.multiplexer.with(|channels| channels.started(self.id, pid));
        match streams::watch(streams) {
            Ok((input, output, terminal)) => {
                RunningJob::new(self, process, terminal).run(input, output).await;
            }
            Err(error) => {
                // Dropping the process kills its group. A channel that has started needs an exit.
                tracing::error!(pid, %error, "cannot watch a command's streams");
                self.multiplexer
                    .with(|channels| channels.exit(self.id, KILLED, false, Usage::default()));
            }
        }
    }
}

fn prepare(open: &Open, origin: &Origin, config: &Config) -> Result<(SpawnRequest, ()), Refuse> {
    request::prepare(open, origin, config).map(|request| (request, ()))
}

/// A started command, until its exit is sent or the client has gone.
struct RunningJob {
    job: Job,
    process: Process,
    terminal: Option<Arc<Terminal>>,
    /// The delay between the steps of a termination, as configured when the command started.
    grace: Duration,
    leader: Leader,
    input_open: bool,
    output_open: bool,
    /// Cancelled when the outputs end with the bytes that pipe or terminal hold by then, even if
    /// other processes have them open.
    output_ending: CancellationToken,
    /// Cancelled when the client stops reading the terminal's output.
    reader_gone: CancellationToken,
    termination: Option<Termination>,
    /// Set when labshd stops: when to abandon output that the client does not read.
    deadline: Option<Instant>,
}

/// How far the leader of a command has come.
enum Leader {
    Running,
    /// It has exited; the exit is sent after the last byte of output.
    Exited(Ended),
    /// The exit is sent.
    Reported,
}

/// The next event of a running command.
enum Event {
    Exited(Ended),
    SpawnerLost,
    InputClosed,
    OutputClosed,
    Signal(u8),
    Resized,
    TerminationStepDue,
    /// No process is left that the next step would signal.
    Vacant,
    /// SIGKILL did not end the leader.
    Abandoned,
    Terminate(Cause),
    Stopping,
    DeadlinePassed,
}

impl RunningJob {
    fn new(job: Job, process: Process, terminal: Option<Arc<Terminal>>) -> RunningJob {
        RunningJob {
            grace: job.shared.config().termination_grace,
            job,
            process,
            terminal,
            leader: Leader::Running,
            input_open: true,
            output_open: true,
            output_ending: CancellationToken::new(),
            reader_gone: CancellationToken::new(),
            termination: None,
            deadline: None,
        }
    }

    async fn run(mut self, input: Input, output: Output) {
        let (multiplexer, id) = (self.job.multiplexer.clone(), self.job.id);
        let (output_ending, reader_gone) = (self.output_ending.clone(), self.reader_gone.clone());
        let mut input = pin!(input.copy(&multiplexer, id));
        let mut output = pin!(output.copy(&multiplexer, id, &output_ending, &reader_gone));
        let time_limit = time_limit(self.job.requested, self.job.open.timeout);
        loop {
            self.report_exit();
            if self.is_over() {
                return;
            }
            let runs = matches!(self.leader, Leader::Running);
            let terminating = self.termination.is_some();
            let next_step = self.termination.as_ref().and_then(Termination::due);
            let abandonment = self.termination.as_ref().and_then(Termination::abandonment);
            let vacant = self.process.vacant();
            let event = tokio::select! {
                ended = self.process.ended(), if runs => {
                    ended.map_or(Event::SpawnerLost, Event::Exited)
                }
                () = &mut input, if self.input_open => Event::InputClosed,
                () = &mut output, if self.output_open => Event::OutputClosed,
                Some(signal) = self.job.signals.recv(), if runs => Event::Signal(signal),
                Ok(()) = self.job.sizes.changed(), if self.terminal.is_some() => Event::Resized,
                () = at(next_step) => Event::TerminationStepDue,
                () = vacant, if !runs && next_step.is_some() => Event::Vacant,
                () = at(abandonment), if runs => Event::Abandoned,
                () = self.job.client_gone.cancelled(), if !terminating => {
                    Event::Terminate(Cause::ClientGone)
                }
                () = reader_gone.cancelled(), if !terminating && runs => {
                    Event::Terminate(Cause::ReaderGone)
                }
                () = at(time_limit), if !terminating && runs => Event::Terminate(Cause::Timeout),
                () = self.job.shared.stopping.cancelled(), if self.deadline.is_none() => {
                    Event::Stopping
                }
                () = at(self.deadline) => Event::DeadlinePassed,
            };
            match event {
                Event::Exited(ended) => self.on_exit(ended),
                Event::SpawnerLost => return multiplexer.mark_lost(),
                Event::InputClosed => self.input_open = false,
                Event::OutputClosed => self.output_open = false,
                Event::Signal(signal) => self.process.signal(signal.into()),
                Event::Resized => self.on_resize(),
                Event::TerminationStepDue => {
                    if let Some(termination) = &mut self.termination {
                        termination.step(&self.process);
                    }
                }
                Event::Vacant => {
                    if let Some(termination) = &mut self.termination {
                        termination.finish();
                    }
                }
                Event::Terminate(cause) => self.terminate(cause),
                Event::Stopping => self.on_stopping(),
                Event::Abandoned => return self.on_abandoned(),
                Event::DeadlinePassed => return,
            }
        }
    }

    /// Sends the exit, once the leader has exited and the output is closed.
    fn report_exit(&mut self) {
        let Leader::Exited(Ended { status, usage }) = self.leader else { return };
        if self.output_open {
            return;
        }
        self.send_exit(status, usage);
        self.leader = Leader::Reported;
    }

    /// Returns whether the leader has exited, no step of the termination remains, and the client
    /// has the exit or has gone.
    fn is_over(&self) -> bool {
        let finished = match self.leader {
            Leader::Running => false,
            Leader::Exited(_) => self.job.client_gone.is_cancelled(),
            Leader::Reported => true,
        };
        finished && self.termination.as_ref().and_then(Termination::due).is_none()
    }

    fn on_exit(&mut self, ended: Ended) {
        let (status, id) = (ended.status, self.job.id);
        self.log_exit(status);
        self.job.multiplexer.with(|channels| channels.ended(id, status));
        self.leader = Leader::Exited(ended);
        // A terminal belongs to its leader: it is hung up after the output written so far, even if
        // other processes have it open.
        let until_exit = self.job.open.until == Until::CommandEnds;
        if until_exit || self.termination.is_some() || self.terminal.is_some() {
            self.output_ending.cancel();
        }
    }

    /// Reports a command as killed that waits in the kernel. The spawner closes its descriptors,
    /// and reaps it when it ends.
    fn on_abandoned(&self) {
        let (command, pid) = (self.job.open.command, self.process.pid());
        let cause = self.cause().map(Cause::name);
        tracing::warn!(
            %command,
            pid,
            cause,
            "a killed command does not end: its file server may not respond"
        );
        self.send_exit(KILLED, Usage::default());
    }

    fn send_exit(&self, status: Status, usage: Usage) {
        let timed_out = self.cause() == Some(Cause::Timeout);
        self.job.multiplexer.with(|channels| channels.exit(self.job.id, status, timed_out, usage));
    }

    fn on_resize(&mut self) {
        let size = *self.job.sizes.borrow_and_update();
        if let (Some(terminal), Some(size)) = (&self.terminal, size) {
            terminal.resize(size);
        }
    }

    fn on_stopping(&mut self) {
        let until_kill = if self.terminal.is_some() { 2 * self.grace } else { self.grace };
        self.deadline = Some(Instant::now() + until_kill + FINAL_OUTPUT_TIMEOUT);
        self.terminate(Cause::Stopping);
    }

    /// Starts to end the command, unless that has begun.
    fn terminate(&mut self, cause: Cause) {
        if self.termination.is_some() {
            return;
        }
        let runs = matches!(self.leader, Leader::Running);
        let mut termination = Termination::new(cause, self.terminal.is_some(), self.grace);
        if runs {
            termination.step(&self.process);
        } else {
            // Its background processes were left running on purpose.
            termination.finish();
            self.output_ending.cancel();
        }
        self.termination = Some(termination);
    }

    fn cause(&self) -> Option<Cause> {
        self.termination.as_ref().map(|termination| termination.cause)
    }

    fn log_exit(&self, status: Status) {
        let status = match status {
            Status::Exited(code) => format!("exit {code}"),
            Status::Signaled { signal, core_dumped: false } => format!("signal {signal}"),
            Status::Signaled { signal, core_dumped: true } => {
                format!("signal {signal}, core dumped")
            }
        };
        let (command, pid) = (self.job.open.command, self.process.pid());
        let seconds = self.job.requested.elapsed().as_secs_f64();
        let cause = self.cause().map(Cause::name);
        tracing::info!(%command, pid, status, cause, seconds, "command ended");
    }
}

/// Waits until that time, or for ever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Describes a command for the log, in at most [`MAX_DESCRIPTION_LEN`] bytes.
pub(crate) fn describe(program: &Program) -> String {
    let head = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_DESCRIPTION_LEN)]).into_owned()
    };
    let mut text = match program {
        Program::Shell(line) => head(line),
        Program::LoginShell => "login shell".to_owned(),
        Program::Subsystem(name) => format!("subsystem {}", head(name)),
        Program::Argv(words) => {
            let mut text = String::new();
            for word in words {
                if text.len() > MAX_DESCRIPTION_LEN {
                    break;
                }
                let word = head(word);
                let plain = |c: char| c.is_alphanumeric() || "/._-:+,=@%".contains(c);
                // Other words are quoted, so that an argument vector does not look like a shell's
                // command line.
                if word.is_empty() || !word.chars().all(plain) {
                    text += &format!("{word:?} ");
                } else {
                    text = text + &word + " ";
                }
            }
            text.trim_end().to_owned()
        }
    };
    if text.len() > MAX_DESCRIPTION_LEN {
        text.truncate(text.floor_char_boundary(MAX_DESCRIPTION_LEN));
        text.push('…');
    }
    text
}
