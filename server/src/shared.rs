//! The state that all connections of one server share: configuration, keys, spawner, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use labsh_proto::flow::Budget;
use labsh_proto::key::{HostKey, Secret, dummy_tls_seed};
use labsh_proto::message::{InstanceId, Name, Refuse, RefuseCode};
use labsh_transport::random;
use labsh_transport::tls::{Acceptor, Identities, TlsError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::config::Config;
use crate::keyring::Keyring;
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

    /// Reserves a slot for a session; `None` if `max_connections` is reached.
    pub(crate) fn reserve_session(self: &Arc<Self>) -> Option<SessionSlot> {
        let limit = self.config().max_connections as usize;
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        let slot = SessionSlot(self.clone());
        (before < limit).then_some(slot)
    }
}

/// Returns the refusal for requests that arrive while labshd stops.
pub(crate) fn stopping() -> Refuse {
    Refuse::new(RefuseCode::STOPPING, "labshd is stopping", "try again shortly")
}

/// A session's share of `max_connections`, until it is dropped.
#[derive(Debug)]
pub(crate) struct SessionSlot(Arc<Shared>);

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
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
