//! A running server: what a daemon, a test or `labsh try` starts, reloads and stops.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::time::timeout;

use crate::config::Config;
use crate::keyring::Keyring;
use crate::listen_address::ListenAddress;
use crate::listener::{self, Listener};
use crate::shared::{Settings, Shared};
use crate::spawner::{Spawner, SpawnerProcess};

/// A server that listens. Dropping it does not stop it; call [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Binds all addresses of the configuration, and takes those that the service manager hands
    /// over, before any connection is served: where one cannot be bound, nothing is started.
    pub async fn start(
        config: Config,
        keyring: Keyring,
        spawner: SpawnerProcess,
    ) -> anyhow::Result<Self> {
        let mut listeners =
            listener::from_service_manager(&config).context("sockets from the service manager")?;
        if listeners.is_empty() {
            for address in &config.listen {
                listeners.extend(listener::bind(address, &config).await?);
            }
        }
        anyhow::ensure!(
            !listeners.is_empty(),
            "nowhere to listen: `listen` is empty and the service manager hands over no socket"
        );
        let spawner = Spawner::attach(spawner).context("cannot talk to the spawner")?;
        let settings = Settings { config: Arc::new(config), keyring: Arc::new(keyring) };
        let shared = Shared::new(settings, spawner).context("cannot set TLS up")?;
        let addresses = listeners.iter().filter_map(Listener::local_address).collect();
        for listener in listeners {
            tracing::info!(address = %listener, "listening");
            // Waited for at the end like a connection: a unix socket's file goes with its listener.
            tokio::spawn(shared.connections.track_future(listener.serve(shared.clone())));
        }
        Ok(Self { shared, addresses })
    }

    /// The TCP addresses that are bound, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes new settings over. Sessions whose key was removed or changed end; addresses stay as
    /// they are bound.
    pub fn reload(&self, config: Config, keyring: Keyring) {
        self.shared.admission.set_limit(config.max_unauthenticated);
        self.shared
            .settings
            .send_replace(Settings { config: Arc::new(config), keyring: Arc::new(keyring) });
    }

    /// What is listened on according to the settings in force; a change of it takes a restart.
    pub fn configured_addresses(&self) -> Vec<ListenAddress> {
        self.shared.config().listen.clone()
    }

    /// Resolves when nothing can be run any more.
    pub async fn spawner_lost(&self) {
        self.shared.spawner.lost().await;
    }

    /// Takes nothing new, lets running commands end within `drain_timeout`, then ends them. Returns
    /// when all is over. Cancelling `hurry` by resolving it cuts the wait short.
    pub async fn stop(self, hurry: impl Future<Output = ()>) {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.jobs.close();
        shared.connections.close();
        let patience = shared.config().drain_timeout;
        tokio::select! {
            done = timeout(patience, shared.jobs.wait()) => {
                if done.is_err() {
                    tracing::warn!(commands = shared.jobs.len(), "commands still run: ending them");
                }
            }
            () = hurry => tracing::warn!(commands = shared.jobs.len(), "asked again: ending \
                commands"),
        }
        shared.stopping.cancel();
        shared.jobs.wait().await;
        // Sessions say goodbye under deadlines of their own.
        shared.connections.wait().await;
    }
}
