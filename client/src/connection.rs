//! One connection to a labshd: its channels, its commands, and the tasks that read and write it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use labsh_proto::channel::{Channels, OpenError, Role};
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::{ChannelId, Frame};
use labsh_proto::limits;
use labsh_proto::message::{Features, Goodbye, Open, Refuse, RefuseCode};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::FrameReader;
use labsh_transport::multiplexer::Multiplexer;
use tokio::io::WriteHalf;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::agent::LentSession;
use crate::connect::{Answered, ConnectOptions, ReadLimiter, ServerInfo};
use crate::error::{CommandError, ConnectError};
use crate::progress::{Commands, Progress};
use crate::read_loop::{Authentication, ReadLoop, Welcome};

/// All windows of one connection together may grow by this many bytes.
const WINDOW_GROWTH_BUDGET: u64 = 512 << 20;

/// How long [`Connection::close`] waits until what is queued is written.
const CLOSE_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long [`Connection::close`] waits for the task of [`Connection::after_welcome`].
const CLOSE_TASK_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, shared by its sessions, commands and children. It ends when the last of them is
/// dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) multiplexer: Arc<Multiplexer>,
    commands: Arc<Commands>,
    welcome: watch::Receiver<Welcome>,
    writing: Mutex<Option<JoinHandle<()>>>,
    reading: JoinHandle<()>,
    after_welcome: Mutex<Option<JoinHandle<()>>>,
}

impl Connection {
    /// Sends the response to the server's challenge, and waits for `welcome` in the reading task.
    pub(crate) fn authenticating(
        options: &ConnectOptions,
        answered: Answered,
        deadline: Instant,
    ) -> Self {
        let Answered { reader, response, handshake } = answered;
        let (outcome, welcome) = watch::channel(None);
        let (options, sent) = (options.clone(), Instant::now());
        let limiter = options.read_limiter.clone();
        let authentication = Authentication { options, handshake, sent, deadline, outcome };
        let channels = channels(limits::MAX_CHANNELS_BEFORE_WELCOME);
        Self::start(reader, channels, welcome, limiter, Some((response, authentication)))
    }

    /// Goes on with a session that the agent authenticated.
    pub(crate) fn lent(session: LentSession) -> Self {
        let LentSession { reader, highest, channels: slots, server } = session;
        let mut channels = channels(slots);
        channels.resume_after(highest);
        let (_, welcome) = watch::channel(Some(Ok(server)));
        Self::start(reader, channels, welcome, None, None)
    }

    fn start(
        reader: FrameReader<Carrier>,
        channels: Channels,
        welcome: watch::Receiver<Welcome>,
        limiter: Option<ReadLimiter>,
        authentication: Option<(Frame, Authentication)>,
    ) -> Self {
        let (response, authentication) = authentication.unzip();
        let multiplexer = Arc::new(Multiplexer::new(channels));
        let commands = Arc::new(Commands::default());
        let (reader, writer) = reader.split();
        let writing = tokio::spawn(write_frames(multiplexer.clone(), response, writer));
        let read_loop = ReadLoop {
            reader,
            multiplexer: multiplexer.clone(),
            commands: commands.clone(),
            limiter,
        };
        let reading = tokio::spawn(read_loop.run(authentication));
        let (writing, after_welcome) = (Mutex::new(Some(writing)), Mutex::new(None));
        Self { multiplexer, commands, welcome, writing, reading, after_welcome }
    }

    /// Runs `task` once the server has authenticated this client, beside the commands.
    pub(crate) fn after_welcome(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut welcome = self.welcome.clone();
        let handle = tokio::spawn(async move {
            let authenticated = welcome
                .wait_for(Option::is_some)
                .await
                .is_ok_and(|outcome| matches!(*outcome, Some(Ok(_))));
            if authenticated {
                task.await;
            }
        });
        *self.after_welcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    }

    /// Waits until the server has authenticated this client, and returns what it said about itself.
    pub(crate) async fn server(&self) -> Result<ServerInfo, ConnectError> {
        let mut welcome = self.welcome.clone();
        match welcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            // The reading task always reports an outcome, unless the runtime is shutting down.
            Ok(None) | Err(_) => Ok(ServerInfo { features: Features(0), version: None }),
        }
    }

    /// Asks the server to answer; returns how long that took.
    pub(crate) async fn ping(&self) -> Result<Duration, CommandError> {
        self.server().await?;
        let start = Instant::now();
        self.multiplexer.ping().await.map_err(|_| self.loss())?;
        Ok(start.elapsed())
    }

    /// Opens a channel for a command; waits for a slot if all are taken.
    pub(crate) async fn open(
        &self,
        open: &Open,
    ) -> Result<(ChannelId, watch::Receiver<Progress>), CommandError> {
        self.channel(|channels| channels.open(open)).await
    }

    /// Opens a channel that asks the server to explain a command.
    pub(crate) async fn ask(
        &self,
        open: &Open,
    ) -> Result<(ChannelId, watch::Receiver<Progress>), CommandError> {
        if !self.server().await?.features.contains(Features::EXPLAIN) {
            return Err(CommandError::Refused(Refuse::new(
                RefuseCode::UNSUPPORTED,
                "this labshd does not announce that it can explain commands; it may be older than \
                 this labsh",
                "update labshd on that host; `labsh run` with `true` shows whether it accepts the \
                 key",
            )));
        }
        self.channel(|channels| channels.request_explanation(open)).await
    }

    async fn channel(
        &self,
        mut opened: impl FnMut(&mut Channels) -> Result<ChannelId, OpenError>,
    ) -> Result<(ChannelId, watch::Receiver<Progress>), CommandError> {
        loop {
            let slot = self.multiplexer.slot_freed();
            // The lock is held until the command is in the map. An answer cannot arrive before
            // there is a receiver for it, and a loss that is not seen here clears the map later.
            let mut commands = self.commands.lock();
            if self.multiplexer.is_lost() {
                return Err(self.loss());
            }
            match self.multiplexer.with(&mut opened) {
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

    /// Closes a channel and frees its slot.
    pub(crate) fn close_channel(&self, id: ChannelId) {
        self.commands.lock().remove(&id);
        self.multiplexer.close(id);
    }

    /// Returns the reason why the connection ended.
    pub(crate) fn loss(&self) -> CommandError {
        self.commands.loss()
    }

    /// Sends what is queued and a goodbye, and ends the connection.
    pub(crate) async fn close(&self) {
        // The first reason counts: other handles must not see this as the server's doing.
        self.commands.set_loss(CommandError::Lost("this client closed it".into()));
        self.say_goodbye();
        for (task, limit) in
            [(&self.writing, CLOSE_WRITE_TIMEOUT), (&self.after_welcome, CLOSE_TASK_TIMEOUT)]
        {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                let _ = timeout(limit, task).await;
            }
        }
    }

    fn say_goodbye(&self) {
        self.multiplexer.with(|channels| channels.goodbye(&Goodbye::new("")));
        self.multiplexer.finish();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The writing task sends what is queued, and then ends by itself.
        self.say_goodbye();
        self.reading.abort();
    }
}

fn channels(limit: u32) -> Channels {
    Channels::new(Role::Client, limit, ConnectionBudget::new(Budget::new(WINDOW_GROWTH_BUDGET)))
}

/// Writes `first`, then frames as the channels produce them.
async fn write_frames(
    multiplexer: Arc<Multiplexer>,
    first: Option<Frame>,
    mut writer: WriteHalf<Carrier>,
) {
    if multiplexer.write_frames(first, &mut writer).await.is_err() {
        multiplexer.mark_lost();
    }
}
