//! The measurements that need a program of their own; `bench/run` calls them and prints the table.
//!
//! The server's address and the enrolment line of its key come in `LABSH_BENCH_ADDRESS` and
//! `LABSH_BENCH_KEY`; results go to stdout as `name value` lines.

mod channels;
mod connections;
mod flights;
mod proxy;
mod refusals;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use labsh_client::{Address, ConnectOptions, Session, Stdio};
use labsh_proto::key::HostKey;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["commands", count] => commands(count.parse()?).await,
        ["flooded", count] => flooded(count.parse()?).await,
        ["idle", count] => connections::idle(&options()?, count.parse()?).await,
        ["connections", count] => connections::rate(&options()?, count.parse()?).await,
        ["half-open", count] => {
            connections::half_open(&options()?, address()?, count.parse()?).await
        }
        ["channels", count, mebibytes] => {
            channels::run(&options()?, count.parse()?, mebibytes.parse()?).await
        }
        ["refusals", count] => refusals::run(address()?, &key()?, count.parse()?).await,
        ["flights", target, times, ref words @ ..] => {
            flights::run(target.parse()?, times.parse()?, words).await
        }
        ["proxy", listen, target, delay] => {
            proxy::run(listen.parse()?, target.parse()?, Duration::from_millis(delay.parse()?))
                .await
        }
        _ => bail!(
            "usage: labsh-bench commands N | flooded N | idle N | connections N | half-open N | \
             channels N MEBIBYTES | refusals N | flights TARGET TIMES COMMAND… | \
             proxy LISTEN TARGET MILLISECONDS"
        ),
    }
}

fn address() -> anyhow::Result<SocketAddr> {
    Ok(std::env::var("LABSH_BENCH_ADDRESS").context("LABSH_BENCH_ADDRESS")?.parse()?)
}

fn key() -> anyhow::Result<HostKey> {
    Ok(HostKey::from_line(&std::env::var("LABSH_BENCH_KEY").context("LABSH_BENCH_KEY")?)?)
}

fn options() -> anyhow::Result<ConnectOptions> {
    let address = address()?;
    let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
    Ok(ConnectOptions { timeout: Duration::from_secs(60), ..ConnectOptions::new(address, key()?) })
}

/// Commands (exact words) a second on one connection, four at once.
async fn commands(count: u32) -> anyhow::Result<()> {
    const AT_ONCE: u32 = 4;
    let session = Session::connect(&options()?).await?;
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let session = session.clone();
        workers.spawn(async move {
            for _ in 0..count / AT_ONCE {
                if !session.command("true").status().await?.success() {
                    bail!("true is false");
                }
            }
            Ok(())
        });
    }
    while let Some(outcome) = workers.join_next().await {
        outcome??;
    }
    println!("per_second {:.0}", f64::from(count) / start.elapsed().as_secs_f64());
    Ok(())
}

/// How long `true` takes on a quiet connection, and while another channel floods it.
async fn flooded(count: usize) -> anyhow::Result<()> {
    let session = Session::connect(&options()?).await?;
    println!("quiet_ms {:.3}", median_of_true(&session, count).await?);
    let flood = session.command("yes").stdout(Stdio::Null).spawn().await?;
    println!("flooded_ms {:.3}", median_of_true(&session, count).await?);
    drop(flood);
    Ok(())
}

async fn median_of_true(session: &Session, count: usize) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        session.command("true").status().await?;
        times.push(start.elapsed());
    }
    Ok(median(&mut times).as_secs_f64() * 1e3)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Waits until a line comes on stdin, or its end.
async fn line() -> anyhow::Result<()> {
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await??;
    Ok(())
}
