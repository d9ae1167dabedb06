//! One connection with many channels: what it holds, how soon one of them answers, how much all of
//! them carry.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use labsh_client::{ConnectOptions, Session, Stdio};
use tokio::task::JoinSet;

/// Opens so many channels, each with a `cat` that waits; when a line comes, sends a byte through
/// one after the other, then has as many commands write zeros, so many mebibytes together.
pub(crate) async fn run(
    options: &ConnectOptions,
    channels: usize,
    mebibytes: usize,
) -> anyhow::Result<()> {
    const QUESTIONS: usize = 1000;
    let session = Session::connect(options).await?;
    let mut waiting = Vec::with_capacity(channels);
    for _ in 0..channels {
        let mut child = session
            .command("cat")
            .stdin(Stdio::Piped)
            .stdout(Stdio::Piped)
            .stderr(Stdio::Null)
            .spawn()
            .await?;
        child.started().await?;
        let ends = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
        waiting.push((child, ends));
    }
    println!("open {channels}");
    crate::line().await?;

    let mut times: Vec<Duration> = Vec::with_capacity(QUESTIONS);
    for number in 0..QUESTIONS {
        let (_, (stdin, stdout)) = &mut waiting[number % channels];
        let start = Instant::now();
        stdin.send(bytes::Bytes::from_static(b"x")).await?;
        let answer = stdout.next().await?.context("an answer")?;
        stdout.consumed(answer.len());
        times.push(start.elapsed());
    }
    println!("answer_ms {:.3}", crate::median(&mut times).as_secs_f64() * 1e3);
    drop(waiting);

    let session = Session::connect(options).await?;
    let each = (mebibytes << 20) / channels;
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..channels {
        let session = session.clone();
        writers.spawn(async move {
            let status = session
                .command("head")
                .args(["-c", &each.to_string(), "/dev/zero"])
                .stdout(Stdio::Null)
                .status()
                .await?;
            ensure!(status.success(), "head failed");
            Ok(())
        });
    }
    while let Some(outcome) = writers.join_next().await {
        outcome??;
    }
    println!("mib_per_second {:.0}", mebibytes as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
