//! From a target and its flags to what a connection needs: address, key, agent.

use std::path;
use std::time::Duration;

use anyhow::Context;
use labsh_client::ConnectOptions;
use labsh_client::agent::{self, Keeper, Place};
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::config::target::Target;
use labsh_client::config::{Config, DEFAULT_KEEP, Resolved};
use labsh_client::keys::key_file;
use labsh_proto::auth::Mode;

use crate::flags::ConnectionFlags;

/// What flags, environment and files say about a target, with its key, and the user as whom
/// commands are expected to run.
pub(crate) fn connection(
    target: &Target,
    flags: &ConnectionFlags,
    user: Option<&str>,
) -> anyhow::Result<(ConnectOptions, Option<String>)> {
    let overrides = ConnectionOverrides { user: user.map(str::to_owned), ..flags.overrides() };
    let resolved = Config::load()?.resolve(target, &overrides)?;
    let user = resolved.route.user.clone();
    Ok((connect_options(resolved)?, user))
}

/// With the key that was resolved, which is read here.
pub(crate) fn connect_options(resolved: Resolved) -> anyhow::Result<ConnectOptions> {
    let Resolved { route, key } = resolved;
    // The agent has a directory of its own.
    let file = path::absolute(&key).context("cannot tell the current directory")?;
    let keeper = match route.keep {
        Some(Duration::ZERO) => None,
        Some(keep) => Some(Keeper { place: Place::of_user(), key: file, keep, starts: true }),
        // Unasked only where a login session says how long processes of the user's may stay.
        None => Place::of_login().map(|place| {
            let starts = !agent::in_a_service();
            Keeper { place, key: file, keep: DEFAULT_KEEP, starts }
        }),
    };
    Ok(ConnectOptions {
        keeper,
        intake: None,
        address: route.address,
        key: key_file::load(&key)?.for_host(&route.host_id),
        mode: if route.plain { Mode::Plain } else { Mode::Tls },
        timeout: route.connect_timeout,
        family: route.family,
    })
}
