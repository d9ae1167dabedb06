//! A server inside another program: loopback, one key, nothing on disk.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use anyhow::Context;
use labsh_proto::auth::Mode;
use labsh_proto::key::HostKey;

use crate::config::Config;
use crate::copying;
use crate::keyring::Keyring;
use crate::listen_address::ListenAddress;
use crate::server::Server;
use crate::spawner;

/// Starts the server that was prepared and gives its address.
pub type Start = Pin<Box<dyn Future<Output = anyhow::Result<SocketAddr>> + Send>>;

/// Starts the spawner, so the process must still have one thread; the future, inside a runtime,
/// starts the rest. The server lasts as long as the runtime.
pub fn prepare(key: HostKey, mode: Mode) -> anyhow::Result<Start> {
    let spawner = spawner::launch().context("cannot start the spawner")?;
    let listen = vec![ListenAddress::Tcp { host: "127.0.0.1".into(), port: 0, mode }];
    let mut config = Config { listen, ..Config::beside(Path::new("")) };
    // The program that runs here is not labshd.
    config.subsystems.remove(copying::SUBSYSTEM);
    Ok(Box::pin(async move {
        let server = Server::start(config, Keyring::of_one(key), spawner).await?;
        server.addresses().first().copied().context("no address is bound")
    }))
}
