//! Many connections: opened as fast as they can be, held while they do nothing, and one among many
//! that never say a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use labsh_client::{ConnectOptions, Session};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How many connections are opened at the same time.
const AT_ONCE: usize = 8;

/// Authenticated sessions, `count` of them.
async fn open(options: &ConnectOptions, count: usize) -> anyhow::Result<Vec<Session>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (options, places) = (options.clone(), places.clone());
        opening.spawn(async move {
            let _place = places.acquire().await?;
            anyhow::Ok(Session::connect(&options).await?)
        });
    }
    let mut sessions = Vec::with_capacity(count);
    while let Some(session) = opening.join_next().await {
        sessions.push(session??);
    }
    Ok(sessions)
}

/// Connections opened and authenticated in a second.
pub(crate) async fn rate(options: &ConnectOptions, count: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let sessions = open(options, count).await?;
    println!("per_second {:.0}", sessions.len() as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

/// Holds authenticated sessions open until a line comes.
pub(crate) async fn idle(options: &ConnectOptions, count: usize) -> anyhow::Result<()> {
    let sessions = open(options, count).await?;
    println!("open {}", sessions.len());
    crate::line().await
}

/// How long connecting and authenticating takes, `samples` times: alone, and among `silent`
/// connections that say nothing.
pub(crate) async fn half_open(
    options: &ConnectOptions,
    target: SocketAddr,
    silent: usize,
) -> anyhow::Result<()> {
    const SAMPLES: usize = 1000;
    print("quiet", &mut times(options, SAMPLES).await?);
    let mut holders = JoinSet::new();
    let mut sockets = Vec::with_capacity(silent);
    for number in 0..silent {
        sockets.push(silence(target).await.with_context(|| format!("silent connection {number}"))?);
    }
    for mut socket in sockets {
        // A connection that was closed is opened again, so that their number is constant.
        holders.spawn(async move {
            loop {
                let mut bytes = [0; 1024];
                while matches!(socket.read(&mut bytes).await, Ok(count) if count > 0) {}
                match silence(target).await {
                    Ok(another) => socket = another,
                    Err(_) => return,
                }
            }
        });
    }
    print("crowded", &mut times(options, SAMPLES).await?);
    println!("silent {}", holders.len());
    Ok(())
}

/// From an address of its own: a crowd elsewhere, not the one who knocks.
async fn silence(target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
    socket.connect(target).await
}

async fn times(options: &ConnectOptions, samples: usize) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let start = Instant::now();
        let session = Session::connect(options).await?;
        times.push(start.elapsed());
        session.close().await;
    }
    Ok(times)
}

fn print(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    for share in [50, 99] {
        println!("{name}_p{share}_ms {:.3}", times[times.len() * share / 100].as_secs_f64() * 1e3);
    }
}
