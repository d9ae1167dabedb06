//! One authenticated connection: joins its frames to the jobs they ask for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::auth::ServerSays;
use labsh_proto::channel::{Channels, Event, Role};
use labsh_proto::flow::Growth;
use labsh_proto::frame::ChannelId;
use labsh_proto::limits;
use labsh_proto::message::{Features, Goodbye, Open, Refuse, RefuseCode, Resize};
use labsh_transport::framing::{self, ReadError};
use labsh_transport::multiplexer::Multiplexer;
use tokio::sync::{mpsc, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authenticate::Client;
use crate::explain;
use crate::job::Job;
use crate::request::Origin;
use crate::shared::Shared;

/// How often the kernel is asked whether the peer still acknowledges; more often where it counts as
/// gone sooner.
const WATCH_EVERY: Duration = Duration::from_secs(15);

/// What clients are told about who answers.
const VERSION: &str = concat!("labshd ", env!("CARGO_PKG_VERSION"));
const _: () = assert!(VERSION.len() <= limits::MAX_VERSION);

/// For the last frames to leave and the peer to close.
const LINGER: Duration = Duration::from_secs(5);

/// Signals of one command that may wait for the spawner; more than these are dropped.
const SIGNALS: usize = 32;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client closed it")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(std::io::Error),
    #[error("the client broke the protocol: {0}")]
    Protocol(labsh_proto::error::ProtocolError),
    #[error("the client vanished")]
    Vanished,
    #[error("its key was removed or changed")]
    KeyRemoved,
    #[error("labshd is stopping")]
    Stopping,
}

struct Session {
    shared: Arc<Shared>,
    multiplexer: Arc<Multiplexer>,
    origin: Arc<Origin>,
    jobs: HashMap<ChannelId, Handle>,
    /// Those of this session; the server's own table holds them too.
    running: TaskTracker,
    gone: CancellationToken,
}

/// What a session keeps of a job.
struct Handle {
    signals: mpsc::Sender<u8>,
    size: watch::Sender<Option<Resize>>,
    client_gone: CancellationToken,
}

