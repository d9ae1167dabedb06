//! One command on many hosts: which hosts connect and run at a time, and the outcome on each.
//!
//! A host *begins* when it first connects; its command *starts* later.

mod broadcast;
mod check;
mod host;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use labsh_proto::message::{Program, Stream, Until};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use broadcast::Broadcast;
pub use check::{Answer, check};

use crate::child::{Child, Stdio};
use crate::command::CommandOptions;
use crate::connect::{ConnectOptions, ReadLimiter};
use crate::error::{CommandError, ConnectError};
use crate::exit_status::ExitStatus;
use streams::StreamDriver;

/// A connection that takes longer to open than this no longer counts against
/// [`Limits::connecting`]: it does nothing but wait.
const SLOW_CONNECT_AFTER: Duration = Duration::from_millis(500);

/// The most hosts whose output is read in large pieces at the same time. Buffers for a thousand
/// would fill the memory.
const MAX_READING_HOSTS: usize = 32;

/// A host of a fan-out.
#[derive(Debug, Clone)]
pub struct Host {
    /// The host's name in all output.
    pub name: String,
    /// How to connect to it.
    pub connection: ConnectOptions,
    /// The user that the command is expected to run as ([`CommandOptions::user`]).
    pub user: Option<String>,
}

/// The command of a fan-out, the same on every host.
#[derive(Debug, Clone)]
pub struct FanoutCommand {
    /// The program.
    pub program: Program,
    /// Its options, except the user, which is the host's.
    pub options: CommandOptions,
    /// The input of each command; `None` is empty.
    pub stdin: Option<Broadcast>,
}

/// Reads and writes the streams of each command of a fan-out, instead of passing them on.
pub trait Driver: Send + Sync + 'static {
    /// Drives the command of the host at index `host` to its end. The future is dropped at
    /// [`StopLevel::Disconnect`].
    fn drive(
        &self,
        host: usize,
        child: Child,
    ) -> impl Future<Output = Result<ExitStatus, CommandError>> + Send;
}

/// When hosts begin, how many are busy at a time, and when the run stops. `labsh run` and
/// `labsh cp` both fill it in.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections that are being opened. One that takes long stops counting, so that dead
    /// hosts do not delay others.
    pub connecting: usize,
    /// The most hosts that run the command. A host whose connection takes long gives its turn to
    /// the next, unless the run stops at a failure, and waits for another before its command
    /// starts.
    pub running: usize,
    /// How often a failed connection is retried. A command is never started twice.
    pub retries: u32,
    /// Whether no more hosts begin after one has failed.
    pub stop_at_failure: bool,
}

/// The outcome of one host.
#[derive(Debug, Clone)]
pub enum End {
    /// The command ended, and all of its output arrived, unless the run was stopped while other
    /// processes held the output open.
    Ended(ExitStatus),
    /// There was no connection. Nothing was started.
    Unreachable(CommandError),
    /// The host refused the key or the command. Nothing was started.
    Refused(CommandError),
    /// The connection was lost, or output is missing. The outcome of the command is not known.
    Lost(CommandError),
    /// The host did not begin: another had failed, or the user stopped the run.
    NotBegun,
}

impl End {
    /// Returns the outcome that follows from an error.
    pub fn of(error: CommandError) -> Self {
        match &error {
            CommandError::Bad(_) | CommandError::Refused(_) | CommandError::Exhausted => {
                End::Refused(error)
            }
            CommandError::Connect(connect) => match connect {
                ConnectError::Unreachable { .. }
                | ConnectError::TooManyFiles { .. }
                | ConnectError::Silent { .. }
                | ConnectError::Lost { .. }
                | ConnectError::Timeout { .. }
                | ConnectError::PortIsPlain { .. }
                | ConnectError::Foreign { .. }
                | ConnectError::Protocol { .. } => End::Unreachable(error),
                ConnectError::WrongServer { .. } | ConnectError::Refused { .. } => {
                    End::Refused(error)
                }
                // The command may have arrived before.
                ConnectError::Broken { .. } => End::Lost(error),
            },
            CommandError::Lost(_) | CommandError::Input(_) | CommandError::Incomplete { .. } => {
                End::Lost(error)
            }
        }
    }

    /// Whether the command ran and exited with code 0.
    pub fn success(&self) -> bool {
        matches!(self, End::Ended(status) if status.success() && !status.timed_out())
    }
}

