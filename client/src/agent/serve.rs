//! The agent as a process: alone in its place, detached from who started it, and gone when nothing is left to keep.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Uid, setsid};
use tokio::net::UnixStream;
use tokio::time::{interval, timeout};

use crate::agent::kept::Sessions;
use crate::agent::place::Place;
use crate::agent::wire::{self, Answer, Ask};

/// For a client to say what it wants; the connection of its own that it makes in between is among that.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks whether anything is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Clients that have not said yet what they want.
const MOST_CLIENTS: usize = 256;

/// Far more than any first wish, in bytes.
const FIRST_WISH: u64 = 64 << 10;

/// Serves until nothing is left, with the first wish from stdin. Call it in a process with one thread that owns no
/// descriptor above 2.
pub fn serve(place: &Place) -> anyhow::Result<()> {
    // Who started us may be a pipeline that waits for every holder of its pipes.
    close_inherited().context("cannot close inherited descriptors")?;
    // Fails only where we lead a process group already, which no terminal started.
    let _ = setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(place))?;
    runtime.shutdown_background();
    Ok(())
}

fn close_inherited() -> nix::Result<()> {
    // SAFETY: the call touches no memory, and the caller owns no descriptor above 2: nothing was opened before this.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    Errno::result(result).map(drop)
}

async fn run(place: &Place) -> anyhow::Result<()> {
    // Another agent that is there already serves as well.
    let Some((listener, held)) = place.listen()? else { return Ok(()) };
    let mut held = Some((listener, held));
    let sessions = Arc::new(Sessions::default());
    let asking = Arc::new(AtomicUsize::new(0));
    // Who started us has written it and closed the pipe.
    let mut first = Vec::new();
    std::io::stdin().take(FIRST_WISH).read_to_end(&mut first).context("cannot read the first wish")?;
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
            accepted = accepted => {
                let Ok((stream, _)) = accepted else { continue };
                let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == Uid::effective().as_raw());
                if !ours || asking.load(Ordering::Relaxed) >= MOST_CLIENTS {
                    continue;
                }
                asking.fetch_add(1, Ordering::Relaxed);
                let (sessions, asking) = (sessions.clone(), asking.clone());
                tokio::spawn(async move {
                    converse(&sessions, stream).await;
                    asking.fetch_sub(1, Ordering::Relaxed);
                });
            }
            // The socket goes first, so that who asked it to stop can start another at once.
            () = sessions.stopping.cancelled(), if held.is_some() => held = None,
            _ = looks.tick() => {
                let idle = sessions.is_empty() && (asking.load(Ordering::Relaxed) == 0 || held.is_none());
                empty = if idle { empty + 1 } else { 0 };
                if empty > 2 || idle && held.is_none() {
                    return Ok(());
                }
            }
        }
    }
}

/// Answers one client until it has what it wants.
async fn converse(sessions: &Arc<Sessions>, mut client: UnixStream) {
    loop {
        let answer = match timeout(PATIENCE, wire::read(&mut client)).await {
            Ok(Ok(Ask::Lend(route))) => match sessions.lend(&route, client) {
                Ok(()) => return,
                Err(back) => {
                    client = back;
                    Answer::Nothing
                }
            },
            Ok(Ok(Ask::Keep(wish))) => return sessions.keep(wish),
            Ok(Ok(Ask::List)) => Answer::List { pid: std::process::id(), sessions: sessions.list() },
            Ok(Ok(Ask::Stop)) => {
                sessions.stopping.cancel();
                Answer::Stopping
            }
            _ => return,
        };
        if !matches!(timeout(PATIENCE, wire::write(&mut client, &answer)).await, Ok(Ok(()))) {
            return;
        }
    }
}
