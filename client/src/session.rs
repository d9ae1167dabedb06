//! An authenticated connection and the commands on it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use labsh_proto::auth::Mode;
use labsh_proto::channel::{Channels, Completeness, Event, OpenError, Role};
use labsh_proto::explanation::Explained;
use labsh_proto::flow::{Budget, Growth};
use labsh_proto::frame::{ChannelId, Frame};
use labsh_proto::limits;
use labsh_proto::message::{Exit, Features, Goodbye, Open, Program, Refuse, RefuseCode, Status};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{FrameReader, ReadError};
use labsh_transport::multiplexer::Multiplexer;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout, timeout_at};

use crate::agent::{self, Borrowed};
use crate::command::Command;
use crate::connect::{self, Answered, ConnectOptions, Intake, Server};
use crate::error::{CommandError, ConnectError};
use crate::liveness::{DEAD_PEER_AFTER, Silence, Verdict};

/// What the windows of one session may grow by, in bytes.
const GROWTH: u64 = 512 << 20;

/// An answer within this makes the server near, processing included: a quarter of a MiB under way
/// then fills a link of 1 Gbit/s.
const NEAR: Duration = Duration::from_millis(2);

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// How far a command has come, as the server told it.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Opening,
    Started { pid: u32 },
    Ended { pid: u32, status: Status },
    Refused(Refuse),
    Explained(Box<Explained>),
    Exited { pid: u32, exit: Exit, completeness: Completeness },
}

/// A connection to one labshd; clones share it. It ends with the last clone and the last
/// [`crate::Child`].
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

type Welcomed = Option<Result<Server, ConnectError>>;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) multiplexer: Arc<Multiplexer>,
    commands: Arc<Commands>,
    welcome: watch::Receiver<Welcomed>,
    writing: Mutex<Option<JoinHandle<()>>>,
    reading: JoinHandle<()>,
    /// Tells the agent to keep a session, once the server has let this one in.
    keeping: Mutex<Option<JoinHandle<()>>>,
}

/// What the reading loop tells about each command, and why the connection ended.
#[derive(Debug, Default)]
struct Commands {
    progress: Mutex<HashMap<ChannelId, watch::Sender<Progress>>>,
    lost: OnceLock<CommandError>,
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, watch::Sender<Progress>>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, id: ChannelId, progress: Progress) {
        if let Some(sender) = self.lock().get(&id) {
            sender.send_replace(progress);
        }
    }

    fn pid(&self, id: ChannelId) -> u32 {
        match self.lock().get(&id).map(|sender| sender.borrow().clone()) {
            Some(Progress::Started { pid } | Progress::Ended { pid, .. }) => pid,
            _ => 0,
        }
    }
}

