//! What a client and the agent say to each other before frames pass: JSON behind its length.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use labsh_proto::key::HostId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message, in bytes; a list of [`super::pool::MOST`] sessions fits, with the longest
/// paths that there are.
const LONGEST: u32 = 1 << 20;

/// Which session a client can use. The name stands for the secret of its key, which never travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Route {
    /// The host's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether without TLS.
    pub plain: bool,
    /// The pseudonym of the pair of key and host: another secret has another.
    pub name: [u8; 16],
    /// The network namespace of the client: elsewhere, an address is another machine's.
    pub network: u64,
    /// What the client takes for granted in a session: those of an agent of another version have
    /// other features.
    pub features: u64,
}

/// A session that is to be opened and kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Wish {
    pub route: Route,
    pub host_id: String,
    /// The key's file; the agent reads it itself.
    pub key: PathBuf,
    pub connect_timeout: Duration,
    /// How long it is kept without use.
    pub keep: Duration,
}

impl Wish {
    pub(super) fn host_id(&self) -> Option<HostId> {
        HostId::new(&self.host_id).ok()
    }
}

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// For a session on this route, now or never; it is kept so long without use from now on.
    Lend { route: Route, keep: Duration },
    /// To keep one from now on; there is no answer.
    Keep(Wish),
    /// What there is.
    List,
    /// To lend nothing more, and to end with the last session that is lent.
    Stop,
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Frames follow, for channels behind this id, so many at once; and what else the host's
    /// `welcome` said.
    Lent { highest: u32, channels: u32, features: u64, version: Option<String> },
    /// There is no such session.
    Nothing,
    /// What there is.
    List { pid: u32, sessions: Vec<Kept> },
    /// It takes no more questions.
    Stopping,
}

/// A session that the agent has, as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Where to.
    pub address: String,
    /// The name under which the key is enrolled there.
    pub host_id: String,
    /// The key's file.
    pub key: PathBuf,
    /// Seconds since it was opened.
    pub age: u64,
    /// Seconds since it was last used; none while it is lent, or being opened.
    pub idle: Option<u64>,
}

/// The bytes of a message.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= LONGEST);
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

/// Reads one message and not a byte more: frames may follow.
pub(super) async fn read<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let length = reader.read_u32().await?;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    reader.take(length.into()).read_to_end(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}
