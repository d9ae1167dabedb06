//! The sessions that the agent has: opened once, kept while idle, lent to one client at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use labsh_proto::auth::Mode;
use labsh_proto::frame::{ChannelId, Kind};
use labsh_proto::limits;
use labsh_proto::message::{Body, Goodbye, Ping};
use labsh_transport::framing;
use nix::time::{ClockId, clock_gettime};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::relay::{self, Upstream};
use crate::agent::wire::{self, Answer, Kept, Route, Wish};
use crate::connect::{self, Address, ConnectOptions};
use crate::key_file;

/// Most sessions at a time; what is past it is not kept.
pub(super) const MOST: usize = 64;

/// How often an idle host is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A session that was silent for longer is not lent: the machine may have slept, or the host have vanished.
const FRESH: Duration = Duration::from_secs(15);

/// A host that was silent for longer has gone.
const GONE_AFTER: Duration = Duration::from_secs(45);

/// For a few bytes to be taken by a host or a client.
const WRITE: Duration = Duration::from_secs(5);

/// Beyond this a session has been used up: ids never come back.
const LAST_CHANNEL: ChannelId = ChannelId(1 << 31);

#[derive(Debug)]
enum State {
    Opening,
    Idle(oneshot::Sender<UnixStream>),
    Lent,
}

#[derive(Debug)]
struct Entry {
    wish: Wish,
    opened: Duration,
    used: Duration,
    heard: Arc<AtomicU64>,
    state: State,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    entries: Mutex<BTreeMap<u64, Entry>>,
    next: AtomicU64,
    /// Nothing is kept any more.
    pub stopping: CancellationToken,
}

