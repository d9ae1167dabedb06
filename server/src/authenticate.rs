//! Authenticates an accepted connection: TLS, challenge and response, and the rules of the key.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use labsh_proto::auth::{ChannelBinding, Mode};
use labsh_proto::error::ProtocolError;
use labsh_proto::frame::{ChannelId, Frame, Kind};
use labsh_proto::handshake::{self, Authenticated, ServerFailure};
use labsh_proto::limits;
use labsh_proto::message::{Body, Name, Nonce, Ping, Refuse, RefuseCode};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{self, FrameReader, ReadError};
use labsh_transport::random;
use labsh_transport::socket::Socket;
use labsh_transport::tls::FIRST_BYTE;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::accounts;
use crate::admission::PendingSlot;
use crate::entry::Entry;
use crate::foreign::{ForeignProtocol, describe_tls};
use crate::shared::{self, SessionSlot, Shared};
use crate::users::User;

/// Timeout for sending a refusal to a peer that may still be sending.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for refusing a connection when no descriptor is left; no other is accepted meanwhile.
const FULL_REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// An authenticated client that the rules of its key admit.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) proof: Authenticated,
    pub(crate) entry: Arc<Entry>,
    /// The user that its commands run as, unless the account changes meanwhile.
    pub(crate) user: User,
    pub(crate) reader: FrameReader<Carrier>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) slot: SessionSlot,
}

/// Why a connection did not become a session; for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the deadline for authentication has passed")]
    Deadline,
    #[error("a plain client on a TLS port")]
    PlainClient,
    #[error("a TLS client on a plain port")]
    TlsClient,
    #[error("closed before authentication")]
    Closed,
    #[error("{0}")]
    Foreign(ForeignProtocol),
    #[error("{}", describe_tls(.0))]
    Tls(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("authentication failed for the name {0}")]
    Authentication(Name),
    #[error("key {key} from host id {host} was refused: {}", .refuse.reason)]
    Refused { key: String, host: String, refuse: Refuse },
}

/// A connection on which the challenge is sent, or is part of the TLS handshake.
struct Challenged {
    reader: FrameReader<Carrier>,
    /// The name that the client requested in the TLS handshake.
    requested: Option<Name>,
    binding: ChannelBinding,
}

/// Authenticates the client of an accepted connection, or refuses it.
pub(crate) async fn authenticate(
    shared: &Arc<Shared>,
    socket: Socket,
    mode: Mode,
    pending: &PendingSlot,
) -> Result<Client, Failure> {
    let deadline = Instant::now() + shared.config().authentication_deadline;
    let (peer, local) = (socket.peer_address(), socket.local_address());
    let server = handshake::Server::new(mode, Nonce(random::bytes()));
    let challenged = challenge(shared, socket, mode, &server, deadline, Some(pending)).await?;
    let Challenged { mut reader, requested, binding } = challenged;
    let response = timeout_at(deadline, read_response(&mut reader, mode, &server)).await;
    let response = match response.unwrap_or(Err(Failure::Deadline)) {
        Ok(response) => response,
        Err(failure) => return Err(refuse_early(&mut reader, mode, failure).await),
    };

    // From here on a wrong proof and an unknown key take the same path, to the same bytes, after
    // the same delay.
    let config = shared.config();
    let refuse_at = Instant::now() + config.failed_authentication_delay;
    let entry = shared.keyring().find(&response.name);
    let known = entry.as_ref().map(|entry| &entry.key);
    let verified = server.verify(&response, known, &shared.decoy_key, requested, binding);
    let (Ok(proof), Some(entry)) = (verified, entry) else {
        let refuse = Refuse::new(
            RefuseCode::AUTHENTICATION,
            "authentication failed",
            "check the key, the host id, and that the key is enrolled on that host (`labshd key \
             list`)",
        );
        sleep_until(refuse_at).await;
        send_refusal(reader.get_mut(), &refuse).await;
        return Err(Failure::Authentication(response.name));
    };

    match admit(shared, &entry, peer).await {
        Ok((user, slot)) => Ok(Client { proof, entry, user, reader, peer, local, slot }),
        Err(refuse) => {
            send_refusal(reader.get_mut(), &refuse).await;
            let key = entry.key.key_id().to_string();
            Err(Failure::Refused { key, host: entry.key.host_id().to_string(), refuse })
        }
    }
}

/// Refuses a connection for which no descriptor is left, before it is authenticated. In TLS mode
/// the refusal comes after the handshake: a client reads nothing before it.
pub(crate) async fn refuse_full(shared: &Shared, socket: Socket, mode: Mode) {
    let server = handshake::Server::new(mode, Nonce(random::bytes()));
    let deadline = Instant::now() + FULL_REFUSAL_TIMEOUT;
    if let Ok(mut challenged) = challenge(shared, socket, mode, &server, deadline, None).await {
        let refuse = shared::full(true);
        let _ = timeout_at(deadline, send_refusal(challenged.reader.get_mut(), &refuse)).await;
    }
}

