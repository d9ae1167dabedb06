//! Relaying frames between a client and the session that is lent to it.

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
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::liveness::{DeadPeerDetector, Verdict};

/// Frames are relayed in batches of about this many bytes.
const BATCH_BYTES: usize = 128 << 10;

/// How long a peer may take to read the last frames that it is sent.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The token of the agent's pings that check whether the host is alive. The answers to the agent's
/// own pings are not relayed.
const PROBE_TOKEN: u64 = u64::MAX;

/// The token of the agent's pings that check whether the host has received everything.
const SYNC_TOKEN: u64 = u64::MAX - 1;

/// A session of the agent's, while no client uses it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub reader: FrameReader<ReadHalf<Carrier>>,
    pub writer: WriteHalf<Carrier>,
    /// The highest channel id that was used on it.
    pub highest: ChannelId,
}

/// Why relaying ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client said goodbye.
    Client,
    /// The client disconnected without a goodbye, because it was killed or broke the protocol; or
    /// it gave up a host that did not answer.
    Abrupt,
    /// The host ended the session or disappeared.
    Host,
}

pub(super) fn probe() -> Frame {
    Ping { token: PROBE_TOKEN }.frame(ChannelId::CONNECTION)
}

fn answers(frame: &Frame, token: u64) -> bool {
    frame.kind == Kind::Pong && Pong::from_frame(frame).is_ok_and(|pong| pong.token == token)
}

/// Relays frames both ways until client or host is finished; returns whether the session can be
/// lent again. A host that is silent from the start for `answer_timeout` counts as dead.
pub(super) async fn run(
    upstream: &mut Upstream,
    client: UnixStream,
    answer_timeout: Duration,
) -> bool {
    match relay(upstream, client, answer_timeout).await {
        End::Client => true,
        // The host may end the session because of what the client sent last.
        End::Abrupt => timeout(answer_timeout, synchronize(upstream)).await.unwrap_or(false),
        End::Host => false,
    }
}

/// Waits until the host has received everything that was sent; false if it ends the session.
async fn synchronize(upstream: &mut Upstream) -> bool {
    let ping = Ping { token: SYNC_TOKEN }.frame(ChannelId::CONNECTION);
    if framing::write(&mut upstream.writer, &[ping]).await.is_err() {
        return false;
    }
    loop {
        match upstream.reader.next(limits::MAX_BODY).await {
            Ok(Some(frame)) if answers(&frame, SYNC_TOKEN) => return true,
            Ok(Some(frame))
                if frame.channel != ChannelId::CONNECTION || frame.kind == Kind::Pong => {}
            _ => return false,
        }
    }
}

async fn relay(upstream: &mut Upstream, client: UnixStream, answer_timeout: Duration) -> End {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = FrameReader::new(from_client);
    let shared = Shared::default();
    // The host may have disappeared while the session was idle; the client should soon know.
    shared.probe_due.notify_one();
    let upward = Upward {
        shared: &shared,
        client: &mut from_client,
        host: &mut upstream.writer,
        highest: &mut upstream.highest,
        open: BTreeSet::new(),
        batch: Vec::new(),
    };
    let downward = Downward {
        shared: &shared,
        host: &mut upstream.reader,
        client: &mut to_client,
        first_frame_timeout: Some(answer_timeout),
        detector: DeadPeerDetector::default(),
        batch: Vec::new(),
    };
    // Each direction is a loop of its own: one that is full must not delay the other.
    let end = tokio::select! {
        end = upward.run() => end,
        end = downward.run() => end,
    };
    if end == End::Host {
        // A socket that is closed with unread input loses what was written to it last.
        let close = async {
            to_client.shutdown().await?;
            framing::drain(from_client.get_mut()).await
        };
        let _ = timeout(LAST_WRITE_TIMEOUT, close).await;
    }
    end
}

/// What the two directions have in common.
#[derive(Debug, Default)]
struct Shared {
    /// Makes the upward direction ping the host.
    probe_due: Notify,
    /// Whether a ping of the client's is unanswered.
    ///
    /// A host that has several pings to answer may answer only the last. While the client waits for
    /// an answer the agent sends no ping of its own; the client's answer serves both.
    client_waits_for_pong: AtomicBool,
}

