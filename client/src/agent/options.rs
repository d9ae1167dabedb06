//! How a connection uses the agent.

use std::path::PathBuf;
use std::time::Duration;

use crate::agent::socket_path::SocketPath;

/// Asks the agent for an open session, and has it keep one for the next connection.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// The agent's socket.
    pub socket: SocketPath,
    /// The absolute path of the key file; the agent reads the key from it.
    pub key: PathBuf,
    /// How long the agent keeps a session that is not in use.
    pub keep: Duration,
    /// Whether to start an agent if none runs.
    pub start: bool,
}
