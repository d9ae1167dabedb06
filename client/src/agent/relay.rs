//! Frames between a client and the session that is lent to it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use labsh_proto::frame::{ChannelId, Frame, Kind};
use labsh_proto::limits;
use labsh_proto::message::{Body, Ping, Pong};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{self, FrameReader};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::liveness::{Silence, Verdict};

/// A session of the agent's, at a moment when no frame is under way on it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub reader: FrameReader<ReadHalf<Carrier>>,
    pub writer: WriteHalf<Carrier>,
    /// The highest channel that was used on it.
    pub highest: ChannelId,
}

/// What has come is passed on in pieces of about so many bytes.
const BATCH: usize = 128 << 10;

/// For a client to take the last words of a host, or a host those of a client.
const LINGER: Duration = Duration::from_secs(5);

/// The tokens of the agent's own questions, whose answers are not for clients: whether the host is
/// there, and whether it has heard everything.
const THERE: u64 = u64::MAX;
const HEARD: u64 = u64::MAX - 1;

pub(super) fn own_ping() -> Frame {
    Ping { token: THERE }.frame(ChannelId::CONNECTION)
}

fn answers_us(frame: &Frame, question: u64) -> bool {
    frame.kind == Kind::Pong && Pong::from_frame(frame).is_ok_and(|pong| pong.token == question)
}

/// Why frames are carried no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client has gone, with a goodbye.
    Client,
    /// The client has gone without one, for it was killed or is no labsh; or it has given up a host
    /// that did not answer.
    Abrupt,
    /// The host has ended the session, or has gone.
    Host,
}

/// Carries frames both ways until either end is through; whether the session can be lent again. A
/// host that says nothing at all within `patience` has gone.
pub(super) async fn carry(upstream: &mut Upstream, client: UnixStream, patience: Duration) -> bool {
    match join(upstream, client, patience).await {
        End::Client => true,
        // The host may be about to end it for what that client said last.
        End::Abrupt => timeout(patience, settle(upstream)).await.unwrap_or(false),
        End::Host => false,
    }
}

/// Waits until the host has heard everything that was said so far; false where it ends the session
/// for it.
async fn settle(upstream: &mut Upstream) -> bool {
    let ask = Ping { token: HEARD }.frame(ChannelId::CONNECTION);
    if framing::write(&mut upstream.writer, &[ask]).await.is_err() {
        return false;
    }
    loop {
        match upstream.reader.next(limits::MAX_BODY).await {
            Ok(Some(frame)) if answers_us(&frame, HEARD) => return true,
            Ok(Some(frame))
                if frame.channel != ChannelId::CONNECTION || frame.kind == Kind::Pong => {}
            _ => return false,
        }
    }
}

async fn join(upstream: &mut Upstream, client: UnixStream, patience: Duration) -> End {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = FrameReader::new(from_client);
    let Upstream { reader, writer, highest } = upstream;
    let ask = Notify::new();
    // Of several pings a host need answer only the last: while one of the client's is unanswered
    // none of ours is sent behind it, and the answer to the client is our answer as well.
    let client_asks = AtomicBool::new(false);
    // It may have gone since it was last heard, and then the client should not wait for long.
    ask.notify_one();
    // Each way has a loop of its own: one that is full must not hold up the other.
    let up = async {
        let (mut open, mut batch) = (BTreeSet::<ChannelId>::new(), Vec::new());
        let end = loop {
            let ended = tokio::select! {
                () = ask.notified() => {
                    batch.extend((!client_asks.load(Ordering::Relaxed)).then(own_ping));
                    false
                }
                more = fill(&mut from_client, &mut batch) => {
                    client_asks.fetch_or(batch.iter().any(|frame| frame.kind == Kind::Ping),
                        Ordering::Relaxed);
                    !more
                }
            };
            let goodbye = batch.iter().position(|frame| frame.kind == Kind::Goodbye);
            batch.truncate(goodbye.unwrap_or(batch.len()));
            for frame in &batch {
                match frame.kind {
                    Kind::Open => {
                        open.insert(frame.channel);
                        *highest = (*highest).max(frame.channel);
                    }
                    Kind::Close => {
                        open.remove(&frame.channel);
                    }
                    _ => {}
                }
            }
            if framing::write(writer, &batch).await.is_err() {
                // What the host said last may still be on its way; the other loop reads it, and
                // then the end.
                std::future::pending::<()>().await;
            }
            batch.clear();
            match (goodbye, ended) {
                (Some(_), _) if client_asks.load(Ordering::Relaxed) => break End::Abrupt,
                (Some(_), _) => break End::Client,
                (None, true) => break End::Abrupt,
                (None, false) => {}
            }
        };
        // One that was killed, or did not wait, has left channels open: what runs there is to lose
        // its client.
        let closing: Vec<Frame> =
            open.into_iter().map(|id| Frame::new(Kind::Close, id, Bytes::new())).collect();
        match timeout(LINGER, framing::write(writer, &closing)).await {
            Ok(Ok(())) => end,
            _ => End::Host,
        }
    };
    let down = async {
        let (mut unheard, mut silence, mut batch) =
            (Some(patience), Silence::default(), Vec::new());
        let (mut client_is_there, mut overdue) = (true, false);
        loop {
            let next = match unheard.take() {
                Some(patience) => match timeout(patience, reader.next(limits::MAX_BODY)).await {
                    Ok(next) => Ok(next),
                    Err(_) => return End::Host,
                },
                None => silence.next(reader).await,
            };
            match next {
                Ok(Ok(Some(frame))) => {
                    overdue = false;
                    gather(reader, frame, &mut batch).await;
                }
                Err(Verdict::Wait) => continue,
                Err(Verdict::Ask) => {
                    ask.notify_one();
                    continue;
                }
                // The client finds out at this very moment, and says why it leaves.
                Err(Verdict::Gone) if !std::mem::replace(&mut overdue, true) => continue,
                Ok(_) | Err(Verdict::Gone) => return End::Host,
            }
            batch.retain(|frame| !answers_us(frame, THERE) && !answers_us(frame, HEARD));
            client_asks
                .fetch_and(batch.iter().all(|frame| frame.kind != Kind::Pong), Ordering::Relaxed);
            let last = batch.iter().any(|frame| {
                frame.channel == ChannelId::CONNECTION
                    && matches!(frame.kind, Kind::Refuse | Kind::Goodbye)
            });
            if last {
                let _ = framing::write(&mut to_client, &batch).await;
                return End::Host;
            }
            // Where the client has gone, the other loop still reads what it said.
            client_is_there =
                client_is_there && framing::write(&mut to_client, &batch).await.is_ok();
            batch.clear();
        }
    };
    let end = tokio::select! {
        end = up => end,
        end = down => end,
    };
    if end == End::Host {
        // Closing with unread input would cut off what was written last.
        let farewell = async {
            to_client.shutdown().await?;
            framing::drain(from_client.get_mut()).await
        };
        let _ = timeout(LINGER, farewell).await;
    }
    end
}

