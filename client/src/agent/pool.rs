//! The sessions that the agent has: opened once, kept while idle, lent to one client at a time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use labsh_proto::auth::{Mode, ServerSays};
use labsh_proto::frame::{ChannelId, Kind};
use labsh_proto::limits;
use labsh_proto::message::{Body, Goodbye};
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
use crate::keys::key_file;
use crate::liveness::DEAD_PEER_AFTER;

/// Most sessions at a time; what is past it is not kept.
pub(super) const MOST: usize = 64;

/// How often an idle host is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// A session that was silent for longer is not lent: the machine may have slept, or the host have
/// vanished.
const FRESH: Duration = Duration::from_secs(15);

/// Old sessions are not lent again: what a host decides when it lets somebody in (the account and
/// its groups, where from, until when) is decided anew so often.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);

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
    heard: Duration,
    state: State,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: Mutex<Table>,
    /// Nothing is kept any more.
    pub stopping: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    next: u64,
}

/// A place in the table, given back however the task that holds it ends.
#[derive(Debug)]
struct Place {
    sessions: Arc<Sessions>,
    id: u64,
}

/// Time since the machine was started, sleep included.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    pub(super) fn list(&self) -> Vec<Kept> {
        let now = now();
        let show = |entry: &Entry| Kept {
            address: Address::Tcp {
                host: entry.wish.route.host.clone(),
                port: entry.wish.route.port,
            }
            .to_string(),
            host_id: entry.wish.host_id.clone(),
            key: entry.wish.key.clone(),
            age: now.saturating_sub(entry.opened).as_secs(),
            idle: matches!(entry.state, State::Idle(_))
                .then(|| now.saturating_sub(entry.used).as_secs()),
        };
        self.lock().entries.values().map(show).collect()
    }

    /// Hands the client to an idle session of this route, whose task answers it; gives it back
    /// where there is none.
    pub(super) fn lend(
        &self,
        route: &Route,
        keep: Duration,
        client: UnixStream,
    ) -> Result<(), UnixStream> {
        let oldest = now().saturating_sub(FRESH);
        let fits = |entry: &&mut Entry| {
            entry.wish.route == *route
                && matches!(entry.state, State::Idle(_))
                && entry.heard >= oldest
        };
        if self.stopping.is_cancelled() {
            return Err(client);
        }
        // The one used last: those that are too many become old.
        let mut table = self.lock();
        let Some(entry) = table.entries.values_mut().filter(fits).max_by_key(|entry| entry.used)
        else {
            return Err(client);
        };
        entry.wish.keep = keep;
        match std::mem::replace(&mut entry.state, State::Lent) {
            State::Idle(task) => task.send(client),
            State::Opening | State::Lent => Err(client),
        }
    }

    /// Opens a session and keeps it, unless there is an idle one or one on its way.
    pub(super) fn keep(self: &Arc<Self>, wish: Wish) {
        let mut table = self.lock();
        let spare =
            |entry: &Entry| entry.wish.route == wish.route && !matches!(entry.state, State::Lent);
        if self.stopping.is_cancelled()
            || table.entries.len() >= MOST
            || table.entries.values().any(spare)
            // From here it would be another machine.
            || super::own_network() != Some(wish.route.network)
        {
            return;
        }
        let (opened, used, heard) = (now(), now(), Duration::ZERO);
        let id = table.next;
        table.next += 1;
        table
            .entries
            .insert(id, Entry { wish: wish.clone(), opened, used, heard, state: State::Opening });
        let place = Place { sessions: self.clone(), id };
        tokio::spawn(async move { place.live(&wish).await });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Place {
    fn leave(&self) {
        self.sessions.lock().entries.remove(&self.id);
    }

    fn with<T>(&self, action: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.sessions.lock().entries.get_mut(&self.id).map(action)
    }

    fn heard(&self) {
        self.with(|entry| entry.heard = now());
    }

    /// The life of one session.
    async fn live(&self, wish: &Wish) {
        let Ok(Some((mut upstream, said))) = timeout(wish.connect_timeout, open(wish)).await else {
            return;
        };
        let born = now();
        self.heard();
        while now().saturating_sub(born) < LONGEST_LIFE && upstream.highest <= LAST_CHANNEL {
            let (task, mut client) = oneshot::channel();
            let Some(keep) = self.with(|entry| {
                entry.state = State::Idle(task);
                entry.used = now();
                entry.wish.keep
            }) else {
                return;
            };
            let lent = tokio::select! {
                client = &mut client => client.ok(),
                () = self.idle(&mut upstream, keep, born) => None,
            };
            // A client that is handed over at this very moment finds its connection closed, and
            // goes its own way.
            let Some(mut client) = lent else { break };
            let lent = Answer::Lent {
                highest: upstream.highest.0,
                channels: said.channels,
                features: said.features.0,
                version: said.version.clone(),
            };
            if !matches!(timeout(WRITE, wire::write(&mut client, &lent)).await, Ok(Ok(()))) {
                // It had not waited, and the host has heard nothing of it.
                continue;
            }
            if !relay::carry(&mut upstream, client, wish.connect_timeout.min(DEAD_PEER_AFTER)).await
            {
                return;
            }
            self.heard();
        }
        self.leave();
        say_goodbye(&mut upstream).await;
    }

    /// Resolves when a session that nobody uses is not to be kept, or cannot.
    async fn idle(&self, upstream: &mut Upstream, keep: Duration, born: Duration) {
        let start = now();
        // Never 0, which would be no interval.
        let every = ASK_EVERY.min(keep).max(Duration::from_millis(10));
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                () = self.sessions.stopping.cancelled() => ControlFlow::Break(()),
                frame = upstream.reader.next(limits::MAX_BODY) => match frame {
                    // What is left of a command whose client went early, or an answer to us.
                    Ok(Some(frame)) if frame.channel != ChannelId::CONNECTION
                        || frame.kind == Kind::Pong => {
                        self.heard();
                        ControlFlow::Continue(())
                    }
                    _ => ControlFlow::Break(()),
                },
                _ = ticks.tick() => {
                    let since = |moment: Duration| now().saturating_sub(moment);
                    let silent = since(self.with(|entry| entry.heard).unwrap_or_default());
                    if since(start) >= keep || since(born) >= LONGEST_LIFE
                        || silent >= DEAD_PEER_AFTER {
                        ControlFlow::Break(())
                    } else {
                        ask(upstream).await
                    }
                }
            };
            if next.is_break() {
                return;
            }
        }
    }
}

