//! What can go wrong between asking for a command and knowing how it ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::error::ProtocolError;
use labsh_proto::key::{HostId, KeyId};
use labsh_proto::message::{BadCommand, Refuse, Stream};

/// No session came about. No command was started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// No connection to that address.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// Where to.
        address: String,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// The time allowed was not enough.
    #[error("no answer from {address} within {}", humantime::format_duration(*.after))]
    Timeout {
        /// Where to.
        address: String,
        /// The time allowed.
        after: Duration,
    },
    /// The server could not show the key of this pair: nothing was said to it.
    #[error(
        "{address} is not the host {host_id} of key {key_id}: another machine, a key that is not \
         enrolled there, \
         or someone in between"
    )]
    WrongServer {
        /// Where to.
        address: String,
        /// The key.
        key_id: KeyId,
        /// The host id that was expected.
        host_id: HostId,
    },
    /// A TLS client on a plain port.
    #[error("{address} speaks labsh's plain mode, without encryption")]
    PortIsPlain {
        /// Where to.
        address: String,
    },
    /// A plain client on a TLS port, or no labshd at all.
    #[error("{address} does not speak labsh: it answered {answer:?}")]
    Foreign {
        /// Where to.
        address: String,
        /// Its first bytes.
        answer: String,
    },
    /// The server refuses the connection and says why.
    #[error("{address} refuses: {}", .refuse.reason)]
    Refused {
        /// Who.
        address: String,
        /// Reason and remedy.
        refuse: Refuse,
    },
    /// The connection broke before authentication was over.
    #[error("the connection to {address} broke during authentication: {source}")]
    Broken {
        /// Where to.
        address: String,
        /// How.
        source: Arc<io::Error>,
    },
    /// The server breaks the protocol.
    #[error("{address} breaks the protocol: {error}")]
    Protocol {
        /// Who.
        address: String,
        /// Which rule.
        error: ProtocolError,
    },
}

impl ConnectError {
    /// What to do next, for the person at the client.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreachable { address, .. } if address.starts_with("unix:") => {
                "check the path, and that labshd runs here and listens on it".into()
            }
            Self::Unreachable { .. } => {
                "check the name, the port, and that labshd runs there".into()
            }
            Self::Timeout { .. } => {
                "check that the machine is up and that labshd listens there, or allow more with \
                 --connect-timeout"
                    .into()
            }
            Self::WrongServer { key_id, host_id, .. } => format!(
                "check the address and --host-id, and over there `labshd key list`; to enrol: \
                 labsh key enroll {key_id} --host {host_id}"
            ),
            Self::PortIsPlain { .. } => "use its TLS port, or say --plain where nobody can listen \
                in"
            .into(),
            Self::Foreign { .. } => "check the port".into(),
            Self::Refused { refuse, .. } => refuse.remedy.clone(),
            Self::Broken { .. } => "try again; labshd's log over there may say more".into(),
            Self::Protocol { .. } => "use the same version on both ends".into(),
        }
    }
}

/// No signal that a command can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no signal; a signal is a number from 1 to 31")]
pub struct BadSignal(pub u8);

/// A command did not run, or its end is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// It cannot be sent. Nothing was started.
    #[error(transparent)]
    Bad(#[from] BadCommand),
    /// The server refused it. Nothing was started.
    #[error("{}", .0.reason)]
    Refused(Refuse),
    /// The connection was refused or lost before the command was known to have started.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection was lost; what became of the command is not known.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// What it was to read could not be read here, so it was not left to finish.
    #[error("cannot read standard input: {0}")]
    Input(Arc<io::Error>),
    /// The command ended, but its output did not arrive whole.
    #[error("{stream} is incomplete: {received} of {sent} bytes arrived")]
    Incomplete {
        /// Which stream.
        stream: Stream,
        /// Bytes that arrived.
        received: u64,
        /// Bytes that the server sent.
        sent: u64,
    },
    /// All channel ids of this session were used.
    #[error("this session has no channel ids left; open another")]
    Exhausted,
}
