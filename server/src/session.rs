//! One authenticated connection: passes its frames to its commands, until either side ends it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::auth::ServerParameters;
use labsh_proto::channel::{Channels, Event, Role};
use labsh_proto::error::ProtocolError;
use labsh_proto::flow::ConnectionBudget;
use labsh_proto::frame::{ChannelId, Frame};
use labsh_proto::limits;
use labsh_proto::message::{EncodedOpen, Features, Goodbye, Refuse, RefuseCode, Resize};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{self, FrameReader, ReadError};
use labsh_transport::multiplexer::Multiplexer;
use labsh_transport::socket::Watch;
use tokio::io::ReadHalf;
use tokio::sync::{mpsc, watch};
use tokio::task::coop::consume_budget;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts;
use crate::authenticate::Client;
use crate::explain;
use crate::job::Job;
use crate::request::Origin;
use crate::shared::Shared;

/// Longest interval between checks that the client still acknowledges data; a short
/// `dead_peer_after` shortens it.
const MAX_LIVENESS_CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// The version that the welcome announces.
const VERSION: &str = concat!("labshd ", env!("CARGO_PKG_VERSION"));
const _: () = assert!(VERSION.len() <= limits::MAX_VERSION);

/// Timeout for the last frames to be sent and the client to close the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit on signals of one command that wait for the spawner; further ones are dropped.
const MAX_QUEUED_SIGNALS: usize = 32;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error("the client closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(io::Error),
    #[error("the client broke the protocol: {0}")]
    Protocol(ProtocolError),
    #[error("the client stopped responding")]
    Unresponsive,
    #[error("its key was removed or changed")]
    KeyRemoved,
    #[error("labshd is stopping")]
    Stopping,
}

impl From<ReadError> for SessionEnd {
    fn from(error: ReadError) -> Self {
        match error {
            // How a killed client ends: in the middle of a frame, or without a TLS close_notify.
            ReadError::Protocol(ProtocolError::Truncated { .. }) => Self::Closed,
            ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            ReadError::Protocol(error) => Self::Protocol(error),
            ReadError::Io(error) => Self::Io(error),
        }
    }
}

struct Session {
    shared: Arc<Shared>,
    multiplexer: Arc<Multiplexer>,
    origin: Arc<Origin>,
    reader: FrameReader<ReadHalf<Carrier>>,
    /// The task that writes frames to the client.
    writer: JoinHandle<io::Result<()>>,
    /// The client's silence, for a TCP connection.
    liveness: Option<Watch>,
    jobs: HashMap<ChannelId, JobHandle>,
    /// The tasks of this session's commands; the server's tracker holds them too.
    job_tasks: TaskTracker,
    /// Cancelled at the end of the session.
    ended: CancellationToken,
}

/// The session's side of a job.
struct JobHandle {
    signals: mpsc::Sender<u8>,
    size: watch::Sender<Option<Resize>>,
    client_gone: CancellationToken,
}

/// Serves a client until its session ends, and returns why it ended.
pub(crate) async fn run(shared: Arc<Shared>, client: Client) -> SessionEnd {
    let Client { proof, entry, user, reader, peer, local, slot } = client;
    let channels = shared.config().max_channels;
    let (features, version) = (Features::SUPPORTED, Some(VERSION.into()));
    let welcome =
        proof.welcome(ServerParameters { instance: shared.instance, features, channels, version });
    let in_effect = |feature| proof.features().contains(feature) && features.contains(feature);
    let (terminals, explains) = (in_effect(Features::TERMINAL), in_effect(Features::EXPLAIN));
    let growth = ConnectionBudget::new(shared.growth.clone());
    let multiplexer = Arc::new(Multiplexer::new(Channels::new(Role::Server, channels, growth)));
    let liveness = reader.get_ref().socket().watch().ok().flatten();
    let (reader, mut writer) = reader.split();
    let writer = tokio::spawn({
        let multiplexer = multiplexer.clone();
        async move {
            let outcome = multiplexer.write_frames(Some(welcome), &mut writer).await;
            if outcome.is_err() {
                multiplexer.mark_lost();
            }
            outcome
        }
    });
    let (share, changes_user) = (slot.share.clone(), accounts::other_user(&entry).is_some());
    let mut session = Session {
        shared,
        multiplexer,
        origin: Arc::new(Origin {
            user,
            changes_user,
            share,
            entry,
            peer,
            local,
            terminals,
            explains,
        }),
        reader,
        writer,
        liveness,
        jobs: HashMap::new(),
        job_tasks: TaskTracker::new(),
        ended: CancellationToken::new(),
    };
    let end = session.serve().await;
    session.close(&end).await;
    drop(slot);
    end
}

