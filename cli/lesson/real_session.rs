//! A labshd and a labsh in plain mode on loopback, inside this program, for the lesson `wire`.

use std::net::SocketAddr;

use labsh_client::proto::auth::Mode;
use labsh_client::proto::key::{HostId, HostKey, Key, KeyId, Secret};
use labsh_client::{Address, CommandError, ConnectOptions, Session};
use labsh_lessons::{CommandOutput, RealSession};

/// Starts the labshd. The process must have one thread, because this forks the spawner.
pub(crate) fn start() -> anyhow::Result<RealSession> {
    let secret = Secret::new(labsh_transport::random::bytes());
    let key = Key::new(KeyId::new("lesson")?, secret).for_host(&HostId::new("localhost")?);
    let server = labsh_server::embedded::prepare(key.clone(), Mode::Plain)?;
    let runtime = labsh_transport::runtime::multi_thread(Some(2))?;
    let server = runtime.block_on(server)?;
    let run_line = move |address, line: &str| {
        let output = runtime.block_on(run_line(&key, address, line));
        output.map_err(|error| error.to_string())
    };
    Ok(RealSession { server, run_line: Box::new(run_line) })
}

async fn run_line(
    key: &HostKey,
    address: SocketAddr,
    line: &str,
) -> Result<CommandOutput, CommandError> {
    let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
    let options = ConnectOptions { mode: Mode::Plain, ..ConnectOptions::new(address, key.clone()) };
    let session = Session::connect(&options).await.map_err(CommandError::Connect)?;
    let output = session.shell(line).output().await;
    session.close().await;
    let output = output?;
    Ok(CommandOutput { stdout: output.stdout, exit_code: output.status.code() })
}
