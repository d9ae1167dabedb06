//! Frames between a client and the session that is lent to it.

use std::collections::BTreeSet;

use labsh_proto::frame::{ChannelId, Frame, Kind};
use labsh_proto::limits;
use labsh_proto::message::{Body, Pong};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{self, FrameReader};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;

/// A session of the agent's, at a moment when no frame is under way on it.
#[derive(Debug)]
pub(super) struct Upstream {
    pub reader: FrameReader<ReadHalf<Carrier>>,
    pub writer: WriteHalf<Carrier>,
    /// The highest channel that was used on it.
    pub highest: ChannelId,
}

/// The agent's own questions: what still answers one is not for a client, which could leave it unread, and closing with
/// unread input would reset its connection and destroy its goodbye.
pub(super) const OWN_PING: u64 = u64::MAX;

fn answers_us(frame: &Frame) -> bool {
    frame.kind == Kind::Pong && Pong::from_frame(frame).is_ok_and(|pong| pong.token == OWN_PING)
}

/// Carries frames both ways until either end is through; whether the session can be lent again.
pub(super) async fn carry(upstream: &mut Upstream, client: UnixStream) -> bool {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = FrameReader::new(from_client);
    let Upstream { reader, writer, highest } = upstream;
    // Each way has a loop of its own: one that is full must not hold up the other.
    let up = async {
        let mut open = BTreeSet::new();
        // An end without goodbye is a client that was killed: its commands are to lose it.
        while let Ok(Some(frame)) = from_client.next(limits::BODY).await {
            match frame.kind {
                Kind::Goodbye => return open.is_empty(),
                Kind::Open => {
                    open.insert(frame.channel);
                    *highest = (*highest).max(frame.channel);
                }
                Kind::Close => {
                    open.remove(&frame.channel);
                }
                _ => {}
            }
            if framing::write(writer, &[frame]).await.is_err() {
                return false;
            }
        }
        false
    };
    let down = async {
        while let Ok(Some(frame)) = reader.next(limits::BODY).await {
            if answers_us(&frame) {
                continue;
            }
            let last =
                frame.channel == ChannelId::CONNECTION && matches!(frame.kind, Kind::Refuse | Kind::Goodbye);
            // Where the client is gone, the other loop knows how it went.
            if framing::write(&mut to_client, &[frame]).await.is_err() {
                std::future::pending::<()>().await;
            }
            if last {
                break;
            }
        }
    };
    tokio::select! {
        reusable = up => reusable,
        () = down => false,
    }
}