impl Session {
    /// Connects, and returns once the server has let this client in.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let session = Self::connect_early(options).await?;
        session.welcomed().await?;
        Ok(session)
    }

    /// Connects, and in TLS mode returns one round trip earlier: the server is authenticated, this
    /// client is not yet. A first command travels with the proof; a refusal shows up as that
    /// command's error.
    pub async fn connect_early(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let waiting = match agent::borrow(options).await {
            Some(Borrowed::Session { reader, highest, channels, server }) => {
                return Ok(Self::borrowed(reader, highest, channels, server));
            }
            Some(Borrowed::None(waiting)) => Some(waiting),
            None => None,
        };
        let now = Instant::now();
        // One that lies beyond what a clock can say is a year away, and nobody waits for as long.
        let deadline = now.checked_add(options.timeout).unwrap_or(now + YEAR);
        let expired = || ConnectError::Timeout {
            address: options.address.to_string(),
            after: options.timeout,
        };
        let Answered { reader, response, handshake } =
            timeout_at(deadline, connect::answer(options)).await.map_err(|_| expired())??;

        let multiplexer = Arc::new(Multiplexer::new(channels(limits::MAX_CHANNELS_BEFORE_WELCOME)));
        let commands = Arc::new(Commands::default());
        let (tell, welcome) = watch::channel(None);
        let (mut reader, writer) = reader.split();
        let asked = Instant::now();
        let writing = write_frames(&multiplexer, Some(response), writer);
        let reading = tokio::spawn({
            let (multiplexer, commands, options) =
                (multiplexer.clone(), commands.clone(), options.clone());
            async move {
                let welcomed = connect::welcome(&options, &mut reader, handshake);
                let welcomed = timeout_at(deadline, welcomed).await.unwrap_or_else(|_| {
                    Err(ConnectError::Timeout {
                        address: options.address.to_string(),
                        after: options.timeout,
                    })
                });
                let lost = match welcomed {
                    Ok(said) => {
                        multiplexer.set_slots(said.channels);
                        if asked.elapsed() < NEAR {
                            multiplexer.with(Channels::set_near);
                        }
                        let server = Server { features: said.features, version: said.version };
                        tell.send_replace(Some(Ok(server)));
                        read_frames(&mut reader, &multiplexer, &commands, options.intake.as_ref())
                            .await
                    }
                    Err(error) => {
                        tell.send_replace(Some(Err(error.clone())));
                        CommandError::Connect(error)
                    }
                };
                let _ = commands.lost.set(lost);
                multiplexer.lose();
                commands.lock().clear();
            }
        });
        // Beside the command, which waits for nothing of it.
        let keeping = waiting.map(|waiting| {
            let mut welcome = welcome.clone();
            tokio::spawn(async move {
                let welcomed = welcome
                    .wait_for(Option::is_some)
                    .await
                    .is_ok_and(|said| matches!(*said, Some(Ok(_))));
                if welcomed {
                    waiting.keep().await;
                }
            })
        });
        let (writing, keeping) = (Mutex::new(Some(writing)), Mutex::new(keeping));
        let inner = Inner { multiplexer, commands, welcome, writing, reading, keeping };
        let session = Self { inner: Arc::new(inner) };
        if options.mode == Mode::Plain {
            // Without TLS the server has proven nothing yet: no command may leave before its
            // welcome.
            session.welcomed().await?;
        }
        Ok(session)
    }

    /// Around a connection on which the agent was let in, and has used channels up to this one.
    fn borrowed(
        reader: FrameReader<Carrier>,
        highest: ChannelId,
        slots: u32,
        server: Server,
    ) -> Self {
        let mut channels = channels(slots);
        channels.resume_behind(highest);
        let multiplexer = Arc::new(Multiplexer::new(channels));
        let commands = Arc::new(Commands::default());
        let (_, welcome) = watch::channel(Some(Ok(server)));
        let (mut reader, writer) = reader.split();
        let writing = write_frames(&multiplexer, None, writer);
        let reading = tokio::spawn({
            let (multiplexer, commands) = (multiplexer.clone(), commands.clone());
            async move {
                let lost = read_frames(&mut reader, &multiplexer, &commands, None).await;
                let _ = commands.lost.set(lost);
                multiplexer.lose();
                commands.lock().clear();
            }
        });
        let (writing, keeping) = (Mutex::new(Some(writing)), Mutex::new(None));
        let inner = Inner { multiplexer, commands, welcome, writing, reading, keeping };
        Self { inner: Arc::new(inner) }
    }

    /// Resolves once the server has let this client in, or said why not.
    pub async fn welcomed(&self) -> Result<(), ConnectError> {
        self.server().await.map(drop)
    }

    /// Which version answers, such as `labshd 0.1.0`, once the server has let this client in: 1 to
    /// 64 printable ASCII characters. None from a server that does not say it.
    pub async fn server_version(&self) -> Result<Option<String>, ConnectError> {
        self.server().await.map(|server| server.version)
    }

    /// What the server says of itself, once it has let this client in.
    async fn server(&self) -> Result<Server, ConnectError> {
        let mut welcome = self.inner.welcome.clone();
        match welcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            // The reading loop always says how the handshake ended, unless the runtime is being
            // torn down.
            Ok(None) | Err(_) => Ok(Server { features: Features(0), version: None }),
        }
    }

    /// A command of exact words, of which this is the first; it is looked up in the PATH over
    /// there.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        Command::argv(self.clone(), program.as_ref())
    }

    /// One string for the user's shell over there.
    pub fn shell(&self, line: impl AsRef<std::ffi::OsStr>) -> Command {
        Command::of(self.clone(), Program::Shell(line.as_ref().as_encoded_bytes().to_vec()))
    }

    /// The user's own shell over there, as a login shell that reads what to do from its stdin or
    /// its terminal.
    pub fn login_shell(&self) -> Command {
        Command::of(self.clone(), Program::LoginShell)
    }

    /// The program that the server's configuration has under this name, such as `sftp`.
    pub fn subsystem(&self, name: impl AsRef<std::ffi::OsStr>) -> Command {
        Command::of(self.clone(), Program::Subsystem(name.as_ref().as_encoded_bytes().to_vec()))
    }

    /// A command in the form that travels.
    pub fn program(&self, program: Program) -> Command {
        Command::of(self.clone(), program)
    }

    /// Asks the server whether it is there; returns how long the answer took.
    pub async fn ping(&self) -> Result<Duration, CommandError> {
        self.welcomed().await?;
        let start = Instant::now();
        self.inner.multiplexer.ping().await.map_err(|_| self.inner.lost())?;
        Ok(start.elapsed())
    }

    /// Sends what is queued and ends the connection. Commands that still run lose their client.
    pub async fn close(self) {
        // Otherwise it would look to other clones as if the server had done it.
        let _ = self.inner.commands.lost.set(CommandError::Lost("it was closed here".into()));
        self.inner.say_goodbye();
        // A session that was over at once has an agent still to tell.
        for (task, patience) in [(&self.inner.writing, 5), (&self.inner.keeping, 1)] {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                let _ = timeout(Duration::from_secs(patience), task).await;
            }
        }
    }

    /// Opens a channel, waiting for a slot where all are taken.
    pub(crate) async fn open(
        &self,
        open: &Open,
    ) -> Result<(ChannelId, watch::Receiver<Progress>), CommandError> {
        self.channel(|channels| channels.open(open)).await
    }

    /// Opens a channel to ask what would become of a command.
    pub(crate) async fn ask(
        &self,
        open: &Open,
    ) -> Result<(ChannelId, watch::Receiver<Progress>), CommandError> {
        if !self.server().await?.features.contains(Features::EXPLAIN) {
            return Err(CommandError::Refused(Refuse::new(
                RefuseCode::UNSUPPORTED,
                "it is not known that this labshd can explain commands: it may be older than this \
                 labsh",
                "bring labshd up to date there; `labsh run` with `true` shows whether the key is \
                 accepted",
            )));
        }
        self.channel(|channels| channels.ask(open)).await
    }

    async fn channel(
        &self,
        mut opened: impl FnMut(&mut Channels) -> Result<ChannelId, OpenError>,
    ) -> Result<(ChannelId, watch::Receiver<Progress>), CommandError> {
        loop {
            let slot = self.inner.multiplexer.slot();
            // The lock is held over all of it: no answer can come before someone listens for it,
            // and a loss that is not seen here is told to all who listen by then.
            let mut commands = self.inner.commands.lock();
            if self.inner.multiplexer.is_lost() {
                return Err(self.inner.lost());
            }
            match self.inner.multiplexer.with(&mut opened) {
                Ok(id) => {
                    let (sender, receiver) = watch::channel(Progress::Opening);
                    commands.insert(id, sender);
                    return Ok((id, receiver));
                }
                Err(OpenError::Command(bad)) => return Err(CommandError::Bad(bad)),
                Err(OpenError::NoId) => return Err(CommandError::Exhausted),
                Err(OpenError::NoSlot(_)) => {}
            }
            drop(commands);
            slot.await;
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    /// Why the connection has gone.
    pub(crate) fn lost(&self) -> CommandError {
        let unknown = || CommandError::Lost("the connection was closed".into());
        self.commands.lost.get().cloned().unwrap_or_else(unknown)
    }

    fn say_goodbye(&self) {
        self.multiplexer.with(|channels| channels.goodbye(&Goodbye::new("")));
        self.multiplexer.finish();
    }

    /// Gives a channel back.
    pub(crate) fn close(&self, id: ChannelId) {
        self.commands.lock().remove(&id);
        self.multiplexer.close(id);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writing loop sends what is queued, and then ends by itself.
        self.say_goodbye();
        self.reading.abort();
    }
}

fn channels(limit: u32) -> Channels {
    Channels::new(Role::Client, limit, Growth::new(Budget::new(GROWTH)))
}

/// Writes `first` and then what becomes due, in a task of its own.
fn write_frames(
    multiplexer: &Arc<Multiplexer>,
    first: Option<Frame>,
    mut writer: WriteHalf<Carrier>,
) -> JoinHandle<()> {
    let multiplexer = multiplexer.clone();
    tokio::spawn(async move {
        if multiplexer.write_frames(first, &mut writer).await.is_err() {
            multiplexer.lose();
        }
    })
}

/// Takes frames until the connection ends; returns why it did.
async fn read_frames(
    reader: &mut FrameReader<ReadHalf<Carrier>>,
    multiplexer: &Multiplexer,
    commands: &Commands,
    intake: Option<&Intake>,
) -> CommandError {
    let lost = |reason: String| CommandError::Lost(reason);
    let mut turn = None;
    if intake.is_some() {
        reader.take_little();
    }
    let mut silence = Silence::default();
    loop {
        let frame = match silence.next(reader).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return lost("the server closed it".into()),
            Ok(Err(ReadError::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return lost("it was cut".into());
            }
            Ok(Err(ReadError::Io(error))) => return lost(error.to_string()),
            Ok(Err(ReadError::Protocol(error))) => {
                return lost(format!("the server broke the protocol: {error}"));
            }
            Err(Verdict::Wait) => continue,
            Err(Verdict::Ask) => {
                multiplexer.with(|channels| channels.ping(0));
                continue;
            }
            Err(Verdict::Gone) => {
                return lost(format!("the server was silent for {} s", DEAD_PEER_AFTER.as_secs()));
            }
        };
        match multiplexer.receive(frame) {
            Ok(Event::Started(id, started)) => {
                commands.advance(id, Progress::Started { pid: started.pid })
            }
            Ok(Event::Ended(id, status)) => {
                let pid = commands.pid(id);
                commands.advance(id, Progress::Ended { pid, status });
            }
            Ok(Event::Refused(id, refuse)) => commands.advance(id, Progress::Refused(refuse)),
            Ok(Event::Explained(id, explained)) => {
                commands.advance(id, Progress::Explained(Box::new(explained)));
            }
            Ok(Event::Exited(id, exit, completeness)) => {
                let pid = commands.pid(id);
                commands.advance(id, Progress::Exited { pid, exit, completeness });
            }
            Ok(Event::ConnectionRefused(refuse)) => return lost(with_remedy(&refuse)),
            Ok(Event::Goodbye(goodbye)) => {
                return lost(format!("the server ended it: {}", goodbye.reason));
            }
            Ok(_) => {}
            Err(error) => return lost(format!("the server broke the protocol: {error}")),
        }
        // A read brings thousands of small frames, and the runtime counts reads.
        consume_budget().await;
        if reader.has_next() {
            continue;
        }
        multiplexer.wake();
        if turn.is_some() {
            multiplexer.all_consumed().await;
            reader.hold_little();
            turn = None;
        }
        // Not while waiting for the server: that it is silent must be its own doing, and nobody
        // should wait for it.
        while let Some(intake) = intake.filter(|_| reader.has_more() && !reader.has_next()) {
            let mine = intake.turn().await;
            reader.take_much().await;
            turn = Some(mine).filter(|_| reader.has_next());
            if turn.is_none() {
                reader.hold_little();
            }
        }
    }
}

fn with_remedy(refuse: &Refuse) -> String {
    if refuse.remedy.is_empty() {
        return refuse.reason.clone();
    }
    format!("{}; {}", refuse.reason, refuse.remedy)
}
