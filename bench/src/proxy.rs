//! A proxy that delays every byte by the same time in each direction: a long link, in user space.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

/// The maximum in flight in one direction, in bytes: more than any window that is measured.
const UNDER_WAY: usize = 512 << 20;

const CHUNK: usize = 256 << 10;

/// Serves until it is killed. `round_trip` is split over the two directions.
pub(crate) async fn run(
    listen: SocketAddr,
    target: SocketAddr,
    round_trip: Duration,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(target).await else { return };
            // Nagle's algorithm would add its own waiting to ours.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(carry(from_client, to_server, round_trip / 2));
            tokio::spawn(carry(from_server, to_client, round_trip / 2));
        });
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let freed = room.clone();
    tokio::spawn(async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            freed.add_permits(bytes.len());
        }
        let _ = to.shutdown().await;
    });
    loop {
        let mut bytes = Vec::with_capacity(CHUNK);
        match from.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // A chunk is far smaller than u32::MAX, and the semaphore is never closed.
        let Ok(permit) = room.acquire_many(bytes.len() as u32).await else { return };
        permit.forget();
        if sender.send((Instant::now() + delay, bytes)).is_err() {
            return;
        }
    }
}
