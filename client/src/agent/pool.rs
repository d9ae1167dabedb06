//! The agent's sessions: each is opened once and lent to one client at a time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use labsh_proto::auth::{Mode, ServerParameters};
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
use crate::agent::wire::{self, AgentResponse, KeepRequest, PoolKey, PooledSession};
use crate::connect::{self, Address, ConnectOptions};
use crate::keys::key_file;
use crate::liveness::DEAD_PEER_TIMEOUT;

/// The most sessions at a time. A request to keep one more is ignored.
pub(super) const MAX_AGENT_SESSIONS: usize = 64;

/// How often the host of an idle session is pinged.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A session that was silent for longer is not lent: the machine may have been suspended, or the
/// host may have disappeared.
const MAX_SILENCE: Duration = Duration::from_secs(15);

/// An older session is not lent again. The host decides about a client when it authenticates it
/// (account, groups, source address, expiry), and has to decide again this often.
const MAX_SESSION_AGE: Duration = Duration::from_secs(3600);

/// How long a host or a client may take to read a few bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A session with a higher channel id is not lent again: ids are used once, and there are 2^32.
const MAX_REUSE_CHANNEL: ChannelId = ChannelId(1 << 31);

/// The sessions of the agent.
#[derive(Debug, Default)]
pub(super) struct Pool {
    table: Mutex<Table>,
    /// Cancelled once the agent is to lend and keep no more sessions.
    pub stopping: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    next_id: u64,
}

/// A session, with times since boot.
#[derive(Debug)]
struct Entry {
    request: KeepRequest,
    opened: Duration,
    last_used: Duration,
    /// When the host last sent something.
    last_received: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Opening,
    /// The session's task waits for a client at the other end.
    Idle(oneshot::Sender<UnixStream>),
    Lent,
}

/// Returns the time since boot, including time in which the machine was suspended.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    pub(super) fn list(&self) -> Vec<PooledSession> {
        let now = now();
        let list_entry = |Entry { request, opened, last_used, state, .. }: &Entry| PooledSession {
            address: request.address().to_string(),
            host_id: request.host_id.clone(),
            key: request.key.clone(),
            age: now.saturating_sub(*opened).as_secs(),
            idle: matches!(state, State::Idle(_)).then(|| now.saturating_sub(*last_used).as_secs()),
        };
        self.lock().entries.values().map(list_entry).collect()
    }

    /// Hands the client to the task of an idle session, which sends the response; returns the
    /// client if there is no such session.
    pub(super) fn lend(
        &self,
        pool_key: &PoolKey,
        keep: Duration,
        client: UnixStream,
    ) -> Result<(), UnixStream> {
        let oldest = now().saturating_sub(MAX_SILENCE);
        let is_usable = |entry: &&mut Entry| {
            entry.request.pool_key == *pool_key
                && matches!(entry.state, State::Idle(_))
                && entry.last_received >= oldest
        };
        if self.stopping.is_cancelled() {
            return Err(client);
        }
        // The session that was used last is lent first, so that superfluous ones expire.
        let mut table = self.lock();
        let entry =
            table.entries.values_mut().filter(is_usable).max_by_key(|entry| entry.last_used);
        let Some(entry) = entry else { return Err(client) };
        entry.request.keep = keep;
        match std::mem::replace(&mut entry.state, State::Lent) {
            State::Idle(task) => task.send(client),
            State::Opening | State::Lent => Err(client),
        }
    }

    /// Opens a session and keeps it, unless one for the same key is idle or being opened.
    pub(super) fn keep(self: &Arc<Self>, request: KeepRequest) {
        let mut table = self.lock();
        let is_spare = |entry: &Entry| {
            entry.request.pool_key == request.pool_key && !matches!(entry.state, State::Lent)
        };
        if self.stopping.is_cancelled()
            || table.entries.len() >= MAX_AGENT_SESSIONS
            || table.entries.values().any(is_spare)
            // In this network namespace, the address can be another machine.
            || super::network_namespace() != Some(request.pool_key.network)
        {
            return;
        }
        let entry = Entry {
            request: request.clone(),
            opened: now(),
            last_used: now(),
            last_received: Duration::ZERO,
            state: State::Opening,
        };
        let id = table.next_id;
        table.next_id += 1;
        table.entries.insert(id, entry);
        let guard = EntryGuard { pool: self.clone(), id };
        tokio::spawn(async move { guard.run_session(&request).await });
    }
}

/// The entry of a session, owned by the session's task. Dropping it removes the entry, however the
/// task ends.
#[derive(Debug)]
struct EntryGuard {
    pool: Arc<Pool>,
    id: u64,
}

impl Drop for EntryGuard {
    fn drop(&mut self) {
        self.remove();
    }
}

impl EntryGuard {
    fn remove(&self) {
        self.pool.lock().entries.remove(&self.id);
    }

    fn update<T>(&self, action: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.pool.lock().entries.get_mut(&self.id).map(action)
    }

