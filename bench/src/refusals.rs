//! How long labshd takes to refuse a wrong proof and an unknown name: the two must look alike.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use labsh_proto::auth::{ChannelBinding, Mode};
use labsh_proto::frame::Kind;
use labsh_proto::handshake::Client;
use labsh_proto::key::{HostKey, Secret};
use labsh_proto::limits;
use labsh_proto::message::{Body, Features, Nonce, Response};
use labsh_transport::framing::{self, FrameReader};
use labsh_transport::random;
use tokio::net::TcpStream;

/// Alternates the two, `count` times each, over the plain port, and prints median and spread of
/// both.
pub(crate) async fn run(address: SocketAddr, key: &HostKey, count: usize) -> anyhow::Result<()> {
    let unknown =
        HostKey::new(key.key_id().clone(), key.host_id().clone(), Secret::new(random::bytes()));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..count {
        times[0].push(refusal(address, key, true).await?);
        times[1].push(refusal(address, &unknown, false).await?);
    }
    for (name, times) in ["wrong_proof", "unknown_name"].into_iter().zip(&mut times) {
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e3;
        println!("{name}_ms p10 {:.3} median {:.3} p90 {:.3}", at(10), at(50), at(90));
    }
    Ok(())
}

async fn refusal(address: SocketAddr, key: &HostKey, spoil: bool) -> anyhow::Result<Duration> {
    let mut reader = FrameReader::new(TcpStream::connect(address).await?);
    let challenge =
        reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await?.context("a challenge")?;
    let client = Client {
        mode: Mode::Plain,
        key: key.clone(),
        nonce: Nonce(random::bytes()),
        features: Features::SUPPORTED,
        binding: ChannelBinding::PLAIN,
    };
    let (mut frame, _) = client.answer(&challenge)?;
    if spoil {
        let mut response = Response::from_frame(&frame)?;
        response.proof.0[0] ^= 1;
        frame = response.frame(frame.channel);
    }
    let start = Instant::now();
    framing::write(reader.get_mut(), &[frame]).await?;
    let answer = reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await?.context("an answer")?;
    ensure!(answer.kind == Kind::Refuse, "let in");
    Ok(start.elapsed())
}
