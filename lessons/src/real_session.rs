//! The server and the client that the lesson `wire` watches.
//!
//! The program supplies both, so the lessons depend neither on the server nor on the client.

use std::net::SocketAddr;

/// Connects to this address as labsh does, runs one line in the remote shell and closes the
/// connection.
///
/// Fails with the message that labsh would print.
pub type RunLine = dyn Fn(SocketAddr, &str) -> Result<CommandOutput, String>;

/// A labshd, and a labsh that connects to it through any address.
pub struct RealSession {
    /// The address of a labshd in plain mode on loopback.
    pub server: SocketAddr,
    /// Runs a line through an address: the server's, or a proxy's in front of it.
    pub run_line: Box<RunLine>,
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// Its exit code; `None` if a signal ended it.
    pub exit_code: Option<u8>,
}
