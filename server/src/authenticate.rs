//! From an accepted socket to an authenticated client: limits first, then TLS, one response, and
//! the rules of its key.

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

use crate::keyring::Entry;
use crate::shared::{self, SessionPlace, Shared};
use crate::users::{User, UserError};

/// For a refusal to arrive: the peer may still be sending.
const LINGER: Duration = Duration::from_secs(5);

/// An authenticated client that its key's rules let in.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) proof: Authenticated,
    pub(crate) entry: Arc<Entry>,
    /// Whom its commands run as; as an ordinary user labshd has only itself to offer.
    pub(crate) user: User,
    pub(crate) changes_user: bool,
    pub(crate) reader: FrameReader<Carrier>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) place: SessionPlace,
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
    #[error("TLS failed: {0} (a client that holds another key stops here)")]
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

/// Takes one connection through authentication, or tells it why not.
pub(crate) async fn authenticate(
    shared: &Arc<Shared>,
    socket: Socket,
    mode: Mode,
) -> Result<Client, Failure> {
    let deadline = Instant::now() + shared.config().authentication_deadline;
    let (peer, local) = (socket.peer_address(), socket.local_address());
    let server = handshake::Server::new(mode, Nonce(random::bytes()));
    let (mut reader, asked_for, binding) = match mode {
        Mode::Tls => {
            let challenge = server.challenge();
            let accepted = timeout_at(deadline, accept_tls(shared, socket, &challenge)).await;
            // Before TLS is up there is no way to tell the peer.
            let accepted = accepted.map_err(|_| Failure::Deadline)??;
            let carrier = Carrier::Tls(Box::new(accepted.stream));
            (FrameReader::new(carrier), Some(accepted.name), accepted.binding)
        }
        Mode::Plain => {
            let mut reader = FrameReader::new(Carrier::Plain(socket));
            framing::write(reader.get_mut(), &[server.challenge()]).await?;
            (reader, None, ChannelBinding::PLAIN)
        }
    };

    let response = timeout_at(deadline, read_response(&mut reader, mode, &server)).await;
    let response = match response.unwrap_or(Err(Failure::Deadline)) {
        Ok(response) => response,
        Err(Failure::Deadline) => {
            let refuse = Refuse::new(
                RefuseCode::DEADLINE,
                "the deadline for authentication has passed",
                "try again; where the network is slow, raise authentication_deadline in \
                 labshd.toml",
            );
            send_refusal(reader.get_mut(), &refuse).await;
            return Err(Failure::Deadline);
        }
        Err(Failure::Protocol(error)) => {
            if reader.get_ref().socket().first_bytes().first() == Some(&FIRST_BYTE)
                && mode == Mode::Plain
            {
                return Err(Failure::TlsClient);
            }
            let refuse = Refuse::new(
                RefuseCode::PROTOCOL,
                error.to_string(),
                "use a client of this version",
            );
            send_refusal(reader.get_mut(), &refuse).await;
            return Err(Failure::Protocol(error));
        }
        Err(failure) => return Err(failure),
    };

    // From here on a wrong proof and an unknown key take the same path, to the same bytes, after
    // the same delay.
    let config = shared.config();
    let answer_at = Instant::now() + config.failed_authentication_delay;
    let entry = shared.keyring().find(&response.name);
    let known = entry.as_ref().map(|entry| &entry.key);
    let verified = server.verify(&response, known, &shared.dummy, asked_for, binding);
    let (Ok(proof), Some(entry)) = (verified, entry) else {
        let refuse = Refuse::new(
            RefuseCode::AUTHENTICATION,
            "authentication failed",
            "check the key, the host id, and that the key is enrolled on that host (`labshd key \
             list`)",
        );
        sleep_until(answer_at).await;
        send_refusal(reader.get_mut(), &refuse).await;
        return Err(Failure::Authentication(response.name));
    };

    match admit(shared, &entry, peer).await {
        Ok((user, changes_user, place)) => {
            Ok(Client { proof, entry, user, changes_user, reader, peer, local, place })
        }
        Err(refuse) => {
            send_refusal(reader.get_mut(), &refuse).await;
            let key = entry.key.key_id().to_string();
            Err(Failure::Refused { key, host: entry.key.host_id().to_string(), refuse })
        }
    }
}