/// From the client to the host.
struct Upward<'a> {
    shared: &'a Shared,
    client: &'a mut FrameReader<OwnedReadHalf>,
    host: &'a mut WriteHalf<Carrier>,
    highest: &'a mut ChannelId,
    /// The channels that the client has open.
    open: BTreeSet<ChannelId>,
    batch: Vec<Frame>,
}

impl Upward<'_> {
    async fn run(mut self) -> End {
        let end = self.relay_frames().await;
        // The commands of a client that left channels open have lost their client.
        let closing: Vec<Frame> = std::mem::take(&mut self.open)
            .into_iter()
            .map(|id| Frame::new(Kind::Close, id, Bytes::new()))
            .collect();
        match timeout(LAST_WRITE_TIMEOUT, framing::write(self.host, &closing)).await {
            Ok(Ok(())) => end,
            _ => End::Host,
        }
    }

    async fn relay_frames(&mut self) -> End {
        loop {
            let disconnected = self.next_batch().await;
            let goodbye = self.batch.iter().position(|frame| frame.kind == Kind::Goodbye);
            self.batch.truncate(goodbye.unwrap_or(self.batch.len()));
            self.track_channels();
            if framing::write(self.host, &self.batch).await.is_err() {
                // The host's last frames may still be on their way. The other direction reads them,
                // and then finds the end.
                std::future::pending::<()>().await;
            }
            self.batch.clear();
            let unanswered = || self.shared.client_waits_for_pong.load(Ordering::Relaxed);
            match (goodbye, disconnected) {
                (Some(_), _) if unanswered() => return End::Abrupt,
                (Some(_), _) => return End::Client,
                (None, true) => return End::Abrupt,
                (None, false) => {}
            }
        }
    }

    /// Fills the batch with frames of the client's or a ping of the agent's; returns whether the
    /// client has disconnected.
    async fn next_batch(&mut self) -> bool {
        let Self { shared, client, batch, .. } = self;
        let client_waits = &shared.client_waits_for_pong;
        tokio::select! {
            () = shared.probe_due.notified() => {
                batch.extend((!client_waits.load(Ordering::Relaxed)).then(probe));
                false
            }
            connected = fill(client, batch) => {
                let pings = batch.iter().any(|frame| frame.kind == Kind::Ping);
                client_waits.fetch_or(pings, Ordering::Relaxed);
                !connected
            }
        }
    }

    fn track_channels(&mut self) {
        for frame in &self.batch {
            match frame.kind {
                Kind::Open => {
                    self.open.insert(frame.channel);
                    *self.highest = (*self.highest).max(frame.channel);
                }
                Kind::Close => {
                    self.open.remove(&frame.channel);
                }
                _ => {}
            }
        }
    }
}

/// From the host to the client.
struct Downward<'a> {
    shared: &'a Shared,
    host: &'a mut FrameReader<ReadHalf<Carrier>>,
    client: &'a mut OwnedWriteHalf,
    /// The time limit for the host's first frame, until that has arrived.
    first_frame_timeout: Option<Duration>,
    detector: DeadPeerDetector,
    batch: Vec<Frame>,
}

