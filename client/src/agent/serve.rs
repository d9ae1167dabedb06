//! The agent as a process: it detaches itself, answers clients, and exits when nothing is left.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, daemon};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::pool::Pool;
use crate::agent::socket_path::{SocketLock, SocketPath};
use crate::agent::wire::{self, AgentRequest, AgentResponse};

/// How long a client may take to send a request. Between two requests it makes a connection of its
/// own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the agent checks whether it has anything left to do.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The agent exits after this many checks in a row that found nothing to do.
const IDLE_CHECKS_BEFORE_EXIT: u32 = 3;

/// The most clients that are connected and have no session yet.
const MAX_WAITING_CLIENTS: usize = 256;

/// How long the agent waits after it could not accept a client, for want of descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The longest first request, in bytes; far more than any has.
const MAX_FIRST_REQUEST_BYTES: u64 = 64 << 10;

/// Serves clients until there is nothing left to do. The first request comes from stdin.
///
/// The agent becomes a process of its own, and the caller's process exits at once. Call this while
/// there is one thread, and it owns no descriptor above 2.
pub fn serve(socket: &SocketPath) -> anyhow::Result<()> {
    // A pipeline that started the agent may wait until every holder of its pipes has closed them.
    close_inherited().context("cannot close inherited descriptors")?;
    // A session of its own (setsid(2)) receives no signals of a terminal, and a process in `/` does
    // not prevent unmounting.
    daemon(false, true).context("cannot become a daemon")?;
    umask(Mode::from_bits_truncate(0o077));
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    // This is read before the agent accepts clients: the process that started it writes the request
    // and closes the pipe, but may be stopped before it does.
    let mut first = Vec::new();
    std::io::stdin()
        .take(MAX_FIRST_REQUEST_BYTES)
        .read_to_end(&mut first)
        .context("cannot read the first request")?;
    let runtime = labsh_transport::runtime::current_thread()?;
    runtime.block_on(run(socket, &first))?;
    runtime.shutdown_background();
    Ok(())
}

fn close_inherited() -> nix::Result<()> {
    // SAFETY: the call touches no memory, and the caller owns no descriptor above 2: nothing was
    // opened before this.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

async fn run(socket: &SocketPath, first: &[u8]) -> anyhow::Result<()> {
    // If another agent runs already, that one serves.
    let Some((listener, lock)) = socket.listen()? else { return Ok(()) };
    let agent = Arc::new(Agent::default());
    if let Ok(AgentRequest::Keep(request)) = wire::read(&mut &first[..]).await {
        agent.pool.keep(request);
    }
    let mut listening = Some((listener, lock));
    let mut checks = interval(IDLE_CHECK_INTERVAL);
    let mut idle_checks = 0;
    loop {
        tokio::select! {
            accepted = accept(listening.as_ref()) => match accepted {
                Ok(client) => agent.spawn_client(client),
                Err(_) => sleep(ACCEPT_RETRY_DELAY).await,
            },
            // The socket goes first, so that the user can start another agent at once.
            () = agent.pool.stopping.cancelled(), if listening.is_some() => {
                listening = None;
                agent.closed.cancel();
            }
            _ = checks.tick() => {
                if listening.as_ref().is_some_and(|(_, lock)| !lock.is_current()) {
                    agent.pool.stopping.cancel();
                }
                let no_sessions = agent.pool.is_empty();
                let no_clients = agent.waiting_clients.load(Ordering::Relaxed) == 0;
                let is_idle = no_sessions && (no_clients || listening.is_none());
                idle_checks = if is_idle { idle_checks + 1 } else { 0 };
                let has_stopped = no_sessions && no_clients && listening.is_none();
                if has_stopped || idle_checks >= IDLE_CHECKS_BEFORE_EXIT {
                    return Ok(());
                }
            }
        }
    }
}

/// Accepts a client; waits for ever if the agent no longer listens.
async fn accept(listening: Option<&(UnixListener, SocketLock)>) -> std::io::Result<UnixStream> {
    match listening {
        Some((listener, _)) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// The state of the agent.
#[derive(Debug, Default)]
struct Agent {
    pool: Arc<Pool>,
    /// The number of clients that are connected and have no session yet.
    waiting_clients: AtomicUsize,
    /// Cancelled once the socket is closed.
    closed: CancellationToken,
}

impl Agent {
    /// Answers a client in a task of its own, if it is a process of this user and there are not too
    /// many.
    fn spawn_client(self: &Arc<Self>, client: UnixStream) {
        let is_own = client.peer_cred().is_ok_and(|peer| peer.uid() == Uid::effective().as_raw());
        if !is_own || self.waiting_clients.load(Ordering::Relaxed) >= MAX_WAITING_CLIENTS {
            return;
        }
        self.waiting_clients.fetch_add(1, Ordering::Relaxed);
        let agent = self.clone();
        tokio::spawn(async move {
            agent.answer_requests(client).await;
            agent.waiting_clients.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Answers the requests of a client until it gets a session or disconnects.
    async fn answer_requests(&self, mut client: UnixStream) {
        let pool = &self.pool;
        loop {
            let request = timeout(REQUEST_TIMEOUT, wire::read(&mut client)).await;
            let response = match request {
                Ok(Ok(AgentRequest::Lend { pool_key, keep })) => {
                    match pool.lend(&pool_key, keep, client) {
                        Ok(()) => return,
                        Err(returned) => {
                            client = returned;
                            AgentResponse::Nothing
                        }
                    }
                }
                Ok(Ok(AgentRequest::Keep(request))) => return pool.keep(request),
                Ok(Ok(AgentRequest::List)) => {
                    AgentResponse::List { pid: std::process::id(), sessions: pool.list() }
                }
                Ok(Ok(AgentRequest::Stop)) => {
                    pool.stopping.cancel();
                    self.closed.cancelled().await;
                    AgentResponse::Stopping
                }
                Ok(Err(_)) | Err(_) => return,
            };
            let written = timeout(REQUEST_TIMEOUT, wire::write(&mut client, &response)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }
}
