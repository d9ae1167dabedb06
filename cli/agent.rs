//! `labsh agent`: lists the connections that the agent keeps, stops it, or runs it.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use labsh_client::agent::{self, AgentClient, PooledSession, SocketError, SocketPath};
use labsh_client::terminal_text::escape;

use crate::console::{note, print};

/// The exit status of `status` when no agent runs, as for services (LSB).
const NOT_RUNNING: u8 = 3;

/// The subcommands of `labsh agent`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum AgentAction {
    /// List the connections that are kept
    List,
    /// Say whether it runs; the exit status is 3 where it does not
    Status,
    /// End it, once the commands that go through it have ended
    Stop,
    /// Run the agent; labsh starts it by itself
    #[command(hide = true)]
    Serve,
}

/// Carries out a subcommand and returns the exit status that `labsh agent --help` documents.
pub(crate) fn execute(action: AgentAction) -> anyhow::Result<ExitCode> {
    let socket = SocketPath::of_user();
    if matches!(action, AgentAction::Serve) {
        return agent::serve(&socket).map(|()| ExitCode::SUCCESS);
    }
    let runtime = labsh_transport::runtime::current_thread()?;
    runtime.block_on(async {
        let mut agent = match AgentClient::connect(&socket).await {
            Ok(agent) => agent,
            Err(error) => {
                let asked = matches!(action, AgentAction::Status);
                match error {
                    // No agent runs.
                    SocketError::System { .. } if asked => {
                        note(
                            "no agent runs; one starts with the next command that keeps its \
                            connection (--keep 5m)",
                        );
                    }
                    SocketError::System { .. } => {}
                    error => note(&format!("no agent can run: {error}")),
                }
                return Ok(if asked { ExitCode::from(NOT_RUNNING) } else { ExitCode::SUCCESS });
            }
        };
        let silent = "the agent does not answer; `labsh run` works without it";
        match action {
            AgentAction::List => {
                let (_, sessions) = agent.list().await.context(silent)?;
                print(table(&sessions).as_bytes())?;
            }
            AgentAction::Status => {
                let (pid, sessions) = agent.list().await.context(silent)?;
                let connections = if sessions.len() == 1 { "connection" } else { "connections" };
                print(format!("process {pid}, {} {connections}\n", sessions.len()).as_bytes())?;
            }
            AgentAction::Stop => agent.stop().await.context(silent)?,
            AgentAction::Serve => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn table(sessions: &[PooledSession]) -> String {
    let mut text = String::new();
    for PooledSession { address, host_id, key, age, idle } in sessions {
        let since = humantime::format_duration(Duration::from_secs(*age));
        let idle = idle.map_or("in use".to_owned(), |idle| {
            format!("idle for {}", humantime::format_duration(Duration::from_secs(idle)))
        });
        let key = key.file_stem().unwrap_or_default().to_string_lossy();
        let line = format!("{address}  host id {host_id}  key {key}  open for {since}, {idle}");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", escape(&line));
    }
    text
}