impl Downward<'_> {
    async fn run(mut self) -> End {
        let mut client_reads = true;
        while let Some(frame) = self.next_frame().await {
            gather(self.host, frame, &mut self.batch).await;
            self.batch.retain(|frame| !answers(frame, PROBE_TOKEN) && !answers(frame, SYNC_TOKEN));
            let no_pong = self.batch.iter().all(|frame| frame.kind != Kind::Pong);
            self.shared.client_waits_for_pong.fetch_and(no_pong, Ordering::Relaxed);
            let session_ends = self.batch.iter().any(|frame| {
                frame.channel == ChannelId::CONNECTION
                    && matches!(frame.kind, Kind::Refuse | Kind::Goodbye)
            });
            if session_ends {
                let _ = framing::write(self.client, &self.batch).await;
                return End::Host;
            }
            // After a failed write, the other direction still reads what the client sent before.
            client_reads = client_reads && framing::write(self.client, &self.batch).await.is_ok();
            self.batch.clear();
        }
        End::Host
    }

    /// Waits for the next frame; `None` if the host has ended the session or disappeared.
    async fn next_frame(&mut self) -> Option<Frame> {
        if let Some(limit) = self.first_frame_timeout.take() {
            return timeout(limit, self.host.next(limits::MAX_BODY)).await.ok()?.ok()?;
        }
        let mut overdue = false;
        loop {
            match self.detector.next(self.host).await {
                Ok(frame) => return frame.ok()?,
                Err(Verdict::Wait) => {}
                Err(Verdict::Probe) => self.shared.probe_due.notify_one(),
                // The client detects the same at this time. It has one more interval to disconnect,
                // so that its user learns the reason.
                Err(Verdict::Dead) if !overdue => overdue = true,
                Err(Verdict::Dead) => return None,
            }
        }
    }
}

/// Waits for a frame and adds it, together with the frames that arrived after it, to the batch;
/// false at the end. Cancel safe.
async fn fill(reader: &mut FrameReader<impl AsyncRead + Unpin>, batch: &mut Vec<Frame>) -> bool {
    let Ok(Some(frame)) = reader.next(limits::MAX_BODY).await else { return false };
    gather(reader, frame, batch).await;
    true
}

/// Adds a frame and the frames that have arrived after it to the batch, without waiting.
async fn gather(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
    first: Frame,
    batch: &mut Vec<Frame>,
) {
    let mut size = first.body.len();
    batch.push(first);
    while size < BATCH_BYTES && reader.has_next() {
        // An invalid frame is an error of the next call as well.
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

    fn client_ping() -> Frame {
        Ping { token: 1 }.frame(ChannelId::CONNECTION)
    }

    #[tokio::test]
    async fn the_agent_sends_no_ping_while_the_client_waits_for_a_pong() {
        // Which of the two pings is ready first is a matter of chance.
        for _ in 0..64 {
            let (mut upstream, mut host) = session();
            let (mut client, lent) = UnixStream::pair().unwrap();
            framing::write(&mut client, &[client_ping()]).await.unwrap();
            lent.readable().await.unwrap();
            let pinged = async {
                while host.next(limits::MAX_BODY).await.unwrap().unwrap() != client_ping() {}
                let close = Frame::new(Kind::Close, ChannelId(1), Bytes::new());
                framing::write(&mut client, std::slice::from_ref(&close)).await.unwrap();
                // A host that has several pings to answer may answer only the last.
                assert_eq!(host.next(limits::MAX_BODY).await.unwrap(), Some(close));
            };
            tokio::select! {
                () = pinged => {}
                _ = run(&mut upstream, lent, LAST_WRITE_TIMEOUT) => panic!("both ends are open"),
            }
        }
    }

    #[tokio::test]
    async fn a_host_that_a_client_has_given_up_is_not_lent_again() {
        for answers in [true, false] {
            let (mut upstream, mut host) = session();
            let (mut client, lent) = UnixStream::pair().unwrap();
            let pong = Pong { token: 1 }.frame(ChannelId::CONNECTION);
            let peers = async {
                framing::write(&mut client, &[client_ping()]).await.unwrap();
                let mut client = FrameReader::new(client);
                if answers {
                    while host.next(limits::MAX_BODY).await.unwrap().unwrap() != client_ping() {}
                    framing::write(host.get_mut(), std::slice::from_ref(&pong)).await.unwrap();
                    assert_eq!(client.next(limits::MAX_BODY).await.unwrap(), Some(pong));
                }
                let goodbye = Frame::new(Kind::Goodbye, ChannelId::CONNECTION, Bytes::new());
                let _ = framing::write(client.get_mut(), &[goodbye]).await;
                // Both stay connected until the agent has decided.
                (host, client)
            };
            let answer_timeout =
                if answers { Duration::from_secs(60) } else { Duration::from_millis(50) };
            let (lend_again, _peers) =
                tokio::join!(run(&mut upstream, lent, answer_timeout), peers);
            assert_eq!(lend_again, answers);
        }
    }
}
