//! The errors of connecting and of running a command.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::error::ProtocolError;
use labsh_proto::key::{HostId, KeyId};
use labsh_proto::message::{BadCommand, Refuse, Stream};

/// Why there is no session. No command was started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be reached.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// The address.
        address: String,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// This process cannot open another connection.
    #[error("cannot open a connection to {address}: {source}")]
    TooManyFiles {
        /// The address.
        address: String,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// The time limit passed before authentication was complete.
    #[error("no answer from {address} within {}", humantime::format_duration(*.after))]
    Timeout {
        /// The address.
        address: String,
        /// The time limit.
        after: Duration,
    },
    /// The server did not prove that it holds the key. It was sent no command.
    #[error(
        "{address} is not the host {host_id} of key {key_id}: it is another machine, the key is \
         not enrolled there, or someone is in between"
    )]
    WrongServer {
        /// The address.
        address: String,
        /// The key.
        key_id: KeyId,
        /// The expected host id.
        host_id: HostId,
    },
    /// The port speaks plain mode, and the client expected TLS.
    #[error("{address} speaks labsh's plain mode, without encryption")]
    PortIsPlain {
        /// The address.
        address: String,
    },
    /// The port speaks TLS where the client expected plain mode, or is not labshd's at all.
    #[error("{address} does not speak labsh: it answered {answer:?}")]
    Foreign {
        /// The address.
        address: String,
        /// The first bytes that it sent.
        answer: String,
    },
    /// The server refused the connection.
    #[error("{address} refuses: {}", .refuse.reason)]
    Refused {
        /// The address.
        address: String,
        /// The server's reason and remedy.
        refuse: Refuse,
    },
    /// The connection broke before authentication was complete.
    #[error("the connection to {address} broke during authentication: {source}")]
    Broken {
        /// The address.
        address: String,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// The server has authenticated this client, and then did not answer in time.
    #[error("{address} gave no answer within {}", humantime::format_duration(*.after))]
    Silent {
        /// The address.
        address: String,
        /// The time limit.
        after: Duration,
    },
    /// The connection ended after authentication, while no command ran on it.
    #[error("the connection to {address} was lost: {reason}")]
    Lost {
        /// The address.
        address: String,
        /// How it ended.
        reason: String,
    },
    /// The server broke the protocol.
    #[error("{address} breaks the protocol: {error}")]
    Protocol {
        /// The address.
        address: String,
        /// The rule that it broke.
        error: ProtocolError,
    },
}

impl ConnectError {
    /// Returns what the user can do next, in a few words.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreachable { address, .. } if address.starts_with("unix:") => {
                "check the path, and that labshd runs here and listens on it".into()
            }
            Self::Unreachable { .. } => {
                "check the name, the port, and that labshd runs there".into()
            }
            Self::TooManyFiles { .. } => "this machine's limit of open files is reached: raise it \
                (ulimit -n), or use fewer hosts at a time (--parallel, --connecting)"
                .into(),
            Self::Silent { .. } => "its labshd is stopped or overloaded: look at it on the host, \
                or allow more time with --connect-timeout"
                .into(),
            Self::Timeout { .. } => "check that the machine is up and that labshd listens there, \
                or allow more time with --connect-timeout"
                .into(),
            Self::WrongServer { key_id, host_id, .. } => format!(
                "check the address and --host-id, and run `labshd key list` on the host; to \
                 enrol: labsh key enroll {key_id} --host {host_id}"
            ),
            Self::PortIsPlain { .. } => {
                "use its TLS port, or --plain on a network that cannot be tapped".into()
            }
            Self::Foreign { .. } => "check the port".into(),
            Self::Refused { refuse, .. } => refuse.remedy.clone(),
            Self::Broken { .. } => "try again; the host may have too many connections, and \
                labshd's log there may say more"
                .into(),
            Self::Lost { .. } => "try again; labshd's log on the host may say more".into(),
            Self::Protocol { .. } => "use the same version on both ends".into(),
        }
    }
}

/// A number that is not a signal that can be sent to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a signal; a signal is a number from 1 to 31")]
pub struct BadSignal(pub u8);

/// Why a command did not run, or why its outcome is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// The request cannot be sent. Nothing was started.
    #[error(transparent)]
    Bad(#[from] BadCommand),
    /// The server refused the request. Nothing was started.
    #[error("{}", .0.reason)]
    Refused(Refuse),
    /// The connection was refused or lost before the server reported that the command started.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection was lost; the outcome of the command is not known.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The command's input could not be read on this side, so the host was left to end the command.
    #[error("cannot read standard input: {0}")]
    Input(Arc<io::Error>),
    /// The command ended, but not all of its output arrived.
    #[error("{stream} is incomplete: {received} of {sent} bytes arrived")]
    Incomplete {
        /// The stream.
        stream: Stream,
        /// The bytes that arrived.
        received: u64,
        /// The bytes that the server sent.
        sent: u64,
    },
    /// Every channel id of this session was used.
    #[error("this session has no channel ids left; open another")]
    Exhausted,
}
