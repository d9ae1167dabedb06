//! From an address and a key to an authenticated connection.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::auth::{ChannelBinding, Mode, ServerSays};
use labsh_proto::frame::{ChannelId, Frame};
use labsh_proto::handshake::{Client, ClientAnswered, ClientFailure};
use labsh_proto::key::HostKey;
use labsh_proto::limits;
use labsh_proto::message::{Body, Features, Nonce, Ping};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{self, FrameReader, ReadError};
use labsh_transport::socket::{AddressFamily, Socket};
use labsh_transport::{random, tls};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::agent::Keeper;
use crate::error::ConnectError;
use crate::liveness::DEAD_PEER_AFTER;

/// Where a labshd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host by name or address.
    Tcp {
        /// The name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => {
                write!(formatter, "[{host}]:{port}")
            }
            Address::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// Everything that a connection needs.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Where to.
    pub address: Address,
    /// The key of this pair of key and host.
    pub key: HostKey,
    /// TLS, or plain where that was asked for in as many words.
    pub mode: Mode,
    /// For everything up to the server's welcome.
    pub timeout: Duration,
    /// Which of a host's addresses are tried.
    pub family: AddressFamily,
    /// Whose turn it is to take in much output, where many connections share a program's memory;
    /// none: always ours. Only where every output is read without waiting for another.
    pub intake: Option<Intake>,
    /// Who lends a session that is open already, and keeps one; none: every session is a connection
    /// of its own.
    pub keeper: Option<Keeper>,
}

/// How many connections may take in much output at a time, and which: what each of a thousand may
/// hold in memory, all of them together may not. What the others have been sent waits in the
/// kernel, and with the hosts.
#[derive(Debug, Clone)]
pub struct Intake(Arc<Semaphore>);

impl Intake {
    /// So many at a time, each with some 256 KiB.
    pub fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Waits for a turn, which lasts as long as what is returned; turns come in the order of
    /// asking.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.acquire().await.ok()
    }
}

impl ConnectOptions {
    /// TLS (plain mode for a unix socket), ten seconds.
    pub fn new(address: Address, key: HostKey) -> Self {
        let mode = match address {
            Address::Tcp { .. } => Mode::Tls,
            Address::Unix(_) => Mode::Plain,
        };
        Self {
            address,
            key,
            mode,
            timeout: Duration::from_secs(10),
            family: AddressFamily::Any,
            intake: None,
            keeper: None,
        }
    }
}

/// A connection whose `response` is ready to be sent.
pub(crate) struct Answered {
    pub(crate) reader: FrameReader<Carrier>,
    pub(crate) response: Frame,
    pub(crate) handshake: ClientAnswered,
}

/// Connects and answers the challenge. In TLS mode the server has proven itself when this returns.
pub(crate) async fn answer(options: &ConnectOptions) -> Result<Answered, ConnectError> {
    let broken = |source| broken(options, source);
    let socket = dial(options).await?;
    let (carrier, binding) = match options.mode {
        Mode::Plain => (Carrier::Plain(socket), ChannelBinding::PLAIN),
        Mode::Tls => {
            let (stream, binding) = tls::connect(socket, &options.key)
                .await
                .map_err(|error| explain_tls(options, error))?;
            (Carrier::Tls(Box::new(stream)), binding)
        }
    };
    let mut reader = FrameReader::new(carrier);
    if options.mode == Mode::Plain {
        // Speak first, so that a port that expects TLS notices the mistake at once.
        let ping = Ping { token: 0 }.frame(ChannelId::CONNECTION);
        framing::write(reader.get_mut(), &[ping]).await.map_err(broken)?;
    }
    let challenge = match reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await {
        Ok(frame) => frame.ok_or_else(|| broken(io::ErrorKind::UnexpectedEof.into()))?,
        Err(error) => {
            return Err(explain_read(options, error, reader.get_mut().socket().first_bytes()));
        }
    };
    let client = Client {
        mode: options.mode,
        key: options.key.clone(),
        nonce: Nonce(random::bytes()),
        features: Features::SUPPORTED,
        binding,
    };
    let (response, handshake) =
        client.answer(&challenge).map_err(|failure| explain(options, failure))?;
    Ok(Answered { reader, response, handshake })
}

fn broken(options: &ConnectOptions, source: io::Error) -> ConnectError {
    ConnectError::Broken { address: options.address.to_string(), source: Arc::new(source) }
}

async fn dial(options: &ConnectOptions) -> Result<Socket, ConnectError> {
    let address = &options.address;
    match address {
        Address::Tcp { host, port } => {
            Socket::connect_tcp(host, *port, options.family, DEAD_PEER_AFTER).await
        }
        Address::Unix(path) => Socket::connect_unix(path).await,
    }
    .map_err(|source| ConnectError::Unreachable {
        address: address.to_string(),
        source: Arc::new(source),
    })
}

fn explain_tls(options: &ConnectOptions, error: tls::ConnectError) -> ConnectError {
    let address = options.address.to_string();
    match error {
        tls::ConnectError::WrongServer => ConnectError::WrongServer {
            address,
            key_id: options.key.key_id().clone(),
            host_id: options.key.host_id().clone(),
        },
        tls::ConnectError::PlainMode => ConnectError::PortIsPlain { address },
        tls::ConnectError::Foreign(answer) => ConnectError::Foreign { address, answer },
        tls::ConnectError::Io(source) => broken(options, source),
        tls::ConnectError::Tls(error) => broken(options, io::Error::other(error.to_string())),
    }
}

fn explain_read(options: &ConnectOptions, error: ReadError, first_bytes: &[u8]) -> ConnectError {
    let address = options.address.to_string();
    match error {
        ReadError::Io(source) => broken(options, source),
        // Every first message of labsh is far shorter than 16 MiB, so its first byte is 0.
        ReadError::Protocol(_)
            if options.mode == Mode::Plain && first_bytes.first() != Some(&0) =>
        {
            ConnectError::Foreign {
                address,
                answer: String::from_utf8_lossy(first_bytes).into_owned(),
            }
        }
        ReadError::Protocol(error) => ConnectError::Protocol { address, error },
    }
}

fn explain(options: &ConnectOptions, failure: ClientFailure) -> ConnectError {
    let address = options.address.to_string();
    match failure {
        ClientFailure::Refused(refuse) => ConnectError::Refused { address, refuse },
        ClientFailure::ServerProof => ConnectError::WrongServer {
            address,
            key_id: options.key.key_id().clone(),
            host_id: options.key.host_id().clone(),
        },
        ClientFailure::Protocol(error) => ConnectError::Protocol { address, error },
    }
}

/// What a server says of itself when it lets somebody in, as far as sessions remember it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// What it can do.
    pub(crate) features: Features,
    /// Which version answers, if it says so.
    pub(crate) version: Option<String>,
}

/// Waits for `welcome`, or for the reason why not.
pub(crate) async fn welcome(
    options: &ConnectOptions,
    reader: &mut FrameReader<impl tokio::io::AsyncRead + Unpin>,
    handshake: ClientAnswered,
) -> Result<ServerSays, ConnectError> {
    let frame = match reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(broken(options, io::ErrorKind::UnexpectedEof.into())),
        Err(ReadError::Io(source)) => return Err(broken(options, source)),
        Err(ReadError::Protocol(error)) => {
            return Err(ConnectError::Protocol { address: options.address.to_string(), error });
        }
    };
    handshake.finish(&frame).map_err(|failure| explain(options, failure))
}
