//! A server inside another program: on loopback, with one key, without any file.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use labsh_proto::auth::Mode;
use labsh_proto::key::HostKey;

use crate::config::Config;
use crate::keyring::Keyring;
use crate::listen_address::ListenAddress;
use crate::reload::Settings;
use crate::server::Server;
use crate::spawner;

/// Forks the spawner, and returns a future that starts the rest of the server inside a runtime and
/// returns its address. The server runs as long as that runtime.
///
/// # Errors
///
/// When the spawner cannot be forked: this process must not have a second thread yet. The future
/// fails when no port can be bound.
pub fn prepare(
    key: HostKey,
    mode: Mode,
) -> anyhow::Result<impl Future<Output = anyhow::Result<SocketAddr>> + Send> {
    let spawner = spawner::launch().context("cannot start the spawner")?;
    let listen = vec![ListenAddress::Tcp { host: "127.0.0.1".into(), port: 0, mode }];
    let mut config = Config { listen, ..Config::beside(Path::new("")) };
    // The subsystem would execute this process's program, which is not labshd.
    config.subsystems.remove(labsh_copy::SUBSYSTEM);
    Ok(async move {
        let settings = Settings::new(config, Keyring::of_one(key));
        let server = Server::start(settings, spawner).await?;
        server.addresses().first().copied().context("no address is bound")
    })
}
