//! The agent as a process: alone in its place, detached from who started it, and gone when nothing
//! is left to keep.

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
use tokio::net::UnixStream;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::pool::Sessions;
use crate::agent::socket_path::Place;
use crate::agent::wire::{self, Answer, Ask};

/// For a client to say what it wants; the connection of its own that it makes in between is among
/// that.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks whether anything is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After so many looks in a row that found nothing it ends.
const EMPTY_LOOKS: u32 = 3;

/// Clients that have not said yet what they want.
const MOST_CLIENTS: usize = 256;

/// What is waited where no further client can be taken in, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Far more than any first wish, in bytes.
const FIRST_WISH: u64 = 64 << 10;

/// Serves until nothing is left, with the first wish from stdin; in a process of its own, from
/// which the caller's parts at once. Call it with one thread that owns no descriptor above 2.
pub fn serve(place: &Place) -> anyhow::Result<()> {
    // Who started us may be a pipeline that waits for every holder of its pipes.
    close_inherited().context("cannot close inherited descriptors")?;
    // A session of its own in `/`: no terminal's signals, no file system that cannot be unmounted.
    daemon(false, true).context("cannot become a daemon")?;
    umask(Mode::from_bits_truncate(0o077));
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    // Before anybody can ask: who started us has written it and closes the pipe, but may be stopped
    // before it does.
    let mut first = Vec::new();
    std::io::stdin()
        .take(FIRST_WISH)
        .read_to_end(&mut first)
        .context("cannot read the first wish")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(place, &first))?;
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

async fn run(place: &Place, first: &[u8]) -> anyhow::Result<()> {
    // Another agent that is there already serves as well.
    let Some((listener, held)) = place.listen()? else { return Ok(()) };
    let mut held = Some((listener, held));
    let desk = Arc::new(Desk::default());
    let sessions = &desk.sessions;
    if let Ok(Ask::Keep(wish)) = wire::read(&mut &first[..]).await {
        sessions.keep(wish);
    }
    let mut looks = interval(LOOK_EVERY);
    let mut empty = 0;
    loop {
        let accepted = async {
            match &held {
                Some((listener, _)) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((stream, _)) => desk.greet(stream),
                Err(_) => sleep(PAUSE).await,
            },
            // The socket goes first, so that who asked it to stop can start another at once.
            () = sessions.stopping.cancelled(), if held.is_some() => {
                held = None;
                desk.closed.cancel();
            }
            _ = looks.tick() => {
                if held.as_ref().is_some_and(|(_, held)| !held.is_ours()) {
                    sessions.stopping.cancel();
                }
                let (none_kept, none_asks) = (sessions.is_empty(),
                    desk.asking.load(Ordering::Relaxed) == 0);
                empty = if none_kept && (none_asks || held.is_none()) { empty + 1 } else { 0 };
                if empty >= EMPTY_LOOKS || none_kept && none_asks && held.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

/// Where clients say what they want.
#[derive(Debug, Default)]
struct Desk {
    sessions: Arc<Sessions>,
    /// How many have not said it yet.
    asking: AtomicUsize,
    /// Nobody else can come.
    closed: CancellationToken,
}

impl Desk {
    /// Answers a client in a task of its own, if it is this user's, and one of not too many.
    fn greet(self: &Arc<Self>, client: UnixStream) {
        let ours = client.peer_cred().is_ok_and(|peer| peer.uid() == Uid::effective().as_raw());
        if !ours || self.asking.load(Ordering::Relaxed) >= MOST_CLIENTS {
            return;
        }
        self.asking.fetch_add(1, Ordering::Relaxed);
        let desk = self.clone();
        tokio::spawn(async move {
            desk.converse(client).await;
            desk.asking.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Answers one client until it has what it wants.
    async fn converse(&self, mut client: UnixStream) {
        let sessions = &self.sessions;
        loop {
            let answer = match timeout(PATIENCE, wire::read(&mut client)).await {
                Ok(Ok(Ask::Lend { route, keep })) => match sessions.lend(&route, keep, client) {
                    Ok(()) => return,
                    Err(back) => {
                        client = back;
                        Answer::Nothing
                    }
                },
                Ok(Ok(Ask::Keep(wish))) => return sessions.keep(wish),
                Ok(Ok(Ask::List)) => {
                    Answer::List { pid: std::process::id(), sessions: sessions.list() }
                }
                Ok(Ok(Ask::Stop)) => {
                    sessions.stopping.cancel();
                    self.closed.cancelled().await;
                    Answer::Stopping
                }
                _ => return,
            };
            if !matches!(timeout(PATIENCE, wire::write(&mut client, &answer)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}
