//! The client's side of the agent: borrowing a session, asking to keep one, starting the agent.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use labsh_proto::auth::Mode;
use labsh_proto::frame::ChannelId;
use labsh_proto::message::Features;
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::FrameReader;
use labsh_transport::socket::{AddressFamily, Socket};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::agent::options::AgentOptions;
use crate::agent::socket_path::{self, SocketError, SocketPath};
use crate::agent::wire::{self, AgentRequest, AgentResponse, KeepRequest, PoolKey, PooledSession};
use crate::connect::{Address, ConnectOptions, ServerInfo};

/// How long a connection waits for the agent. After that it connects by itself.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a user waits who asks about the agent itself.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of asking the agent for a session.
pub(crate) enum Borrowed {
    /// An authenticated session.
    Session(LentSession),
    /// No session. Once this client has connected by itself, it can ask the agent to keep one.
    None(PendingKeep),
}

/// An authenticated session that the agent lends to this client.
pub(crate) struct LentSession {
    pub(crate) reader: FrameReader<Carrier>,
    /// The highest channel id that was used on it.
    pub(crate) highest: ChannelId,
    /// How many channels may be open at once.
    pub(crate) channels: u32,
    pub(crate) server: ServerInfo,
}

/// A request to keep a session, to be sent once the host has authenticated this client.
#[derive(Debug)]
pub(crate) struct PendingKeep {
    request: KeepRequest,
    /// The connection to the agent, if one runs.
    agent: Option<UnixStream>,
    /// Whether to start an agent if none runs.
    start: bool,
}

/// Asks the agent for a session; `None` if these options cannot use one.
pub(crate) async fn borrow(options: &ConnectOptions) -> Option<Borrowed> {
    let agent_options = options.agent.as_ref()?;
    let pool_key = pool_key(options)?;
    let agent = match ask(agent_options, &pool_key).await {
        Some((stream, AgentResponse::Lent { highest, channels, features, version })) => {
            let reader = FrameReader::new(Carrier::Plain(Socket::unix(stream)));
            let highest = ChannelId(highest);
            let server = ServerInfo { features: Features(features), version };
            return Some(Borrowed::Session(LentSession { reader, highest, channels, server }));
        }
        Some((stream, AgentResponse::Nothing)) => Some(stream),
        _ => None,
    };
    let request = KeepRequest {
        pool_key,
        host_id: options.key.host_id().to_string(),
        key: agent_options.key.clone(),
        connect_timeout: options.timeout,
        keep: agent_options.keep,
    };
    Some(Borrowed::None(PendingKeep { request, agent, start: agent_options.start }))
}

fn pool_key(options: &ConnectOptions) -> Option<PoolKey> {
    let Address::Tcp { host, port } = &options.address else { return None };
    if options.family != AddressFamily::Any {
        return None;
    }
    Some(PoolKey {
        host: host.clone(),
        port: *port,
        plain: options.mode == Mode::Plain,
        name: options.key.name().0,
        network: super::network_namespace()?,
        features: Features::SUPPORTED.0,
    })
}

async fn ask(options: &AgentOptions, pool_key: &PoolKey) -> Option<(UnixStream, AgentResponse)> {
    let request = AgentRequest::Lend { pool_key: pool_key.clone(), keep: options.keep };
    let exchange = async {
        let mut stream = options.socket.connect().await.ok()?;
        wire::write(&mut stream, &request).await.ok()?;
        let response = wire::read(&mut stream).await.ok()?;
        Some((stream, response))
    };
    timeout(RESPONSE_TIMEOUT, exchange).await.ok().flatten()
}

impl PendingKeep {
    /// Has the agent keep a session. A failure here costs the next command a connection of its own.
    pub(crate) async fn send(self) {
        let request = AgentRequest::Keep(self.request);
        match self.agent {
            Some(mut stream) => {
                let _ = timeout(RESPONSE_TIMEOUT, wire::write(&mut stream, &request)).await;
            }
            None if self.start => {
                let (sent, delivered) = oneshot::channel();
                // Reaping the process blocks a thread of its own; the command does not wait for it.
                tokio::task::spawn_blocking(move || start(&request, sent));
                let _ = delivered.await;
            }
            None => {}
        }
    }
}

/// Starts an agent with its first request on stdin, and reaps the process that becomes the agent's
/// parent. `sent` is dropped once the request is delivered, or cannot be.
fn start(first: &AgentRequest, sent: oneshot::Sender<()>) {
    let spawned = || {
        // All programs of labsh are installed in one directory.
        let mut command = Command::new(std::env::current_exe()?.with_file_name("labsh"));
        command
            .args(["agent", "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // The agent outlives the session that this environment belongs to.
        command.env_clear().envs(
            std::env::var_os(socket_path::RUNTIME_DIR).map(|path| (socket_path::RUNTIME_DIR, path)),
        );
        let mut child = command.spawn()?;
        // A pipe holds far more than one request, so this does not block.
        let written = wire::encode(first).and_then(|request| match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(&request),
            None => Ok(()),
        });
        written.map(|()| child)
    };
    let child: std::io::Result<Child> = spawned();
    drop(sent);
    if let Ok(mut child) = child {
        // The agent detaches itself; this is its parent, which exits at once.
        let _ = child.wait();
    }
}

/// A connection to the agent, for questions about the agent itself.
#[derive(Debug)]
pub struct AgentClient(UnixStream);

impl AgentClient {
    /// Connects to the agent, if one runs.
    pub async fn connect(socket: &SocketPath) -> Result<Self, SocketError> {
        socket.connect().await.map(Self)
    }

    /// Returns the agent's process id and its sessions.
    pub async fn list(&mut self) -> std::io::Result<(u32, Vec<PooledSession>)> {
        match self.request(&AgentRequest::List).await? {
            AgentResponse::List { pid, sessions } => Ok((pid, sessions)),
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }

    /// Has the agent close its idle sessions, lend no more, and end with the last command. Returns
    /// once its socket is closed, so that another agent can start.
    pub async fn stop(mut self) -> std::io::Result<()> {
        self.request(&AgentRequest::Stop).await.map(drop)
    }

    async fn request(&mut self, request: &AgentRequest) -> std::io::Result<AgentResponse> {
        wire::write(&mut self.0, request).await?;
        match timeout(CONTROL_TIMEOUT, wire::read(&mut self.0)).await {
            Ok(response) => response,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}
