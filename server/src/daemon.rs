//! labshd as a process: start-up in the right order, the service manager, signals, a clean end.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::logs;
use crate::reload::Source;
use crate::server::Server;
use crate::spawner::SpawnerProcess;

/// Runs until a signal ends it (SIGTERM or SIGINT: drain; once more: at once). SIGHUP reloads.
///
/// # Errors
///
/// A mistake in configuration or keys, an address that cannot be bound, a spawner that has gone.
pub fn run(source: Source, spawner: SpawnerProcess) -> anyhow::Result<()> {
    let (config, keyring) = source.load()?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let entries = keyring.entries().len();
        let server = tokio::select! {
            server = Server::start(config, keyring, spawner) => server?,
            // A name to listen on may take long to look up.
            () = stop_asked(&mut signals.terminate, &mut signals.interrupt) => return Ok(()),
        };
        if entries == 0 {
            tracing::warn!("no key is enrolled yet: nobody can get in; see `labshd key add`");
        }
        notify(&[NotifyState::Ready]);
        tracing::info!(keys = entries, pid = std::process::id(), "labshd is ready");
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => reload(&server, &source),
                () = server.spawner_lost() => anyhow::bail!("the spawner has gone: nothing can be \
                    run any more"),
                () = stop_asked(&mut signals.terminate, &mut signals.interrupt) => break,
            }
        }
        notify(&[NotifyState::Stopping]);
        tracing::info!("stopping: running commands may end first");
        server.stop(stop_asked(&mut signals.terminate, &mut signals.interrupt)).await;
        tracing::info!("stopped");
        Ok(())
    });
    // Look-ups in the user database may still hang; they must not hold the end up.
    runtime.shutdown_background();
    outcome
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn stop_asked(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn reload(server: &Server, source: &Source) {
    notify(&[
        NotifyState::Reloading,
        NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading),
    ]);
    match source.load() {
        Ok((config, keyring)) => {
            if config.listen != server.configured_addresses() {
                tracing::warn!("`listen` has changed: that takes a restart");
            }
            let keys = keyring.entries().len();
            server.reload(config, keyring);
            tracing::info!(keys, "reloaded");
        }
        Err(diagnostics) => {
            for diagnostic in &diagnostics.0 {
                tracing::error!(mistake = %logs::Escaped(diagnostic), "not reloaded: the old \
                    configuration goes on");
            }
        }
    }
    notify(&[NotifyState::Ready]);
}

/// sd_notify(3); without a service manager nobody listens.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// Every connection and every command costs descriptors; the soft limit is often 1,024. Commands do
/// not inherit it.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "cannot raise the limit on descriptors");
    }
}
