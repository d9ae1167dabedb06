//! `labsh ping`: measures how long a host takes to authenticate a key and to answer.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use labsh_client::config::target::Target;
use labsh_client::fanout::{End, Host};
use labsh_client::terminal_text::escape;
use labsh_client::{CommandError, Session};
use labsh_proto::message::Program;

use crate::console::{note, print};
use crate::flags::ConnectionFlags;
use crate::json::{self, Event};
use crate::remote::{connection, outcome, record};

/// Measure how long a host takes to answer
#[derive(Debug, Clone, Args)]
#[command(mut_arg("keep", |arg| arg.hide(true)))]
pub(crate) struct PingOptions {
    /// How many times to ask
    #[arg(short, long, value_name = "COUNT", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Print a line of JSON for each answer, and one for the outcome
    #[arg(long)]
    pub json: bool,
    /// How to reach the host.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// The host.
    #[arg(value_name = "TARGET", help_heading = "Arguments")]
    #[arg(help = "The host: name, name:port, [IPv6]:port or unix:/path")]
    pub target: Target,
}

/// Connects, then asks repeatedly; prints a line for each answer.
pub(crate) fn execute(options: PingOptions) -> anyhow::Result<ExitCode> {
    let mut host = connection::host(&options.target, &options.connection, None)?;
    // The measurement includes connecting.
    host.connection.agent = None;
    let runtime = labsh_transport::runtime::current_thread()?;
    let code = runtime.block_on(ask(&host, &options));
    // A thread may wait for the resolver long after the timeout for connecting.
    runtime.shutdown_background();
    code
}

async fn ask(host: &Host, options: &PingOptions) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let error = match Session::connect(&host.connection).await {
        Ok(session) => {
            authenticated(host, options.json, start.elapsed())?;
            measure(host, options, session).await?
        }
        Err(error) => Some(CommandError::Connect(error)),
    };
    over(host, options.json, error, start.elapsed())
}

/// Asks, and prints the answers. Returns the error that ended this early.
async fn measure(
    host: &Host,
    options: &PingOptions,
    session: Session,
) -> anyhow::Result<Option<CommandError>> {
    for number in 1..=options.count {
        let took = match session.ping_in_time(&host.connection).await {
            Ok(took) => took,
            Err(error) => return Ok(Some(CommandError::Connect(error))),
        };
        let line = match options.json {
            true => Event::of_host("answer", &host.name)
                .with("number", number)
                .with("round_trip_ms", json::milliseconds(took))
                .line(),
            false => {
                format!("{}: answer {number} in {}\n", host.connection.address, milliseconds(took))
            }
        };
        print(line.as_bytes())?;
    }
    session.close().await;
    Ok(None)
}

fn authenticated(host: &Host, as_json: bool, took: Duration) -> anyhow::Result<()> {
    let (key, address) = (&host.connection.key, &host.connection.address);
    let line = match as_json {
        true => Event::of_host("authenticated", &host.name)
            .with_all(json::location(address))
            .with("key", key.key_id().as_str())
            .with("host_id", key.host_id().as_str())
            .with("authenticated_ms", json::milliseconds(took))
            .line(),
        false => {
            let (key_id, host_id) = (key.key_id(), escape(key.host_id().as_str()));
            let took = milliseconds(took);
            format!("{address}: key {key_id}, host id {host_id}: authenticated in {took}\n")
        }
    };
    print(line.as_bytes())
}

/// Reports an error, and the end as JSON; returns the exit status.
fn over(
    host: &Host,
    as_json: bool,
    error: Option<CommandError>,
    took: Duration,
) -> anyhow::Result<ExitCode> {
    let status = error.as_ref().map_or(0, outcome::exit_status);
    if as_json {
        let outcome = match &error {
            None => Event::new("over").with("outcome", "ok").with("exit_status", 0),
            Some(error) => {
                let end = End::of(error.clone());
                Event::new("over").with_all(record::of_host(&end, &Program::LoginShell, status))
            }
        };
        let line = outcome
            .with("host", host.name.as_str())
            .with_all(json::location(&host.connection.address))
            .with("duration_ms", json::milliseconds(took));
        print(line.line().as_bytes())?;
    } else if let Some(error) = error {
        note(&match &error {
            CommandError::Connect(connect) => format!("{error}; {}", connect.remedy()),
            _ => error.to_string(),
        });
    }
    Ok(ExitCode::from(status))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
