//! What all connections of one server share: configuration, keys, the spawner, and who is there.

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
use crate::recent_users::RecentUsers;
use crate::spawner::Spawner;

/// What all stdin windows of the process may grow by, in bytes.
const PROCESS_GROWTH: u64 = 512 << 20;

/// Configuration and keys as they were last read without a mistake.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) config: Arc<Config>,
    pub(crate) keyring: Arc<Keyring>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: watch::Sender<Settings>,
    pub(crate) spawner: Spawner,
    pub(crate) instance: InstanceId,
    pub(crate) growth: Budget,
    pub(crate) admission: Admission,
    pub(crate) acceptor: Acceptor,
    /// Stands in for the key of a pair that is not enrolled.
    pub(crate) dummy: HostKey,
    pub(crate) recent_users: RecentUsers,
    pub(crate) sessions: AtomicUsize,
    /// Commands belong here from birth, not to the connection that asked for them.
    pub(crate) jobs: TaskTracker,
    pub(crate) connections: TaskTracker,
    /// No new commands; connections end as soon as they carry none.
    pub(crate) draining: CancellationToken,
    /// Commands end now.
    pub(crate) stopping: CancellationToken,
}

impl Shared {
    pub(crate) fn new(settings: Settings, spawner: Spawner) -> Result<Arc<Self>, TlsError> {
        let (settings, watched) = watch::channel(settings);
        let (admission, dummy) = {
            let current = watched.borrow();
            let dummy = HostKey::dummy(current.keyring.dummy().clone());
            (Admission::new(current.config.max_unauthenticated), dummy)
        };
        Ok(Arc::new(Self {
            acceptor: Acceptor::new(Keys(watched))?,
            settings,
            spawner,
            instance: InstanceId(random::bytes()),
            growth: Budget::new(PROCESS_GROWTH),
            admission,
            dummy,
            recent_users: RecentUsers::default(),
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

    /// Counts a session, unless there are as many as there may be.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<SessionPlace> {
        let limit = self.config().max_connections as usize;
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        let place = SessionPlace(self.clone());
        (before < limit).then_some(place)
    }
}

/// What is answered once labshd takes nothing new.
pub(crate) fn stopping() -> Refuse {
    Refuse::new(RefuseCode::STOPPING, "labshd is stopping", "try again in a moment")
}

/// One session's place; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct SessionPlace(Arc<Shared>);

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The TLS identities of the keys as they are now; for an unknown name, one that costs the same to
/// derive.
#[derive(Debug)]
struct Keys(watch::Receiver<Settings>);

impl Identities for Keys {
    fn tls_seed(&self, name: Name) -> Secret {
        let keyring = self.0.borrow().keyring.clone();
        match keyring.find(&name) {
            Some(entry) => entry.key.tls_seed(),
            None => dummy_tls_seed(keyring.dummy(), name),
        }
    }
}
