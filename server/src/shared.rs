//! The state that all connections of one server share: configuration, keys, spawner, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use labsh_proto::flow::Budget;
use labsh_proto::key::{HostKey, Secret, dummy_tls_seed};
use labsh_proto::message::{InstanceId, Name, Refuse, RefuseCode};
use labsh_transport::random;
use labsh_transport::tls::{Acceptor, Identities, TlsError};
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::config::Config;
use crate::connection_log::ConnectionLog;
use crate::entry::Entry;
use crate::key_share::{KeyShare, KeyShares};
use crate::keyring::Keyring;
use crate::memory::Memory;
use crate::reload::Settings;
use crate::spawner::Spawner;
use crate::user_cache::UserCache;

/// Limit on the growth of all stdin windows of the process together, in bytes.
const MAX_WINDOW_GROWTH: u64 = 512 << 20;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: watch::Sender<Settings>,
    pub(crate) spawner: Spawner,
    pub(crate) instance: InstanceId,
    pub(crate) growth: Budget,
    pub(crate) admission: Admission,
    pub(crate) acceptor: Acceptor,
    /// The key that responses for unknown names are verified against.
    pub(crate) decoy_key: HostKey,
    pub(crate) user_cache: UserCache,
    pub(crate) shares: KeyShares,
    pub(crate) memory: Memory,
    pub(crate) connection_log: ConnectionLog,
    pub(crate) sessions: AtomicUsize,
    /// The tasks of all commands, which may outlive their connection.
    pub(crate) jobs: TaskTracker,
    pub(crate) connections: TaskTracker,
    /// Cancelled when labshd accepts no new command. A session ends once it has no command.
    pub(crate) draining: CancellationToken,
    /// Cancelled when labshd ends the commands that still run.
    pub(crate) stopping: CancellationToken,
}

impl Shared {
    pub(crate) fn new(settings: Settings, spawner: Spawner) -> Result<Arc<Self>, TlsError> {
        let (settings, watched) = watch::channel(settings);
        let (admission, decoy_key) = {
            let current = watched.borrow();
            let decoy_key = HostKey::dummy(current.keyring.decoy_secret().clone());
            (Admission::new(current.config.max_unauthenticated), decoy_key)
        };
        Ok(Arc::new(Self {
            acceptor: Acceptor::new(TlsIdentities(watched))?,
            settings,
            spawner,
            instance: InstanceId(random::bytes()),
            growth: Budget::new(MAX_WINDOW_GROWTH),
            admission,
            decoy_key,
            user_cache: UserCache::default(),
            shares: KeyShares::default(),
            memory: Memory::default(),
            connection_log: ConnectionLog::default(),
            sessions: AtomicUsize::new(0),
            jobs: TaskTracker::new(),
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
        }))
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.settings.borrow().config.clone()
    }

    pub(crate) fn keyring(&self) -> Arc<Keyring> {
        self.settings.borrow().keyring.clone()
    }

    /// Returns whether the entry is still in effect.
    pub(crate) fn has_key(&self, entry: &Entry) -> bool {
        self.keyring().find(&entry.key.name()).is_some_and(|now| *now == *entry)
    }

    /// Reserves a slot for a session of a key. The error is its refusal if the limit on all
    /// sessions, or on those of the key, is reached.
    pub(crate) fn reserve_session(self: &Arc<Self>, key: Name) -> Result<SessionSlot, Refuse> {
        let config = self.config();
        let (limits, share) = (SessionLimits::new(&config, descriptors()), self.shares.of(key));
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        let before_of_key = share.sessions.fetch_add(1, Ordering::Relaxed);
        let slot = SessionSlot { shared: self.clone(), share };
        if before >= limits.all {
            return Err(full(limits.all < config.max_connections as usize));
        }
        if before_of_key >= limits.per_key {
            let reason = format!(
                "this key has as many connections to this host as its limit: {}",
                limits.per_key
            );
            let remedy = "close some of them (`labsh agent stop` closes unused ones), or ask the \
                          administrator to raise max_connections_per_key in labshd.toml";
            return Err(Refuse::new(RefuseCode::BUSY, reason, remedy));
        }
        Ok(slot)
    }
}

/// Returns the refusal of a connection for which labshd has no slot, or no descriptor.
pub(crate) fn full(descriptors: bool) -> Refuse {
    let (reason, remedy) = match descriptors {
        true => (
            "labshd has no descriptors left for another connection",
            "try again later, or start labshd with a higher limit on open files (ulimit -n)",
        ),
        false => (
            "labshd has reached its limit on connections",
            "try again later, or raise max_connections in labshd.toml",
        ),
    };
    Refuse::new(RefuseCode::BUSY, reason, remedy)
}

/// Returns the number of descriptors that this process may have.
fn descriptors() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(soft).unwrap_or(usize::MAX)
}

/// The limits on sessions in effect.
#[derive(Debug, PartialEq, Eq)]
struct SessionLimits {
    all: usize,
    per_key: usize,
}

impl SessionLimits {
    /// Applies the configuration, within a quarter of the descriptors, as each session has two and
    /// unauthenticated connections use at most half. One key never gets all sessions, where there
    /// are several: an administrator with another key can still connect.
    fn new(config: &Config, descriptors: usize) -> Self {
        let all = (config.max_connections as usize).min((descriptors / 4).max(1));
        let per_key = (config.max_connections_per_key as usize).min(all - all / 8);
        Self { all, per_key }
    }
}

/// Returns the refusal for requests that arrive while labshd stops.
pub(crate) fn stopping() -> Refuse {
    Refuse::new(RefuseCode::STOPPING, "labshd is stopping", "try again shortly")
}

/// A session's share of the limits on sessions, until it is dropped.
#[derive(Debug)]
pub(crate) struct SessionSlot {
    shared: Arc<Shared>,
    pub(crate) share: Arc<KeyShare>,
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
        self.share.sessions.fetch_sub(1, Ordering::Relaxed);
        self.shared.memory.note_use();
    }
}

/// The TLS identities of the current keys. Unknown names get one that takes as long to derive.
#[derive(Debug)]
struct TlsIdentities(watch::Receiver<Settings>);

impl Identities for TlsIdentities {
    fn tls_seed(&self, name: Name) -> Secret {
        let keyring = self.0.borrow().keyring.clone();
        match keyring.find(&name) {
            Some(entry) => entry.key.tls_seed(),
            None => dummy_tls_seed(keyring.decoy_secret(), name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: u32, per_key: u32, descriptors: usize) -> (usize, usize) {
        let config =
            Config { max_connections: all, max_connections_per_key: per_key, ..Config::default() };
        let SessionLimits { all, per_key } = SessionLimits::new(&config, descriptors);
        (all, per_key)
    }

    #[test]
    fn one_key_leaves_sessions_to_others() {
        assert_eq!(limits(10_000, 1_000, 1 << 20), (10_000, 1_000));
        assert_eq!(limits(100, 1_000, 1 << 20), (100, 88));
        assert_eq!(limits(2, 1_000, 1 << 20), (2, 2));
        assert_eq!(limits(1, 1_000, 1 << 20), (1, 1));
    }

    #[test]
    fn sessions_leave_descriptors_to_commands() {
        assert_eq!(limits(10_000, 1_000, 1_024), (256, 224));
        assert_eq!(limits(10_000, 1_000, 3), (1, 1));
    }
}