impl Session {
    /// Handles frames and the events that end a session.
    async fn serve(&mut self) -> SessionEnd {
        let mut settings = self.shared.settings.subscribe();
        // The key may have been removed since the client proved that it holds it.
        settings.mark_changed();
        let dead_after = self.shared.config().dead_peer_after;
        let mut ticks = interval(MAX_LIVENESS_CHECK_INTERVAL.min(dead_after / 3));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = self.reader.next(limits::MAX_BODY) => {
                    let frame = match frame {
                        Ok(Some(frame)) => frame,
                        Ok(None) => return SessionEnd::Closed,
                        Err(error) => return error.into(),
                    };
                    if let Err(end) = self.receive(frame).await {
                        return end;
                    }
                    if !self.reader.has_next() {
                        self.multiplexer.wake();
                    }
                    // One read can return thousands of small frames, and tokio's cooperative budget
                    // counts reads only.
                    consume_budget().await;
                }
                outcome = &mut self.writer => return writer_end(outcome),
                changed = settings.changed() => {
                    if changed.is_ok() && !self.shared.has_key(&self.origin.entry) {
                        return SessionEnd::KeyRemoved;
                    }
                }
                _ = ticks.tick() => {
                    let silence = self.liveness.as_ref().and_then(Watch::silence);
                    if silence.is_some_and(|silence| silence >= dead_after) {
                        return SessionEnd::Unresponsive;
                    }
                }
                () = idle_while_draining(&self.shared, &self.job_tasks) => {
                    return SessionEnd::Stopping;
                }
            }
        }
    }

    async fn receive(&mut self, frame: Frame) -> Result<(), SessionEnd> {
        match self.multiplexer.receive(frame).map_err(SessionEnd::Protocol)? {
            // A goodbye ends the session, whether or not the client closes the connection.
            Event::Goodbye(_) => return Err(SessionEnd::Closed),
            Event::Opened(id, open) => self.open(id, open, Job::run).await?,
            Event::ExplainRequested(id, open) => self.open(id, open, explain::run).await?,
            Event::Closed(id) => {
                if let Some(job) = self.jobs.remove(&id) {
                    job.client_gone.cancel();
                }
            }
            Event::Signal(id, signal) => {
                if let Some(job) = self.jobs.get(&id) {
                    // The queue is full only during a flood, of which the command has enough.
                    let _ = job.signals.try_send(signal.number);
                }
            }
            Event::Resize(id, size) => {
                if let Some(job) = self.jobs.get(&id) {
                    job.size.send_replace(Some(size));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Starts a job, or an explanation, for `open` and tracks it until it ends.
    ///
    /// Meanwhile no other frame is read: a client can send commands faster than they are decoded.
    async fn open<Run>(
        &mut self,
        id: ChannelId,
        open: EncodedOpen,
        run: impl FnOnce(Job) -> Run,
    ) -> Result<(), SessionEnd>
    where
        Run: Future<Output = ()> + Send + 'static,
    {
        let (share, length) = (&self.origin.share, open.len());
        let long = match share.long_command(length).await {
            Ok(long) => long,
            Err(refuse) => {
                self.multiplexer.with(|channels| channels.refuse(id, &refuse));
                return Ok(());
            }
        };
        let open = self.shared.shares.prepare(share, length, move || open.decode()).await;
        let open = open.map_err(SessionEnd::Protocol)?;
        if open.terminal.is_some() {
            self.multiplexer.with(|channels| channels.use_terminal(id));
        }
        let (signals, receiver) = mpsc::channel(MAX_QUEUED_SIGNALS);
        let (size, sizes) = watch::channel(None);
        let client_gone = self.ended.child_token();
        let job = Job {
            shared: self.shared.clone(),
            multiplexer: self.multiplexer.clone(),
            origin: self.origin.clone(),
            id,
            open,
            length,
            long,
            requested: Instant::now(),
            signals: receiver,
            sizes,
            client_gone: client_gone.clone(),
        };
        self.jobs.insert(id, JobHandle { signals, size, client_gone });
        self.shared.memory.note_use();
        tokio::spawn(self.shared.jobs.track_future(self.job_tasks.track_future(run(job))));
        self.origin.share.pace().await;
        Ok(())
    }

    /// Announces the end to the commands and to the client, and closes the connection.
    async fn close(mut self, end: &SessionEnd) {
        self.ended.cancel();
        self.multiplexer.with(|channels| match end {
            SessionEnd::Protocol(error) => {
                let remedy = "use a client of this version";
                channels.refuse_connection(&Refuse::new(
                    RefuseCode::PROTOCOL,
                    error.to_string(),
                    remedy,
                ));
            }
            // Takes effect at once: unsent output is not for the removed key.
            SessionEnd::KeyRemoved => {
                let remedy = "ask that host's administrator";
                channels.refuse_connection(&Refuse::new(
                    RefuseCode::NOT_PERMITTED,
                    end.to_string(),
                    remedy,
                ));
            }
            SessionEnd::Stopping => channels.goodbye(&Goodbye::new(end.to_string())),
            SessionEnd::Closed | SessionEnd::Io(_) | SessionEnd::Unresponsive => {}
        });
        self.multiplexer.finish();
        let written = async {
            if !self.writer.is_finished() {
                let _ = (&mut self.writer).await;
            }
        };
        // Both at the same time: a client that sends before it reads would otherwise deadlock.
        let drained = framing::drain(self.reader.get_mut());
        let _ = timeout(CLOSE_TIMEOUT, async { tokio::join!(written, drained) }).await;
        self.writer.abort();
        self.multiplexer.mark_lost();
    }
}

fn writer_end(outcome: Result<io::Result<()>, JoinError>) -> SessionEnd {
    match outcome {
        Ok(Err(error)) => SessionEnd::Io(error),
        _ => SessionEnd::Closed,
    }
}

/// Waits until the server drains and no command of the session runs.
async fn idle_while_draining(shared: &Shared, job_tasks: &TaskTracker) {
    shared.draining.cancelled().await;
    job_tasks.close();
    job_tasks.wait().await;
}
