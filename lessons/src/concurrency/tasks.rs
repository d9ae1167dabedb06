//! Servers with an async task for each client, all on one thread.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::trial::{Event, Trial};
use crate::sockets::IO_TIMEOUT;

/// Serves each client in a task that awaits.
pub(super) fn tasks(listener: &TcpListener, trial: &Arc<Trial>) -> io::Result<()> {
    serve_in_tasks(listener, trial, false)
}

/// Serves each client in a task that blocks the thread instead of awaiting: a classic bug.
pub(super) fn blocking_tasks(listener: &TcpListener, trial: &Arc<Trial>) -> io::Result<()> {
    serve_in_tasks(listener, trial, true)
}

fn serve_in_tasks(listener: &TcpListener, trial: &Arc<Trial>, block: bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // With fewer descriptors the runtime does not return an error, but panics.
    drop((0..8).map(|_| listener.try_clone()).collect::<io::Result<Vec<_>>>()?);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let mut tasks = JoinSet::new();
        for number in trial.clients() {
            let (socket, _) = timeout(IO_TIMEOUT, listener.accept()).await??;
            tasks.spawn(talk_in_task(socket, Arc::clone(trial), number, block));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    })
}

/// Sends every line back until the client leaves. At each await the thread can run another task.
async fn talk_in_task(
    mut socket: TcpStream,
    trial: Arc<Trial>,
    number: usize,
    block: bool,
) -> io::Result<()> {
    trial.note(Event::Accepts(number));
    let (input, mut out) = socket.split();
    let mut lines = BufReader::new(input).lines();
    while let Some(line) = timeout(IO_TIMEOUT, lines.next_line()).await?? {
        trial.begin_work();
        if block {
            thread::sleep(trial.work_time); // No await: all other tasks wait as well.
        } else {
            tokio::time::sleep(trial.work_time).await;
        }
        out.write_all(&trial.end_work(number, &line)).await?;
    }
    Ok(())
}
