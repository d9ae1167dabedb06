//! Resolves a target and its flags to an address, a key and an agent.

use std::path;
use std::time::Duration;

use anyhow::Context;
use labsh_client::ConnectOptions;
use labsh_client::agent::{self, AgentOptions, SocketPath};
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::config::target::Target;
use labsh_client::config::{Config, DEFAULT_KEEP, Resolved, Route};
use labsh_client::fanout::Host;
use labsh_client::keys::key_file;
use labsh_proto::auth::Mode;
use labsh_proto::key::Key;

use crate::flags::ConnectionFlags;

/// Returns the target as a host: the settings of its connection, from flags, environment and files,
/// with its key, and the user as whom commands are expected to run.
pub(crate) fn host(
    target: &Target,
    flags: &ConnectionFlags,
    user: Option<&str>,
) -> anyhow::Result<Host> {
    let overrides = ConnectionOverrides { user: user.map(str::to_owned), ..flags.overrides() };
    let resolved = Config::load()?.resolve(target, &overrides)?;
    let user = resolved.route.user.clone();
    Ok(Host { name: target.to_string(), connection: connect_options(resolved)?, user })
}

/// Reads the key file and completes the settings of a connection.
pub(crate) fn connect_options(resolved: Resolved) -> anyhow::Result<ConnectOptions> {
    let Resolved { route, key: path } = resolved;
    let key = key_file::load(&path)?;
    // The agent has another working directory.
    let file = path::absolute(&path).context("cannot determine the current directory")?;
    let agent = match route.keep {
        Some(Duration::ZERO) => None,
        Some(keep) => {
            Some(AgentOptions { socket: SocketPath::of_user(), key: file, keep, start: true })
        }
        // Without a setting the agent is used only in a login session, which bounds the life of the
        // user's processes.
        None => SocketPath::of_login().map(|socket| {
            let start = !agent::in_a_service();
            AgentOptions { socket, key: file, keep: DEFAULT_KEEP, start }
        }),
    };
    Ok(ConnectOptions { agent, ..without_agent(route, &key) })
}

/// Returns the settings of a connection that no agent opens or keeps.
pub(crate) fn without_agent(route: Route, key: &Key) -> ConnectOptions {
    ConnectOptions {
        agent: None,
        read_limiter: None,
        address: route.address,
        key: key.for_host(&route.host_id),
        mode: if route.plain { Mode::Plain } else { Mode::Tls },
        timeout: route.connect_timeout,
        family: route.family,
    }
}
