//! One command on many hosts at once: who connects when, who runs when, and what became of each.

mod broadcast;
mod check;
mod host;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use labsh_proto::message::{Program, Stream, Until, Variable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use broadcast::Broadcast;
pub use check::{Answer, check};

use crate::child::{Child, ExitStatus};
use crate::connect::{ConnectOptions, Intake};
use crate::error::{CommandError, ConnectError};

/// After so long a connection that is still being opened makes room for others: it costs nothing
/// but patience.
const SLOW: Duration = Duration::from_millis(500);

/// A host, by the name that people know it by.
#[derive(Debug, Clone)]
pub struct Host {
    /// As it stands in every output.
    pub name: String,
    /// How to get there.
    pub connection: ConnectOptions,
    /// The user as whom the command is expected to run there; the host refuses it for anybody else.
    pub user: Option<String>,
}

/// What is run on every host.
#[derive(Debug, Clone)]
pub struct Work {
    /// The command.
    pub program: Program,
    /// Variables on top of the clean environment.
    pub environment: Vec<Variable>,
    /// The working directory; the user's home when absent.
    pub directory: Option<Vec<u8>>,
    /// After so long each host ends it.
    pub timeout: Option<Duration>,
    /// When it counts as over.
    pub until: Until,
    /// What every command reads; nothing when absent.
    pub stdin: Option<Broadcast>,
    /// Who speaks with the commands instead, and takes their output.
    pub companion: Option<Arc<dyn Companion>>,
}

/// How a command ended, once a [`Companion`] has seen to it.
pub type Attended<'a> = Pin<Box<dyn Future<Output = Result<ExitStatus, CommandError>> + Send + 'a>>;

/// Somebody who holds a conversation with each command of a run.
pub trait Companion: fmt::Debug + Send + Sync {
    /// Speaks with the command of one host, by its place in the list, to its end. The future is
    /// dropped where the user leaves.
    fn attend(&self, host: usize, child: Child) -> Attended<'_>;
}

/// How much happens at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections being opened. One that takes long stops counting, so that a dead host delays
    /// nobody.
    pub connecting: usize,
    /// Hosts at work. One whose connection takes long makes room as well, unless the run stops at
    /// failures; its command waits for a turn of its own.
    pub running: usize,
    /// How often a connection is tried again. A command is never started twice.
    pub retries: u32,
    /// Whether no more hosts are begun once one has not succeeded.
    pub stop_at_failure: bool,
}

/// What became of one host.
#[derive(Debug, Clone)]
pub enum End {
    /// The command ran, and all of its output is here.
    Ended(ExitStatus),
    /// There was no connection, so nothing was started.
    Unreachable(CommandError),
    /// The host let nobody in, or would not run the command. Nothing was started.
    Refused(CommandError),
    /// The connection broke, or output is missing: what became of the command is not known.
    Lost(CommandError),
    /// It was not begun: another host had failed, or the user had had enough.
    NotBegun,
}

impl End {
    /// What an error means for the host that it is about.
    pub fn of(error: CommandError) -> Self {
        match &error {
            CommandError::Bad(_) | CommandError::Refused(_) | CommandError::Exhausted => {
                End::Refused(error)
            }
            CommandError::Connect(connect) => match connect {
                ConnectError::Unreachable { .. }
                | ConnectError::Timeout { .. }
                | ConnectError::PortIsPlain { .. }
                | ConnectError::Foreign { .. }
                | ConnectError::Protocol { .. } => End::Unreachable(error),
                ConnectError::WrongServer { .. } | ConnectError::Refused { .. } => {
                    End::Refused(error)
                }
                // The command may have been on its way.
                ConnectError::Broken { .. } => End::Lost(error),
            },
            CommandError::Lost(_) | CommandError::Input(_) | CommandError::Incomplete { .. } => {
                End::Lost(error)
            }
        }
    }

    /// Whether the command ran and said that all is well.
    pub fn success(&self) -> bool {
        matches!(self, End::Ended(status) if status.success() && !status.timed_out())
    }
}

/// Something that happened; the number is the host's place in the list.
#[derive(Debug)]
pub enum Event {
    /// Its turn has come.
    Begun(usize),
    /// The command runs.
    Started(usize),
    /// It wrote something.
    Output(usize, Stream, Bytes),
    /// Nothing more will come from it.
    Over(usize, End, Duration),
}

/// What the user wants of a run that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Wish {
    /// To see its end.
    #[default]
    Finish,
    /// To interrupt the commands (SIGINT), and to begin no more.
    Interrupt,
    /// To terminate the commands (SIGTERM), and to begin no more.
    Terminate,
    /// To be gone: connections are closed, and the hosts end what still runs.
    Leave,
}

/// As many hosts may send much at a time: what a thousand may have under way would fill the memory.
const INTAKE: usize = 32;

/// Waits for `attempt`, which opens a connection, in one of `places`; it gives the place back once
/// it takes long, so that dead hosts delay nobody, and says so.
pub async fn open<T>(
    places: &Semaphore,
    attempt: impl Future<Output = T>,
    slow: impl FnOnce(),
) -> T {
    let place = places.acquire().await;
    let mut attempt = std::pin::pin!(attempt);
    tokio::select! {
        opened = &mut attempt => return opened,
        () = sleep(SLOW) => {
            drop(place);
            slow();
        }
    }
    attempt.await
}

/// Runs it. Events go to `events`, whose reader sets the pace: what it has not taken is not asked
/// for.
///
/// Returns when every host is over; every host then has had exactly one [`Event::Over`].
pub async fn run(
    hosts: Vec<Host>,
    work: Work,
    limits: Limits,
    events: mpsc::Sender<Event>,
    wish: watch::Receiver<Wish>,
) {
    let crew = Arc::new(Crew {
        work,
        retries: limits.retries,
        stop_at_failure: limits.stop_at_failure,
        connecting: Semaphore::new(limits.connecting.max(1)),
        running: Arc::new(Semaphore::new(limits.running.max(1))),
        failed: watch::channel(false).0,
        events,
        wish,
    });
    // A companion may take one stream only after another.
    let intake = crew.work.companion.is_none().then(|| Intake::new(INTAKE));
    let mut tasks = JoinSet::new();
    for (index, mut host) in hosts.into_iter().enumerate() {
        // In the order of the list: who is waiting for a turn costs nothing but its place in it.
        let turn = crew.turn().await;
        host.connection.intake = intake.clone();
        let crew = crew.clone();
        tasks.spawn(async move { host::run(&crew, index, host, turn).await });
    }
    while tasks.join_next().await.is_some() {}
}

/// What all hosts of a run share.
struct Crew {
    work: Work,
    retries: u32,
    stop_at_failure: bool,
    connecting: Semaphore,
    running: Arc<Semaphore>,
    failed: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
    wish: watch::Receiver<Wish>,
}

impl Crew {
    /// A place among the hosts at work.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.running.clone().acquire_owned().await.ok()
    }

    /// Whether no more hosts are to be begun.
    fn enough(&self) -> bool {
        *self.wish.borrow() != Wish::Finish || self.stop_at_failure && *self.failed.borrow()
    }
}
