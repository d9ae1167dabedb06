//! `labsh ping`: measures how long a host takes to authenticate a key and to answer.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use labsh_client::config::target::Target;
use labsh_client::terminal_text::escape;
use labsh_client::{CommandError, ConnectError, ConnectOptions, Session};

use crate::console::{CONNECTION_FAILED, REFUSED, note, print};
use crate::flags::ConnectionFlags;
use crate::remote::connection::connection;

/// Measure how long a host takes to answer
#[derive(Debug, Clone, Args)]
#[command(mut_arg("keep", |arg| arg.hide(true)))]
pub(crate) struct PingOptions {
    /// How many times to ask
    #[arg(short, long, value_name = "COUNT", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// How to reach the host.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// The host.
    #[arg(value_name = "TARGET", help_heading = "Arguments")]
    #[arg(help = "The host: name, name:port, [IPv6]:port or unix:/path")]
    pub target: Target,
}

/// Connects, then asks repeatedly; prints a line for each.
pub(crate) fn execute(options: PingOptions) -> anyhow::Result<ExitCode> {
    let (connection, _) = connection(&options.target, &options.connection, None)?;
    // The measurement includes connecting.
    let connection = ConnectOptions { agent: None, ..connection };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(ask(&connection, options.count));
    // A thread may wait for the resolver long after the timeout for connecting.
    runtime.shutdown_background();
    code
}

async fn ask(connection: &ConnectOptions, count: u32) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let session = match Session::connect(connection).await {
        Ok(session) => session,
        Err(error) => {
            note(&format!("{error}; {}", error.remedy()));
            let refused = matches!(error, ConnectError::Refused { .. });
            return Ok(ExitCode::from(if refused { REFUSED } else { CONNECTION_FAILED }));
        }
    };
    let (key, address) = (&connection.key, &connection.address);
    let (key_id, host_id) = (key.key_id(), escape(key.host_id().as_str()));
    let took = milliseconds(start.elapsed());
    print(
        format!("{address}: key {key_id}, host id {host_id}: authenticated in {took}\n").as_bytes(),
    )?;
    for number in 1..=count {
        match session.ping().await {
            Ok(took) => {
                print(format!("{address}: answer {number} in {}\n", milliseconds(took)).as_bytes())?
            }
            Err(error @ (CommandError::Lost(_) | CommandError::Connect(_))) => {
                note(&error.to_string());
                return Ok(ExitCode::from(CONNECTION_FAILED));
            }
            Err(error) => return Err(error.into()),
        }
    }
    session.close().await;
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
