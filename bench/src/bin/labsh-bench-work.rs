//! Does one piece of work so many times, and nothing else: what `bench/instructions.py` runs under
//! callgrind.

use std::hint::black_box;

use anyhow::bail;
use bytes::BytesMut;
use labsh_bench::codec::{self, LARGE, SMALL};
use labsh_bench::{handshake, sets};
use labsh_transport::framing;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [work, times] = &words[..] else { bail!("usage: labsh-bench-work WORK TIMES") };
    let times: u32 = times.parse()?;
    match work.as_str() {
        "write-small" => write(SMALL, times),
        "write-large" => write(LARGE, times),
        "decode-small" => decode(SMALL, usize::MAX, times),
        "decode-large" => decode(LARGE, usize::MAX, times),
        "decode-small-byte-by-byte" => decode(SMALL, 1, times),
        "key-schedule" => {
            let (key, host) = (handshake::key()?, handshake::host()?);
            repeat(times, || Ok(handshake::key_schedule(&key, &host)))
        }
        "handshake-plain" => {
            let (pair, dummy) =
                (handshake::key()?.for_host(&handshake::host()?), handshake::dummy());
            repeat(times, || handshake::plain(&pair, &dummy))
        }
        "handshake-tls" => {
            let (pair, dummy) =
                (handshake::key()?.for_host(&handshake::host()?), handshake::dummy());
            let acceptor = handshake::acceptor(&pair)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            repeat(times, || runtime.block_on(handshake::tls(&acceptor, &pair, &dummy)))
        }
        "set-parse" => {
            let expression = sets::expression(1_000);
            repeat(times, || Ok(sets::parse(&expression)?))
        }
        "set-fold" => {
            let set = sets::parse(&sets::expression(1_000))?;
            repeat(times, || Ok(set.to_string()))
        }
        "set-union" => {
            let [odd, even] = sets::halves(1_000)?;
            // Each time as if for the first: with two copies of what is joined.
            repeat(times, || Ok(odd.clone().union(even.clone())))
        }
        _ => bail!("no work {work:?}"),
    }
}

fn repeat<T>(times: u32, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<()> {
    for _ in 0..times {
        black_box(work()?);
    }
    Ok(())
}

fn write(size: usize, times: u32) -> anyhow::Result<()> {
    let frames = [codec::frame(size)];
    repeat(times, || Ok(codec::write(black_box(&frames))?))
}

fn decode(size: usize, piece: usize, times: u32) -> anyhow::Result<()> {
    let bytes = framing::to_bytes(&codec::frame(size));
    let mut buffer = BytesMut::new();
    repeat(times, || Ok(codec::decode(&mut buffer, black_box(&bytes), piece)))
}