/// Waits for a frame and adds it with what has come behind it; false at the end. Cancel safe.
async fn fill(reader: &mut FrameReader<impl AsyncRead + Unpin>, batch: &mut Vec<Frame>) -> bool {
    let Ok(Some(frame)) = reader.next(limits::MAX_BODY).await else { return false };
    gather(reader, frame, batch).await;
    true
}

/// Adds a frame and what has come behind it, without waiting.
async fn gather(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
    first: Frame,
    batch: &mut Vec<Frame>,
) {
    let mut size = first.body.len();
    batch.push(first);
    while size < BATCH && reader.has_next() {
        // What is no frame is found again by the next call.
        let Ok(Some(frame)) = reader.next(limits::MAX_BODY).await else { return };
        size += frame.body.len();
        batch.push(frame);
    }
}

#[cfg(test)]
mod tests {
    use labsh_transport::socket::Socket;

    use super::*;

    /// A session of the agent's, and the host's end of it.
    fn session() -> (Upstream, FrameReader<UnixStream>) {
        let (host, ours) = UnixStream::pair().unwrap();
        let (reader, writer) = FrameReader::new(Carrier::Plain(Socket::unix(ours))).split();
        (Upstream { reader, writer, highest: ChannelId::CONNECTION }, FrameReader::new(host))
    }

    fn question() -> Frame {
        Ping { token: 1 }.frame(ChannelId::CONNECTION)
    }

    #[tokio::test]
    async fn a_clients_question_is_never_followed_by_the_agents_own() {
        // Which of the two is there first is a matter of chance.
        for _ in 0..64 {
            let (mut upstream, mut host) = session();
            let (mut client, lent) = UnixStream::pair().unwrap();
            framing::write(&mut client, &[question()]).await.unwrap();
            lent.readable().await.unwrap();
            let asked = async {
                while host.next(limits::MAX_BODY).await.unwrap().unwrap() != question() {}
                let last = Frame::new(Kind::Close, ChannelId(1), Bytes::new());
                framing::write(&mut client, std::slice::from_ref(&last)).await.unwrap();
                // Of several pings the host may answer the last alone.
                assert_eq!(host.next(limits::MAX_BODY).await.unwrap(), Some(last));
            };
            tokio::select! {
                () = asked => {}
                _ = carry(&mut upstream, lent, LINGER) => panic!("nobody has gone"),
            }
        }
    }

    #[tokio::test]
    async fn a_host_that_a_client_has_given_up_is_not_lent_again() {
        for answers in [true, false] {
            let (mut upstream, mut host) = session();
            let (mut client, lent) = UnixStream::pair().unwrap();
            let pong = Pong { token: 1 }.frame(ChannelId::CONNECTION);
            let others = async {
                framing::write(&mut client, &[question()]).await.unwrap();
                let mut client = FrameReader::new(client);
                if answers {
                    while host.next(limits::MAX_BODY).await.unwrap().unwrap() != question() {}
                    framing::write(host.get_mut(), std::slice::from_ref(&pong)).await.unwrap();
                    assert_eq!(client.next(limits::MAX_BODY).await.unwrap(), Some(pong));
                }
                let goodbye = Frame::new(Kind::Goodbye, ChannelId::CONNECTION, Bytes::new());
                let _ = framing::write(client.get_mut(), &[goodbye]).await;
                // Nobody else goes before the agent has made up its mind.
                (host, client)
            };
            let patience =
                if answers { Duration::from_secs(60) } else { Duration::from_millis(50) };
            let (again, _there) = tokio::join!(carry(&mut upstream, lent, patience), others);
            assert_eq!(again, answers);
        }
    }
}