/// Time since the machine was started, sleep included.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(super) fn list(&self) -> Vec<Kept> {
        let now = now();
        let show = |entry: &Entry| Kept {
            address: Address::Tcp { host: entry.wish.route.host.clone(), port: entry.wish.route.port }
                .to_string(),
            host_id: entry.wish.host_id.clone(),
            key: entry.wish.key.clone(),
            age: now.saturating_sub(entry.opened).as_secs(),
            idle: matches!(entry.state, State::Idle(_)).then(|| now.saturating_sub(entry.used).as_secs()),
        };
        self.lock().values().map(show).collect()
    }

    /// Hands the client to an idle session of this route, whose task answers it; gives it back where there is none.
    pub(super) fn lend(&self, route: &Route, client: UnixStream) -> Result<(), UnixStream> {
        let oldest = now().saturating_sub(FRESH).as_millis() as u64;
        let mut entries = self.lock();
        let fits = |entry: &&mut Entry| {
            entry.wish.route == *route
                && matches!(entry.state, State::Idle(_))
                && entry.heard.load(Ordering::Relaxed) >= oldest
        };
        if self.stopping.is_cancelled() {
            return Err(client);
        }
        // The one used last: those that are too many become old.
        let Some(entry) = entries.values_mut().filter(fits).max_by_key(|entry| entry.used) else {
            return Err(client);
        };
        match std::mem::replace(&mut entry.state, State::Lent) {
            State::Idle(task) => task.send(client),
            other => {
                entry.state = other;
                Err(client)
            }
        }
    }

    /// Opens a session and keeps it, unless there is an idle one or one on its way.
    pub(super) fn keep(self: &Arc<Self>, wish: Wish) {
        let mut entries = self.lock();
        let spare = |entry: &Entry| entry.wish.route == wish.route && !matches!(entry.state, State::Lent);
        if self.stopping.is_cancelled() || entries.len() >= MOST || entries.values().any(spare) {
            return;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let heard = Arc::new(AtomicU64::new(0));
        let (opened, used) = (now(), now());
        entries.insert(
            id,
            Entry { wish: wish.clone(), opened, used, heard: heard.clone(), state: State::Opening },
        );
        let sessions = self.clone();
        tokio::spawn(async move {
            sessions.live(id, &wish, &heard).await;
            sessions.lock().remove(&id);
        });
    }

    /// The life of one session.
    async fn live(&self, id: u64, wish: &Wish, heard: &AtomicU64) {
        let Ok(Some((mut upstream, channels))) = timeout(wish.connect_timeout, open(wish)).await else {
            return;
        };
        heard.store(now().as_millis() as u64, Ordering::Relaxed);
        loop {
            let (task, mut client) = oneshot::channel();
            if let Some(entry) = self.lock().get_mut(&id) {
                entry.state = State::Idle(task);
                entry.used = now();
            }
            let waited = tokio::select! {
                client = &mut client => client.ok(),
                () = self.idle(&mut upstream, wish.keep, heard) => {
                    // A client that was handed over at this very moment finds its connection closed, and goes its own way.
                    self.lock().remove(&id);
                    None
                }
            };
            let Some(mut client) = waited else { return say_goodbye(&mut upstream).await };
            let lent = Answer::Lent { highest: upstream.highest.0, channels };
            let answered = timeout(WRITE, wire::write(&mut client, &lent)).await;
            let answered = matches!(answered, Ok(Ok(())));
            if !answered || !relay::carry(&mut upstream, client).await || upstream.highest > LAST_CHANNEL {
                return;
            }
            heard.store(now().as_millis() as u64, Ordering::Relaxed);
        }
    }

    /// Resolves when a session that nobody uses is not to be kept, or cannot.
    async fn idle(&self, upstream: &mut Upstream, keep: Duration, heard: &AtomicU64) {
        let start = now();
        let mut ticks = interval_at(Instant::now() + ASK_EVERY.min(keep), ASK_EVERY.min(keep));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                frame = upstream.reader.next(limits::BODY) => match frame {
                    Ok(Some(frame)) if frame.channel != ChannelId::CONNECTION || frame.kind == Kind::Pong => {
                        heard.store(now().as_millis() as u64, Ordering::Relaxed);
                    }
                    _ => return,
                },
                _ = ticks.tick() => {
                    let silent = now().saturating_sub(Duration::from_millis(heard.load(Ordering::Relaxed)));
                    if now().saturating_sub(start) >= keep || silent >= GONE_AFTER {
                        return;
                    }
                    let ping = Ping { token: relay::OWN_PING }.frame(ChannelId::CONNECTION);
                    if !matches!(timeout(WRITE, framing::write(&mut upstream.writer, &[ping])).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
        }
    }
}

/// Connects as any client does; the key must still be the one that the client had.
async fn open(wish: &Wish) -> Option<(Upstream, u32)> {
    let (path, host_id) = (wish.key.clone(), wish.host_id()?);
    let key = tokio::task::spawn_blocking(move || key_file::load(&path)).await.ok()?.ok()?.for_host(&host_id);
    if key.name().0 != wish.route.name {
        return None;
    }
    let address = Address::Tcp { host: wish.route.host.clone(), port: wish.route.port };
    let mode = if wish.route.plain { Mode::Plain } else { Mode::Tls };
    let options = ConnectOptions { mode, timeout: wish.connect_timeout, ..ConnectOptions::new(address, key) };
    let mut answered = connect::answer(&options).await.ok()?;
    framing::write(answered.reader.get_mut(), &[answered.response]).await.ok()?;
    let channels = connect::welcome(&options, &mut answered.reader, answered.handshake).await.ok()?;
    let (reader, writer) = answered.reader.split();
    Some((Upstream { reader, writer, highest: ChannelId::CONNECTION }, channels))
}

async fn say_goodbye(upstream: &mut Upstream) {
    let last = async {
        framing::write(&mut upstream.writer, &[Goodbye::new("").frame(ChannelId::CONNECTION)]).await?;
        upstream.writer.shutdown().await
    };
    // A host that does not take it sees the connection closed.
    let _ = timeout(WRITE, last).await;
}
