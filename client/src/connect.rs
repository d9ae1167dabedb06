//! Connecting to a labshd: the socket, TLS, and both ends' proofs.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::auth::{ChannelBinding, Mode, ServerParameters};
use labsh_proto::frame::{ChannelId, Frame};
use labsh_proto::handshake::{AwaitingWelcome, Client, ClientFailure};
use labsh_proto::key::HostKey;
use labsh_proto::limits;
use labsh_proto::message::{Body, Features, Nonce, Ping};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{self, FrameReader, ReadError};
use labsh_transport::socket::{AddressFamily, Socket};
use labsh_transport::{random, tls};
use nix::errno::Errno;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::agent::AgentOptions;
use crate::error::ConnectError;
use crate::liveness::DEAD_PEER_TIMEOUT;

/// An address where a labshd listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// The host's name, or its IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a unix socket.
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

/// What a connection needs.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The address.
    pub address: Address,
    /// The key that is derived for this host.
    pub key: HostKey,
    /// TLS or plain mode. Plain mode over TCP is only for a user who explicitly asks for it.
    pub mode: Mode,
    /// The time limit for everything up to the server's `welcome`.
    pub timeout: Duration,
    /// Which of the host's addresses to try.
    pub family: AddressFamily,
    /// Shares memory with other connections; `None` is no limit. Use it only if each output is read
    /// without waiting for another: a connection keeps its turn until all of its output is read.
    pub read_limiter: Option<ReadLimiter>,
    /// The agent that lends an open session and keeps one for later; `None` always makes a new
    /// connection.
    pub agent: Option<AgentOptions>,
}

impl ConnectOptions {
    /// Uses TLS (plain mode for a unix socket) and a timeout of ten seconds.
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
            read_limiter: None,
            agent: None,
        }
    }
}

/// Limits how many connections read large amounts of output at the same time.
///
/// One connection may buffer some 256 KiB; a thousand must not do so at once. The others leave
/// their data in the kernel, where flow control holds back the hosts.
#[derive(Debug, Clone)]
pub struct ReadLimiter(Arc<Semaphore>);

impl ReadLimiter {
    /// Allows this many connections to read at the same time.
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections)))
    }

    /// Waits for a permit to read; permits are granted in order.
    pub(crate) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.0.acquire().await.ok()
    }
}

/// A connection with the `response` to its server's challenge, which is still to be sent.
pub(crate) struct Answered {
    pub(crate) reader: FrameReader<Carrier>,
    pub(crate) response: Frame,
    pub(crate) handshake: AwaitingWelcome,
}

/// Connects and computes the response to the server's challenge. In TLS mode the server is
/// authenticated when this returns.
///
/// Tries once more if the connection breaks: a server closes connections that are not authenticated
/// yet when too many of others arrive. Nothing that could be done twice has been sent by then.
pub(crate) async fn answer(options: &ConnectOptions) -> Result<Answered, ConnectError> {
    match answer_once(options).await {
        Err(ConnectError::Broken { .. }) => {
            answer_once(options).await.map_err(|error| match error {
                ConnectError::Broken { address, source } => {
                    let source = io::Error::new(source.kind(), format!("{source}, twice"));
                    ConnectError::Broken { address, source: Arc::new(source) }
                }
                error => error,
            })
        }
        answered => answered,
    }
}

async fn answer_once(options: &ConnectOptions) -> Result<Answered, ConnectError> {
    let broken = |source| broken(options, source);
    let socket = dial(options).await?;
    let (carrier, binding) = match options.mode {
        Mode::Plain => (Carrier::Plain(socket), ChannelBinding::PLAIN),
        Mode::Tls => {
            let (stream, binding) = tls::connect(socket, &options.key)
                .await
                .map_err(|error| tls_error(options, error))?;
            (Carrier::Tls(Box::new(stream)), binding)
        }
    };
    let mut reader = FrameReader::new(carrier);
    if options.mode == Mode::Plain {
        // Send first, so that a TLS port fails at once instead of waiting for a TLS handshake.
        let ping = Ping { token: 0 }.frame(ChannelId::CONNECTION);
        framing::write(reader.get_mut(), &[ping]).await.map_err(broken)?;
    }
    let challenge = match reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await {
        Ok(frame) => frame.ok_or_else(|| broken(io::ErrorKind::UnexpectedEof.into()))?,
        Err(error) => {
            return Err(read_error(options, error, reader.get_mut().socket().first_bytes()));
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
        client.answer(&challenge).map_err(|failure| handshake_error(options, failure))?;
    Ok(Answered { reader, response, handshake })
}

/// The error of a connection that was not authenticated in time.
pub(crate) fn expired(options: &ConnectOptions) -> ConnectError {
    ConnectError::Timeout { address: options.address.to_string(), after: options.timeout }
}

fn broken(options: &ConnectOptions, source: io::Error) -> ConnectError {
    ConnectError::Broken { address: options.address.to_string(), source: Arc::new(source) }
}

async fn dial(options: &ConnectOptions) -> Result<Socket, ConnectError> {
    let address = &options.address;
    match address {
        Address::Tcp { host, port } => {
            Socket::connect_tcp(host, *port, options.family, DEAD_PEER_TIMEOUT).await
        }
        Address::Unix(path) => Socket::connect_unix(path).await,
    }
    .map_err(|source| dial_error(address.to_string(), source))
}

fn dial_error(address: String, source: io::Error) -> ConnectError {
    let limits = [Errno::EMFILE, Errno::ENFILE].map(|errno| Some(errno as i32));
    let source = if limits.contains(&source.raw_os_error()) {
        source
    } else {
        // The resolver reports the limit in other ways, so a descriptor is tried.
        match io::stdin().as_fd().try_clone_to_owned() {
            Ok(_) => return ConnectError::Unreachable { address, source: Arc::new(source) },
            Err(limit) => limit,
        }
    };
    ConnectError::TooManyFiles { address, source: Arc::new(source) }
}

fn tls_error(options: &ConnectOptions, error: tls::ConnectError) -> ConnectError {
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

fn read_error(options: &ConnectOptions, error: ReadError, first_bytes: &[u8]) -> ConnectError {
    let address = options.address.to_string();
    match error {
        ReadError::Io(source) => broken(options, source),
        // A first frame of labsh is far shorter than 16 MiB, so the first byte of its length is 0.
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

fn handshake_error(options: &ConnectOptions, failure: ClientFailure) -> ConnectError {
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

/// What a session remembers of the server's `welcome`.
#[derive(Debug, Clone)]
pub(crate) struct ServerInfo {
    pub(crate) features: Features,
    /// The server's name and version, if it sent them.
    pub(crate) version: Option<String>,
}

/// Waits for the server's `welcome` and verifies its proof.
pub(crate) async fn welcome(
    options: &ConnectOptions,
    reader: &mut FrameReader<impl tokio::io::AsyncRead + Unpin>,
    handshake: AwaitingWelcome,
) -> Result<ServerParameters, ConnectError> {
    let frame = match reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(broken(options, io::ErrorKind::UnexpectedEof.into())),
        Err(ReadError::Io(source)) => return Err(broken(options, source)),
        Err(ReadError::Protocol(error)) => {
            return Err(ConnectError::Protocol { address: options.address.to_string(), error });
        }
    };
    handshake.finish(&frame).map_err(|failure| handshake_error(options, failure))
}
