//! The messages between a client and the agent that precede frames: JSON after a length of 4 bytes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use labsh_proto::key::HostId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message, in bytes. A list of [`super::pool::MAX_AGENT_SESSIONS`] sessions fits, each
/// with a path of PATH_MAX bytes.
const MAX_MESSAGE_BYTES: u32 = 1 << 20;

/// What a pooled session must have in common with the connection that it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PoolKey {
    /// The host's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the session is in plain mode.
    pub plain: bool,
    /// The pseudonym of the key and the host. It stands for the key's secret, which is never sent:
    /// another secret has another pseudonym.
    pub name: [u8; 16],
    /// The network namespace of the client. In another one, an address can be another machine.
    pub network: u64,
    /// The features that the client expects. An agent of another version offers others.
    pub features: u64,
}

/// A session that the agent is to open and keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeepRequest {
    #[serde(rename = "route")]
    pub pool_key: PoolKey,
    pub host_id: String,
    /// The path of the key file, which the agent reads itself.
    pub key: PathBuf,
    pub connect_timeout: Duration,
    /// How long the agent keeps the session without use.
    pub keep: Duration,
}

impl KeepRequest {
    pub(super) fn host_id(&self) -> Option<HostId> {
        HostId::new(&self.host_id).ok()
    }
}

/// A client's request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AgentRequest {
    /// Lends an idle session, and from now on keeps it for `keep` without use.
    Lend {
        #[serde(rename = "route")]
        pool_key: PoolKey,
        keep: Duration,
    },
    /// Opens a session and keeps it. There is no response.
    Keep(KeepRequest),
    /// Lists the sessions.
    List,
    /// Lends no more sessions, and ends the agent with the last session that is lent.
    Stop,
}

/// The agent's response.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AgentResponse {
    /// A session is lent: frames follow, for channels above `highest`, at most `channels` at once.
    /// The rest is from the host's `welcome`.
    Lent { highest: u32, channels: u32, features: u64, version: Option<String> },
    /// There is no such session.
    Nothing,
    /// The agent's process id and its sessions.
    List { pid: u32, sessions: Vec<PooledSession> },
    /// The agent takes no more requests.
    Stopping,
}

/// A session of the agent's, as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PooledSession {
    /// The host's address.
    pub address: String,
    /// The host id that the key is enrolled for.
    pub host_id: String,
    /// The path of the key file.
    pub key: PathBuf,
    /// Seconds since the session was opened.
    pub age: u64,
    /// Seconds since it was last used; `None` while it is lent or being opened.
    pub idle: Option<u64>,
}

/// Returns the bytes of a message.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= MAX_MESSAGE_BYTES);
    let length = length.ok_or_else(|| io::Error::other("the message is too long"))?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

pub(super) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    writer.write_all(&encode(message)?).await?;
    writer.flush().await
}

/// Reads one message and no byte more: frames may follow.
pub(super) async fn read<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let length = reader.read_u32().await?;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    reader.take(length.into()).read_to_end(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}
