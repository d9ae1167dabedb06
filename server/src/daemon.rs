//! labshd as a process: start-up, signals, the service manager's notifications, and the end.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::logs;
use crate::reload::{Settings, SettingsSource};
use crate::server::Server;
use crate::spawner::SpawnerProcess;

/// Serves until SIGTERM or SIGINT, which let running commands end first; a second one ends them at
/// once. SIGHUP reloads the settings.
///
/// # Errors
///
/// When configuration or keys contain an error, an address cannot be bound, or the spawner is lost.
pub fn run(source: SettingsSource, spawner: SpawnerProcess) -> anyhow::Result<()> {
    let settings = source.load()?;
    raise_descriptor_limit();
    let runtime = labsh_transport::runtime::multi_thread(None)?;
    let outcome = runtime.block_on(serve(&source, settings, spawner));
    // Does not wait for look-ups in the user database that still block.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    source: &SettingsSource,
    settings: Settings,
    spawner: SpawnerProcess,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let keys = settings.keyring.entries().len();
    let server = tokio::select! {
        server = Server::start(settings, spawner) => server?,
        // Resolving the host names in `listen` may take long.
        () = signals.stop.recv() => return Ok(()),
    };
    if keys == 0 {
        tracing::warn!("no key is enrolled, so no client can connect; see `labshd key add`");
    }
    notify(&[NotifyState::Ready]);
    tracing::info!(keys, pid = std::process::id(), "labshd is ready");
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => reload(&server, source),
            () = server.spawner_lost() => {
                anyhow::bail!("the spawner has exited: no command can run");
            }
            () = signals.stop.recv() => break,
        }
    }
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping: running commands may end first");
    server.stop(signals.stop.recv()).await;
    tracing::info!("stopped");
    Ok(())
}

/// The signals that labshd handles.
struct Signals {
    hangup: Signal,
    stop: StopSignals,
}

/// The signals that stop labshd.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let stop = StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        Ok(Self { hangup: signal(SignalKind::hangup())?, stop })
    }
}

impl StopSignals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reloads the settings, or logs why they cannot be loaded.
fn reload(server: &Server, source: &SettingsSource) {
    notify(&[
        NotifyState::Reloading,
        NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading),
    ]);
    match source.load() {
        Ok(settings) => {
            if settings.config.listen != server.configured_addresses() {
                tracing::warn!("`listen` has changed: that takes a restart");
            }
            let keys = settings.keyring.entries().len();
            server.reload(settings);
            tracing::info!(keys, "reloaded");
        }
        Err(diagnostics) => {
            for diagnostic in &diagnostics.0 {
                tracing::error!(
                    mistake = %logs::Escaped(diagnostic),
                    "not reloaded: the old settings stay in effect"
                );
            }
        }
    }
    notify(&[NotifyState::Ready]);
}

/// Notifies the service manager, if there is one (sd_notify(3)).
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// Raises the soft limit on descriptors, often 1,024, to the hard one: every connection and every
/// command needs some. Commands do not inherit it.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "cannot raise the limit on descriptors");
    }
}