/// Serves a client until either end has had enough.
pub(crate) async fn run(shared: Arc<Shared>, client: Client) -> End {
    let Client { proof, entry, user, changes_user, reader, peer, local, place: _place } = client;
    let channels = shared.config().max_channels;
    let (features, version) = (Features::SUPPORTED, Some(VERSION.into()));
    let welcome =
        proof.welcome(ServerSays { instance: shared.instance, features, channels, version });
    let in_effect = |feature| proof.features().contains(feature) && features.contains(feature);
    let (terminals, explains) = (in_effect(Features::TERMINAL), in_effect(Features::EXPLAIN));
    let growth = Growth::new(shared.growth.clone());
    let multiplexer = Arc::new(Multiplexer::new(Channels::new(Role::Server, channels, growth)));
    let watch = reader.get_ref().socket().watch().ok().flatten();
    let mut settings = shared.settings.subscribe();
    // The key may have been removed between its proof and now.
    settings.mark_changed();
    let dead_after = shared.config().dead_peer_after;
    let (mut reader, mut writer) = reader.split();

    let mut writing = tokio::spawn({
        let multiplexer = multiplexer.clone();
        async move {
            let outcome = multiplexer.write_frames(Some(welcome), &mut writer).await;
            if outcome.is_err() {
                multiplexer.lose();
            }
            outcome
        }
    });
    let mut session = Session {
        shared: shared.clone(),
        multiplexer: multiplexer.clone(),
        origin: Arc::new(Origin { user, changes_user, entry, peer, local, terminals, explains }),
        jobs: HashMap::new(),
        running: TaskTracker::new(),
        gone: CancellationToken::new(),
    };
    let mut ticks = interval(WATCH_EVERY.min(dead_after / 3));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let end = loop {
        tokio::select! {
            frame = reader.next(limits::MAX_BODY) => match frame {
                Ok(Some(frame)) => {
                    match multiplexer.receive(frame) {
                        // Whether it closes its end or not.
                        Ok(Event::Goodbye(_)) => break End::Closed,
                        Ok(event) => session.handle(event),
                        Err(error) => break End::Protocol(error),
                    }
                    if !reader.has_next() {
                        multiplexer.wake();
                    }
                    // A read brings thousands of small frames, and the runtime counts reads.
                    consume_budget().await;
                }
                Ok(None) => break End::Closed,
                // TLS calls an end without its own goodbye an error; it is how a killed client
                // ends.
                Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof =>
                    break End::Closed,
                Err(ReadError::Io(error)) => break End::Io(error),
                Err(ReadError::Protocol(labsh_proto::error::ProtocolError::Truncated { .. })) =>
                    break End::Closed,
                Err(ReadError::Protocol(error)) => break End::Protocol(error),
            },
            outcome = &mut writing => match outcome {
                Ok(Err(error)) => break End::Io(error),
                _ => break End::Closed,
            },
            changed = settings.changed() => {
                if changed.is_ok() && !session.key_still_holds() {
                    break End::KeyRemoved;
                }
            }
            _ = ticks.tick() => {
                if watch.as_ref().and_then(|watch| watch.silence())
                    .is_some_and(|silence| silence >= dead_after) {
                    break End::Vanished;
                }
            }
            () = session.idle_while_draining() => break End::Stopping,
        }
    };

    session.gone.cancel();
    multiplexer.with(|channels| match &end {
        End::Protocol(error) => {
            let remedy = "use a client of this version";
            channels.refuse_connection(&Refuse::new(
                RefuseCode::PROTOCOL,
                error.to_string(),
                remedy,
            ));
        }
        // At once: what its commands still have to say is not for that key any more.
        End::KeyRemoved => {
            let remedy = "ask that host's administrator";
            channels.refuse_connection(&Refuse::new(
                RefuseCode::NOT_PERMITTED,
                end.to_string(),
                remedy,
            ));
        }
        End::Stopping => channels.goodbye(&Goodbye::new(end.to_string())),
        End::Closed | End::Io(_) | End::Vanished => {}
    });
    multiplexer.finish();
    // Both at once: a peer that sends before it reads would otherwise wait for us as we wait for
    // it.
    let last_words = async {
        if !writing.is_finished() {
            let _ = (&mut writing).await;
        }
    };
    let _ =
        timeout(LINGER, async { tokio::join!(last_words, framing::drain(reader.get_mut())) }).await;
    writing.abort();
    multiplexer.lose();
    end
}

impl Session {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened(id, open) => self.open(id, open, Job::run),
            Event::Asked(id, open) => self.open(id, open, explain::run),
            Event::Closed(id) => {
                if let Some(job) = self.jobs.remove(&id) {
                    job.client_gone.cancel();
                }
            }
            Event::Signal(id, signal) => {
                if let Some(job) = self.jobs.get(&id) {
                    // A flood of signals tells the command nothing that the first few did not.
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
    }

    /// Does with it what is wanted of it, until that is done or the client has gone.
    fn open<Done>(&mut self, id: ChannelId, open: Open, wanted: impl FnOnce(Job) -> Done)
    where
        Done: Future<Output = ()> + Send + 'static,
    {
        let (signals, receiver) = mpsc::channel(SIGNALS);
        let (size, sizes) = watch::channel(None);
        let client_gone = self.gone.child_token();
        let job = Job {
            shared: self.shared.clone(),
            multiplexer: self.multiplexer.clone(),
            origin: self.origin.clone(),
            id,
            open,
            signals: receiver,
            sizes,
            client_gone: client_gone.clone(),
        };
        self.jobs.insert(id, Handle { signals, size, client_gone });
        tokio::spawn(self.shared.jobs.track_future(self.running.track_future(wanted(job))));
    }

    fn key_still_holds(&self) -> bool {
        let entry = &self.origin.entry;
        self.shared.keyring().find(&entry.key.name()).is_some_and(|now| now == *entry)
    }

    /// Resolves when the server drains and nothing runs here any more.
    async fn idle_while_draining(&self) {
        self.shared.draining.cancelled().await;
        self.running.close();
        self.running.wait().await;
    }
}