async fn accept_tls(
    shared: &Shared,
    mut socket: Socket,
    challenge: &Frame,
) -> Result<labsh_transport::tls::Accepted, Failure> {
    match socket.peek().await? {
        None => Err(Failure::Closed),
        Some(FIRST_BYTE) => shared.acceptor.accept(socket, challenge).await.map_err(Failure::Tls),
        Some(_) => {
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

/// The one frame that is due before authentication. A plain client may send one ping in front of
/// it, so that a port that expects TLS notices the mistake.
async fn read_response(
    reader: &mut FrameReader<Carrier>,
    mode: Mode,
    server: &handshake::Server,
) -> Result<labsh_proto::message::Response, Failure> {
    let mut frame = read_early(reader).await?;
    if mode == Mode::Plain && frame.kind == Kind::Ping {
        Ping::from_frame(&frame)?;
        frame = read_early(reader).await?;
    }
    server.read(&frame).map_err(|failure| match failure {
        ServerFailure::Protocol(error) => Failure::Protocol(error),
        ServerFailure::Authentication => Failure::Closed,
    })
}

async fn read_early(reader: &mut FrameReader<Carrier>) -> Result<Frame, Failure> {
    match reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await {
        Ok(frame) => frame.ok_or(Failure::Closed),
        Err(ReadError::Io(error)) => Err(Failure::Io(error)),
        Err(ReadError::Protocol(ProtocolError::Truncated { .. })) => Err(Failure::Closed),
        Err(ReadError::Protocol(error)) => Err(Failure::Protocol(error)),
    }
}

/// Everything about a client that is not its proof: source, expiry, user, room.
async fn admit(
    shared: &Arc<Shared>,
    entry: &Entry,
    peer: Option<SocketAddr>,
) -> Result<(User, bool, SessionPlace), Refuse> {
    entry.permits(peer.map(|peer| peer.ip()), SystemTime::now()).map_err(|reason| {
        Refuse::new(RefuseCode::NOT_PERMITTED, reason.to_string(), reason.remedy())
    })?;
    let (user, changes_user) = user(shared, entry).await?;
    if shared.draining.is_cancelled() {
        return Err(shared::stopping());
    }
    let place = shared.enter().ok_or_else(|| {
        Refuse::new(
            RefuseCode::BUSY,
            "labshd has as many connections as it may",
            "try again later, or raise max_connections in labshd.toml",
        )
    })?;
    Ok((user, changes_user, place))
}

/// As whom the commands of an entry run, and whether that is somebody else than labshd.
async fn user(shared: &Arc<Shared>, entry: &Entry) -> Result<(User, bool), Refuse> {
    // As an ordinary user labshd has only itself to offer.
    let name = entry.user.clone().filter(|_| nix::unistd::geteuid().is_root());
    let changes_user = name.is_some();
    if let Some(user) = shared.recent_users.find(name.as_deref()) {
        return Ok((user, changes_user));
    }
    // The user database may ask the network.
    let looked_up = tokio::task::spawn_blocking({
        let shared = shared.clone();
        move || shared.recent_users.ask(name)
    });
    match timeout(shared.config().authentication_deadline, looked_up).await {
        Ok(Ok(Ok(user))) => Ok((user, changes_user)),
        Ok(Ok(Err(error @ UserError::NoDescriptors { .. }))) => {
            let remedy =
                "try again later, or start labshd with a higher limit on open files (ulimit -n)";
            Err(Refuse::new(RefuseCode::BUSY, error.to_string(), remedy))
        }
        Ok(Ok(Err(error))) => {
            let remedy = "ask the administrator of that host";
            Err(Refuse::new(RefuseCode::NOT_PERMITTED, error.to_string(), remedy))
        }
        Ok(Err(error)) => Err(Refuse::new(RefuseCode::INTERNAL, error.to_string(), "try again")),
        Err(_) => {
            let reason = "that host's user database does not answer";
            Err(Refuse::new(RefuseCode::INTERNAL, reason, "try again, or tell its administrator"))
        }
    }
}

/// Best effort: the peer may be gone, and the log has the reason anyway.
async fn send_refusal(
    carrier: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    refuse: &Refuse,
) {
    let _ = timeout(
        LINGER,
        framing::send_last(carrier, &refuse.before_authentication().frame(ChannelId::CONNECTION)),
    )
    .await;
}
