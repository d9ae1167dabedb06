//! `labsh run`: one command on one host.

use std::process::ExitCode;

use labsh_proto::auth::Mode;
use labsh_proto::key::HostKey;
use labsh_proto::message::Program;

use crate::cli::options::{CommandOptions, ConnectionFlags, RunOptions};
use crate::cli::outcome::{self, Outcome};
use crate::cli::{note, remote};
use crate::config::Config;
use crate::connect::ConnectOptions;
use crate::error::CommandError;
use crate::key_file;
use crate::session::Session;
use crate::target::Target;

/// Runs it and returns the exit status that `labsh run --help` documents.
pub fn execute(options: RunOptions) -> anyhow::Result<ExitCode> {
    let program = options.program();
    outcome::check_status_fd(&options.command)?;
    let connection = connection(&options.remote.target, &options.connection)?;
    // One thread drives everything that waits; the streams have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(run(&connection, &program, &options.command));
    // A thread may sit in a read of our stdin for ever.
    runtime.shutdown_background();
    Ok(code)
}

/// Connects, runs one command, and tells how it ended.
pub(crate) async fn run(
    connection: &ConnectOptions,
    program: &Program,
    options: &CommandOptions,
) -> ExitCode {
    let session = match Session::connect_early(connection).await {
        Ok(session) => session,
        Err(error) => return Outcome::Failed(CommandError::Connect(error)).report(options, program, false),
    };
    if options.verbose {
        let key = &connection.key;
        note(&format!(
            "connected to {}, key {}, host id {}",
            connection.address,
            key.key_id(),
            key.host_id()
        ));
    }
    let end = remote::carry(&session, program, options).await;
    let code = end.outcome.report(options, program, end.stdout_closed);
    session.close().await;
    code
}

/// What flags, environment and files say about a target, with its key.
pub(crate) fn connection(target: &Target, flags: &ConnectionFlags) -> anyhow::Result<ConnectOptions> {
    let resolved = Config::load()?.resolve(target, &flags.choices())?;
    let key: HostKey = key_file::load(&resolved.key)?.for_host(&resolved.host_id);
    Ok(ConnectOptions {
        address: resolved.address,
        key,
        mode: if resolved.plain { Mode::Plain } else { Mode::Tls },
        timeout: resolved.connect_timeout,
    })
}
