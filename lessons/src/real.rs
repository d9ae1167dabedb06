//! A real labshd and a real labsh: a lesson watches them, and knows neither.

use std::fmt::Debug;
use std::net::SocketAddr;

/// What the program brings along for the lesson `wire`.
pub trait RealSession: Debug + Send + Sync {
    /// Where a labshd listens in plain mode, on loopback.
    fn labshd(&self) -> SocketAddr;

    /// Connects to this address as labsh does, runs one line in the shell over there, and closes
    /// the connection.
    ///
    /// # Errors
    /// What labsh would say.
    fn run(&self, address: SocketAddr, line: &str) -> Result<Ran, String>;
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// Its exit code; none where a signal ended it.
    pub code: Option<u8>,
}