/// Asks the host whether it is there.
async fn ask(upstream: &mut Upstream) -> ControlFlow<()> {
    match timeout(WRITE, framing::write(&mut upstream.writer, &[relay::own_ping()])).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// Connects as any client does; the key must still be the one that the client had.
async fn open(wish: &Wish) -> Option<(Upstream, ServerSays)> {
    let (path, host_id) = (wish.key.clone(), wish.host_id()?);
    let key = tokio::task::spawn_blocking(move || key_file::load(&path))
        .await
        .ok()?
        .ok()?
        .for_host(&host_id);
    if key.name().0 != wish.route.name {
        return None;
    }
    let address = Address::Tcp { host: wish.route.host.clone(), port: wish.route.port };
    let mode = if wish.route.plain { Mode::Plain } else { Mode::Tls };
    let options =
        ConnectOptions { mode, timeout: wish.connect_timeout, ..ConnectOptions::new(address, key) };
    let mut answered = connect::answer(&options).await.ok()?;
    framing::write(answered.reader.get_mut(), &[answered.response]).await.ok()?;
    let said = connect::welcome(&options, &mut answered.reader, answered.handshake).await.ok()?;
    let (reader, writer) = answered.reader.split();
    Some((Upstream { reader, writer, highest: ChannelId::CONNECTION }, said))
}

async fn say_goodbye(upstream: &mut Upstream) {
    let last = async {
        framing::write(&mut upstream.writer, &[Goodbye::new("").frame(ChannelId::CONNECTION)])
            .await?;
        upstream.writer.shutdown().await
    };
    // A host that does not take it sees the connection closed.
    let _ = timeout(WRITE, last).await;
}
