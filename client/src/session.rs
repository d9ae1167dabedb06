//! A session with one labshd, on which any number of commands run.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::auth::Mode;
use labsh_proto::message::Program;
use tokio::time::{Instant, timeout, timeout_at};

use crate::agent::{self, Borrowed};
use crate::command::Command;
use crate::connect::{self, ConnectOptions};
use crate::connection::Connection;
use crate::error::{CommandError, ConnectError};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// An authenticated connection to one labshd; clones share it. It ends with the last clone and the
/// last [`crate::Child`].
#[derive(Debug, Clone)]
pub struct Session {
    connection: Arc<Connection>,
}

impl Session {
    /// Connects, and returns once the server has authenticated this client.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let session = Self::connect_early(options).await?;
        session.welcomed().await?;
        Ok(session)
    }

    /// Connects, and in TLS mode returns one round trip earlier: this client has authenticated the
    /// server, but the server has not authenticated this client yet. A first command travels
    /// together with the client's proof; a refusal of either is that command's error.
    pub async fn connect_early(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let keep_request = match agent::borrow(options).await {
            Some(Borrowed::Session(session)) => {
                return Ok(Self { connection: Arc::new(Connection::lent(session)) });
            }
            Some(Borrowed::None(keep_request)) => Some(keep_request),
            None => None,
        };
        let now = Instant::now();
        // A timeout that overflows `Instant` is treated as one year.
        let deadline = now.checked_add(options.timeout).unwrap_or(now + YEAR);
        let answered = timeout_at(deadline, connect::answer(options))
            .await
            .map_err(|_| connect::expired(options))??;
        let connection = Connection::authenticating(options, answered, deadline);
        if let Some(keep_request) = keep_request {
            connection.after_welcome(keep_request.send());
        }
        let session = Self { connection: Arc::new(connection) };
        if options.mode == Mode::Plain {
            // Without TLS, `welcome` is the server's first proof. No command is sent before it.
            session.welcomed().await?;
        }
        Ok(session)
    }

    /// Waits until the server has authenticated this client, or returns why it did not.
    pub async fn welcomed(&self) -> Result<(), ConnectError> {
        self.connection.server().await.map(drop)
    }

    /// Returns the server's name and version, such as `labshd 0.1.0`, once it has authenticated
    /// this client: 1 to 64 printable ASCII characters, or `None` from a server that does not send
    /// them.
    pub async fn server_version(&self) -> Result<Option<String>, ConnectError> {
        self.connection.server().await.map(|server| server.version)
    }

    /// Returns a command that runs a program with exact arguments, without a shell. The host looks
    /// the program up in its own PATH.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.program(Program::Argv(vec![program.as_ref().as_encoded_bytes().to_vec()]))
    }

    /// Returns a command that the user's shell on the host reads as one line.
    pub fn shell(&self, line: impl AsRef<OsStr>) -> Command {
        self.program(Program::Shell(line.as_ref().as_encoded_bytes().to_vec()))
    }

    /// Returns a command that is the user's shell on the host, as a login shell; it reads its
    /// commands from stdin or from its terminal.
    pub fn login_shell(&self) -> Command {
        self.program(Program::LoginShell)
    }

    /// Returns a command that runs the program that the server's configuration lists under this
    /// name, such as `sftp`.
    pub fn subsystem(&self, name: impl AsRef<OsStr>) -> Command {
        self.program(Program::Subsystem(name.as_ref().as_encoded_bytes().to_vec()))
    }

    /// Returns a command for a program in the protocol's own form.
    pub fn program(&self, program: Program) -> Command {
        Command::new(self.connection.clone(), program)
    }

    /// Asks the server to answer; returns the round-trip time.
    pub async fn ping(&self) -> Result<Duration, CommandError> {
        self.connection.ping().await
    }

    /// Asks the server to answer within the time that `options` allow for connecting; returns the
    /// round-trip time.
    pub async fn ping_in_time(&self, options: &ConnectOptions) -> Result<Duration, ConnectError> {
        let address = options.address.to_string();
        match timeout(options.timeout, self.ping()).await {
            Ok(Ok(round_trip)) => Ok(round_trip),
            Ok(Err(CommandError::Connect(error))) => Err(error),
            Ok(Err(CommandError::Lost(reason))) => Err(ConnectError::Lost { address, reason }),
            Ok(Err(error)) => Err(ConnectError::Lost { address, reason: error.to_string() }),
            Err(_) => Err(ConnectError::Silent { address, after: options.timeout }),
        }
    }

    /// Sends what is queued and ends the connection. The server ends the commands that still run,
    /// as when their client disappears.
    pub async fn close(self) {
        self.connection.close().await;
    }
}
