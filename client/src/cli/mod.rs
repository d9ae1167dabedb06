//! The program `labsh`: from a command line to an exit status.

mod agent;
mod args;
mod console;
mod cp;
mod explain;
mod flags;
mod fleet;
mod hosts;
mod key;
mod last;
pub mod lesson;
mod man;
mod ping;
mod remote;
pub mod rsh;
mod run;
mod shell;
mod signals;
#[path = "try.rs"]
mod try_command;

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use labsh_proto::key::HostKey;

use crate::cli::lesson::options::LessonOptions;

/// What the client cannot bring along itself, for it knows neither the server nor the lessons; the
/// program hands it in.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Prepares a server on loopback that knows one key. Called while the process has one thread;
    /// the future starts the server and gives its address.
    pub server: fn(HostKey) -> anyhow::Result<StartServer>,
    /// Lists lessons or gives them; an error is one of wrong use.
    pub lesson: fn(LessonOptions) -> anyhow::Result<ExitCode>,
}

/// Starts a server that was prepared; needs a runtime with more than one thread.
pub type StartServer = Pin<Box<dyn Future<Output = anyhow::Result<SocketAddr>> + Send>>;

/// Carries out the command line of labsh and returns its exit status.
pub fn main(embedded: Embedded) -> ExitCode {
    args::main(embedded)
}