/// An event of a fan-out; the number is the host's index in the list.
#[derive(Debug)]
pub enum Event {
    /// The host begins to connect.
    Begun(usize),
    /// The command runs.
    Started(usize),
    /// The command has ended, but processes that it left behind hold its output open.
    Leftovers(usize),
    /// The command wrote something.
    Output(usize, Stream, Bytes),
    /// The host has ended after this time, and has no further events.
    Over(usize, End, Duration),
}

/// How far a run is to be stopped. A level includes those below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StopLevel {
    /// The run goes on.
    #[default]
    None,
    /// No more hosts begin, and the commands are interrupted (SIGINT). A host that does not start
    /// its command now is left, and so is one whose command has ended while other processes hold
    /// its output open.
    Interrupt,
    /// The same, with SIGTERM.
    Terminate,
    /// The connections are closed, and the hosts end the commands that still run.
    Disconnect,
}

/// Waits for a slot and then for `attempt`, which opens a connection. A slow attempt frees its slot
/// early, and calls `on_slow`.
pub async fn connect_in_slot<T>(
    slots: &Semaphore,
    attempt: impl Future<Output = T>,
    on_slow: impl FnOnce(),
) -> T {
    let slot = slots.acquire().await;
    let mut attempt = std::pin::pin!(attempt);
    tokio::select! {
        opened = &mut attempt => return opened,
        () = sleep(SLOW_CONNECT_AFTER) => {
            drop(slot);
            on_slow();
        }
    }
    attempt.await
}

/// Runs a command on all hosts, with its output as events. The reader of `events` sets the pace:
/// output that it does not take is not requested from the hosts.
///
/// Returns once every host has ended; each host then has had exactly one [`Event::Over`].
pub async fn run(
    mut hosts: Vec<Host>,
    command: FanoutCommand,
    limits: Limits,
    events: mpsc::Sender<Event>,
    stop: watch::Receiver<StopLevel>,
) {
    let limiter = ReadLimiter::new(MAX_READING_HOSTS);
    for host in &mut hosts {
        host.connection.read_limiter = Some(limiter.clone());
    }
    let FanoutCommand { program, options, stdin } = command;
    let stdio = if stdin.is_some() { Stdio::Piped } else { Stdio::Null };
    let driver = StreamDriver {
        stdin,
        events: events.clone(),
        stop: stop.clone(),
        waits_for_streams: options.until == Until::StreamsEnd,
    };
    FanoutState::new(program, options, stdio, driver, limits, events, stop).run(hosts).await;
}

/// Runs a command on all hosts, as [`run`] does, but leaves its streams to `driver`.
pub async fn run_with_driver<D: Driver>(
    hosts: Vec<Host>,
    program: Program,
    driver: D,
    limits: Limits,
    events: mpsc::Sender<Event>,
    stop: watch::Receiver<StopLevel>,
) {
    let options = CommandOptions::default();
    FanoutState::new(program, options, Stdio::Piped, driver, limits, events, stop).run(hosts).await;
}

/// What all hosts of a run share.
struct FanoutState<D> {
    program: Program,
    options: CommandOptions,
    stdin: Stdio,
    driver: D,
    limits: Limits,
    connecting: Semaphore,
    running: Arc<Semaphore>,
    failed: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
    stop: watch::Receiver<StopLevel>,
}

impl<D> FanoutState<D> {
    fn new(
        program: Program,
        options: CommandOptions,
        stdin: Stdio,
        driver: D,
        limits: Limits,
        events: mpsc::Sender<Event>,
        stop: watch::Receiver<StopLevel>,
    ) -> Self {
        Self {
            program,
            options,
            stdin,
            driver,
            limits,
            connecting: Semaphore::new(limits.connecting.max(1)),
            running: Arc::new(Semaphore::new(limits.running.max(1))),
            failed: watch::channel(false).0,
            events,
            stop,
        }
    }

    /// Waits for a permit to run. A host that has returned its permit while connecting waits here
    /// too: do not wait for anything else while holding one.
    async fn run_slot(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.running.clone().acquire_owned().await.ok()
    }

    /// Whether no more hosts are to begin.
    fn is_stopping(&self) -> bool {
        *self.stop.borrow() != StopLevel::None
            || self.limits.stop_at_failure && *self.failed.borrow()
    }
}

impl<D: Driver> FanoutState<D> {
    async fn run(self, hosts: Vec<Host>) {
        let state = Arc::new(self);
        let mut tasks = JoinSet::new();
        for (index, host) in hosts.into_iter().enumerate() {
            // Hosts begin in the order of the list. One that waits for a slot has no task yet.
            let slot = state.run_slot().await;
            let state = state.clone();
            tasks.spawn(async move { host::run(&state, index, host, slot).await });
        }
        while tasks.join_next().await.is_some() {}
    }
}
