//! The labshd and the labsh that the lesson `wire` watches: this program's own, in plain mode on
//! loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use labsh_client::proto::auth::Mode;
use labsh_client::proto::key::{HostId, HostKey, Key, KeyId, Secret};
use labsh_client::{Address, CommandError, ConnectOptions, Session};
use labsh_lessons::{Ran, RealSession};
use tokio::runtime::{Builder, Runtime};

#[derive(Debug)]
struct Real {
    runtime: Runtime,
    address: SocketAddr,
    key: HostKey,
}

/// Starts the labshd; while this process has one thread, for its spawner is forked from it.
pub(crate) fn start() -> anyhow::Result<Arc<dyn RealSession>> {
    let secret = Secret::new(labsh_transport::random::bytes());
    let key = Key::new(KeyId::new("lesson")?, secret).for_host(&HostId::new("localhost")?);
    let server = labsh_server::embedded::prepare(key.clone(), Mode::Plain)?;
    let runtime =
        Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")?;
    let address = runtime.block_on(server)?;
    Ok(Arc::new(Real { runtime, address, key }))
}

impl RealSession for Real {
    fn labshd(&self) -> SocketAddr {
        self.address
    }

    fn run(&self, address: SocketAddr, line: &str) -> Result<Ran, String> {
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        let options =
            ConnectOptions { mode: Mode::Plain, ..ConnectOptions::new(address, self.key.clone()) };
        let output = self.runtime.block_on(async {
            let session = Session::connect(&options).await.map_err(CommandError::Connect)?;
            let output = session.shell(line).output().await;
            session.close().await;
            output
        });
        let output = output.map_err(|error| error.to_string())?;
        Ok(Ran { stdout: output.stdout, code: output.status.code() })
    }
}