    fn on_received(&self) {
        self.update(|entry| entry.last_received = now());
    }

    /// Opens a session, then lends it to one client after another until it expires or breaks.
    async fn run_session(&self, request: &KeepRequest) {
        let opened = timeout(request.connect_timeout, open(request)).await;
        let Ok(Some((mut upstream, welcome))) = opened else { return };
        let opened = now();
        self.on_received();
        while now().saturating_sub(opened) < MAX_SESSION_AGE
            && upstream.highest <= MAX_REUSE_CHANNEL
        {
            let (task, mut client) = oneshot::channel();
            let Some(keep) = self.update(|entry| {
                entry.state = State::Idle(task);
                entry.last_used = now();
                entry.request.keep
            }) else {
                return;
            };
            let client = tokio::select! {
                client = &mut client => client.ok(),
                () = self.idle(&mut upstream, keep, opened) => None,
            };
            // A client that is handed over just now finds its connection closed, and connects to
            // the host by itself.
            let Some(mut client) = client else { break };
            let lent = AgentResponse::Lent {
                highest: upstream.highest.0,
                channels: welcome.channels,
                features: welcome.features.0,
                version: welcome.version.clone(),
            };
            if !matches!(timeout(WRITE_TIMEOUT, wire::write(&mut client, &lent)).await, Ok(Ok(())))
            {
                // The client did not wait, and the host was sent nothing.
                continue;
            }
            let answer_timeout = request.connect_timeout.min(DEAD_PEER_TIMEOUT);
            if !relay::run(&mut upstream, client, answer_timeout).await {
                return;
            }
            self.on_received();
        }
        self.remove();
        say_goodbye(&mut upstream).await;
    }

    /// Probes an idle session; returns when it has expired, has broken, or is to be closed.
    async fn idle(&self, upstream: &mut Upstream, keep: Duration, opened: Duration) {
        let start = now();
        // An interval of 0 would panic.
        let period = PROBE_INTERVAL.min(keep).max(Duration::from_millis(10));
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                () = self.pool.stopping.cancelled() => ControlFlow::Break(()),
                frame = upstream.reader.next(limits::MAX_BODY) => match frame {
                    // The rest of a command whose client left early, or the answer to a probe.
                    Ok(Some(frame)) if frame.channel != ChannelId::CONNECTION
                        || frame.kind == Kind::Pong => {
                        self.on_received();
                        ControlFlow::Continue(())
                    }
                    _ => ControlFlow::Break(()),
                },
                _ = ticks.tick() => {
                    let since = |time: Duration| now().saturating_sub(time);
                    let received = self.update(|entry| entry.last_received).unwrap_or_default();
                    if since(start) >= keep || since(opened) >= MAX_SESSION_AGE
                        || since(received) >= DEAD_PEER_TIMEOUT {
                        ControlFlow::Break(())
                    } else {
                        probe(upstream).await
                    }
                }
            };
            if next.is_break() {
                return;
            }
        }
    }
}

/// Asks the host for a sign of life.
async fn probe(upstream: &mut Upstream) -> ControlFlow<()> {
    let ping = [relay::probe()];
    match timeout(WRITE_TIMEOUT, framing::write(&mut upstream.writer, &ping)).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// Connects as any client does; `None` if that fails, or the key file holds another key than the
/// client used.
async fn open(request: &KeepRequest) -> Option<(Upstream, ServerParameters)> {
    let (path, host_id) = (request.key.clone(), request.host_id()?);
    let key = tokio::task::spawn_blocking(move || key_file::load(&path))
        .await
        .ok()?
        .ok()?
        .for_host(&host_id);
    if key.name().0 != request.pool_key.name {
        return None;
    }
    let mode = if request.pool_key.plain { Mode::Plain } else { Mode::Tls };
    let options = ConnectOptions {
        mode,
        timeout: request.connect_timeout,
        ..ConnectOptions::new(request.address(), key)
    };
    let mut answered = connect::answer(&options).await.ok()?;
    framing::write(answered.reader.get_mut(), &[answered.response]).await.ok()?;
    let welcome =
        connect::welcome(&options, &mut answered.reader, answered.handshake).await.ok()?;
    let (reader, writer) = answered.reader.split();
    Some((Upstream { reader, writer, highest: ChannelId::CONNECTION }, welcome))
}

async fn say_goodbye(upstream: &mut Upstream) {
    let goodbye = async {
        framing::write(&mut upstream.writer, &[Goodbye::new("").frame(ChannelId::CONNECTION)])
            .await?;
        upstream.writer.shutdown().await
    };
    // A host that does not read it finds the connection closed.
    let _ = timeout(WRITE_TIMEOUT, goodbye).await;
}

impl KeepRequest {
    fn address(&self) -> Address {
        Address::Tcp { host: self.pool_key.host.clone(), port: self.pool_key.port }
    }
}
