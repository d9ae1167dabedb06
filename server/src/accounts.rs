//! The user of an entry's commands, looked up for each connection and each command: accounts change
//! while sessions are open.

use std::sync::Arc;

use labsh_proto::message::{Refuse, RefuseCode};
use nix::unistd::geteuid;
use tokio::time::timeout;

use crate::entry::Entry;
use crate::shared::Shared;
use crate::users::{User, UserError};

/// Returns the name of the user that labshd changes to for an entry's commands; `None` if it runs
/// them as itself, as an ordinary user does.
pub(crate) fn other_user(entry: &Entry) -> Option<&str> {
    entry.user.as_deref().filter(|_| geteuid().is_root())
}

/// Looks up the user that an entry's commands run as, as the account is now or was within the last
/// second. The error is the refusal of the connection or the command.
pub(crate) async fn user_of(shared: &Arc<Shared>, entry: &Entry) -> Result<User, Refuse> {
    let name = other_user(entry).map(str::to_owned);
    if let Some(user) = shared.user_cache.find(name.as_deref()) {
        return Ok(user);
    }
    // The user database may be on the network.
    let looked_up = tokio::task::spawn_blocking({
        let shared = shared.clone();
        move || shared.user_cache.look_up(name)
    });
    match timeout(shared.config().authentication_deadline, looked_up).await {
        Ok(Ok(Ok(user))) => Ok(user),
        Ok(Ok(Err(error @ UserError::NoDescriptors { .. }))) => {
            let remedy =
                "try again later, or start labshd with a higher limit on open files (ulimit -n)";
            Err(Refuse::new(RefuseCode::BUSY, error.to_string(), remedy))
        }
        Ok(Ok(Err(error))) => {
            let remedy = "ask the administrator of that host";
            Err(Refuse::new(RefuseCode::NOT_PERMITTED, error.to_string(), remedy))
        }
        Ok(Err(error)) => Err(Refuse::new(RefuseCode::INTERNAL, error.to_string(), "try again")),
        Err(_) => {
            let reason = "that host's user database does not respond";
            Err(Refuse::new(
                RefuseCode::INTERNAL,
                reason,
                "try again, or report it to that host's administrator",
            ))
        }
    }
}