/// Performs the TLS handshake, which carries the challenge, or sends the challenge without TLS.
async fn challenge(
    shared: &Shared,
    socket: Socket,
    mode: Mode,
    server: &handshake::Server,
    deadline: Instant,
    pending: Option<&PendingSlot>,
) -> Result<Challenged, Failure> {
    let note_data = || pending.map_or((), PendingSlot::note_data);
    match mode {
        Mode::Tls => {
            let challenge = server.challenge();
            let accepted =
                timeout_at(deadline, accept_tls(shared, socket, &challenge, note_data)).await;
            // Without TLS there is no way to send the client a refusal.
            let accepted = accepted.map_err(|_| Failure::Deadline)??;
            let reader = FrameReader::new(Carrier::Tls(Box::new(accepted.stream)));
            let (requested, binding) = (Some(accepted.name), accepted.binding);
            Ok(Challenged { reader, requested, binding })
        }
        Mode::Plain => {
            let mut reader = FrameReader::new(Carrier::Plain(socket));
            framing::write(reader.get_mut(), &[server.challenge()]).await?;
            // A client sends first in this mode too. How the connection ends is seen below.
            let first = timeout_at(deadline, reader.get_ref().socket().peek()).await;
            if first.is_ok_and(|first| first.is_ok_and(|bytes| !bytes.is_empty())) {
                note_data();
            }
            Ok(Challenged { reader, requested: None, binding: ChannelBinding::PLAIN })
        }
    }
}

/// Refuses a client that sent no valid response, and returns the failure to log.
async fn refuse_early(reader: &mut FrameReader<Carrier>, mode: Mode, failure: Failure) -> Failure {
    let refuse = match &failure {
        Failure::Deadline => Refuse::new(
            RefuseCode::DEADLINE,
            "the deadline for authentication has passed",
            "try again; where the network is slow, raise authentication_deadline in labshd.toml",
        ),
        Failure::Protocol(error) => {
            let first_bytes = reader.get_ref().socket().first_bytes();
            if mode == Mode::Plain && first_bytes.first() == Some(&FIRST_BYTE) {
                return Failure::TlsClient;
            }
            if mode == Mode::Plain
                && let Some(protocol) = ForeignProtocol::of(first_bytes)
            {
                return Failure::Foreign(protocol);
            }
            let remedy = "use a client of this version";
            Refuse::new(RefuseCode::PROTOCOL, error.to_string(), remedy)
        }
        _ => return failure,
    };
    send_refusal(reader.get_mut(), &refuse).await;
    failure
}

async fn accept_tls(
    shared: &Shared,
    mut socket: Socket,
    challenge: &Frame,
    note_data: impl FnOnce(),
) -> Result<labsh_transport::tls::Accepted, Failure> {
    let first_bytes = socket.peek().await?;
    note_data();
    match first_bytes.first() {
        None => Err(Failure::Closed),
        Some(&FIRST_BYTE) => shared.acceptor.accept(socket, challenge).await.map_err(Failure::Tls),
        Some(_) => {
            if let Some(protocol) = ForeignProtocol::of(&first_bytes) {
                protocol.answer(&mut socket).await;
                return Err(Failure::Foreign(protocol));
            }
            let refuse = Refuse::new(
                RefuseCode::PROTOCOL,
                "this port speaks TLS",
                "leave out --plain (or `plain = true`), or use the port that listens in plain mode",
            );
            send_refusal(&mut socket, &refuse).await;
            Err(Failure::PlainClient)
        }
    }
}

/// Reads the response, the only frame that authentication needs. A plain client may send one ping
/// first: on a TLS port it shows that the client does not speak TLS.
async fn read_response(
    reader: &mut FrameReader<Carrier>,
    mode: Mode,
    server: &handshake::Server,
) -> Result<labsh_proto::message::Response, Failure> {
    let mut frame = read_frame(reader).await?;
    if mode == Mode::Plain && frame.kind == Kind::Ping {
        Ping::from_frame(&frame)?;
        frame = read_frame(reader).await?;
    }
    server.read(&frame).map_err(|failure| match failure {
        ServerFailure::Protocol(error) => Failure::Protocol(error),
        ServerFailure::Authentication => Failure::Closed,
    })
}

async fn read_frame(reader: &mut FrameReader<Carrier>) -> Result<Frame, Failure> {
    match reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await {
        Ok(frame) => frame.ok_or(Failure::Closed),
        Err(ReadError::Io(error)) => Err(Failure::Io(error)),
        Err(ReadError::Protocol(ProtocolError::Truncated { .. })) => Err(Failure::Closed),
        Err(ReadError::Protocol(error)) => Err(Failure::Protocol(error)),
    }
}

/// Applies the rules for a client with a valid proof: source, expiry, user, limit on sessions.
async fn admit(
    shared: &Arc<Shared>,
    entry: &Entry,
    peer: Option<SocketAddr>,
) -> Result<(User, SessionSlot), Refuse> {
    entry.permits(peer.map(|peer| peer.ip()), SystemTime::now()).map_err(|reason| {
        Refuse::new(RefuseCode::NOT_PERMITTED, reason.to_string(), reason.remedy())
    })?;
    let user = accounts::user_of(shared, entry).await?;
    if shared.draining.is_cancelled() {
        return Err(shared::stopping());
    }
    let slot = shared.reserve_session(entry.key.name())?;
    Ok((user, slot))
}

/// Sends a refusal, if the peer is still there to receive it.
async fn send_refusal(
    carrier: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    refuse: &Refuse,
) {
    let _ = timeout(
        REFUSAL_TIMEOUT,
        framing::send_last(carrier, &refuse.before_authentication().frame(ChannelId::CONNECTION)),
    )
    .await;
}
