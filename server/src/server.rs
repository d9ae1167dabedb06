//! A running server: starts, reloads and stops the listeners and sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::time::timeout;

use crate::listen_address::ListenAddress;
use crate::listener::{self, Listener};
use crate::reload::Settings;
use crate::shared::Shared;
use crate::spawner::{Spawner, SpawnerProcess};

/// A listening server. Dropping it does not stop it; [`Server::stop`] does.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

/// Does what is not part of any connection, until labshd stops.
async fn keep_house(shared: Arc<Shared>) {
    let working =
        async { tokio::join!(shared.memory.return_unused(), shared.connection_log.log_counts()) };
    tokio::select! {
        _ = working => {}
        () = shared.stopping.cancelled() => shared.connection_log.log_counts_now(),
    }
}

impl Server {
    /// Binds all configured addresses, unless the service manager passes sockets, and starts to
    /// accept connections.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound, none is configured, or TLS or the spawner cannot be set up.
    /// No connection is accepted then.
    pub(crate) async fn start(settings: Settings, spawner: SpawnerProcess) -> anyhow::Result<Self> {
        let config = settings.config.clone();
        let mut listeners =
            listener::from_service_manager(&config).context("sockets from the service manager")?;
        if listeners.is_empty() {
            for address in &config.listen {
                listeners.extend(listener::bind(address, &config).await?);
            }
        }
        anyhow::ensure!(
            !listeners.is_empty(),
            "nothing to listen on: `listen` is empty and the service manager passes no socket"
        );
        let spawner = Spawner::attach(spawner).context("cannot connect to the spawner")?;
        let shared = Shared::new(settings, spawner).context("cannot set up TLS")?;
        let addresses = listeners.iter().filter_map(Listener::local_address).collect();
        for listener in listeners {
            tracing::info!(address = %listener, "listening");
            // Tracked like a connection, so that `stop` waits until the file of a unix socket is
            // removed.
            tokio::spawn(shared.connections.track_future(listener.serve(shared.clone())));
        }
        tokio::spawn(keep_house(shared.clone()));
        Ok(Self { shared, addresses })
    }

    /// Returns the bound TCP addresses, in the order of the configuration.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Replaces configuration and keys. Sessions whose key was removed or changed end. The bound
    /// addresses do not change.
    pub(crate) fn reload(&self, settings: Settings) {
        self.shared.admission.set_limit(settings.config.max_unauthenticated);
        self.shared.settings.send_replace(settings);
    }

    /// Returns `listen` of the current configuration, of which a change takes a restart.
    pub(crate) fn configured_addresses(&self) -> Vec<ListenAddress> {
        self.shared.config().listen.clone()
    }

    /// Waits until the spawner is lost, after which no command can run.
    pub(crate) async fn spawner_lost(&self) {
        self.shared.spawner.lost().await;
    }

    /// Accepts no new command, waits up to `drain_timeout` for running ones, and then ends them.
    /// Returns once all commands and connections have ended. When `hurry` resolves, the wait ends
    /// early.
    pub(crate) async fn stop(self, hurry: impl Future<Output = ()>) {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.jobs.close();
        shared.connections.close();
        let drain_timeout = shared.config().drain_timeout;
        tokio::select! {
            drained = timeout(drain_timeout, shared.jobs.wait()) => {
                if drained.is_err() {
                    tracing::warn!(commands = shared.jobs.len(), "commands still run: ending them");
                }
            }
            () = hurry => {
                tracing::warn!(commands = shared.jobs.len(), "asked again: ending commands");
            }
        }
        shared.stopping.cancel();
        shared.jobs.wait().await;
        // Each session has a timeout of its own for its goodbye.
        shared.connections.wait().await;
    }
}
