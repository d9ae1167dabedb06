//! The account that labshd runs as, and whether the accounts that entries name exist.

use nix::unistd::{User, geteuid};

use crate::diagnostics::Problem;

/// The account that labshd runs as. It decides which users commands can run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunsAs {
    /// Root: every entry names the user of its commands.
    Root,
    /// This user, who also runs all commands.
    User(String),
}

/// Checks that a user exists. The error is a sentence for the administrator.
pub type UserExists<'a> = &'a dyn Fn(&str) -> Result<(), String>;

impl RunsAs {
    /// Returns the account of this process: its name, or its number if it has no name.
    pub fn current() -> Self {
        let uid = geteuid();
        if uid.is_root() {
            return Self::Root;
        }
        let user = User::from_uid(uid).ok().flatten();
        Self::User(user.map_or_else(|| uid.to_string(), |user| user.name))
    }

    /// Checks that an entry may name this user, or none.
    pub(crate) fn check(&self, user: Option<&str>) -> Result<(), Problem> {
        match (self, user) {
            (Self::Root, None) => Err(Problem::new(
                "user is missing: labshd runs as root here, so the entry must name the user that \
                 runs this key's commands",
                "add a line like: user = \"alice\"",
            )),
            (Self::User(own), Some(user)) if user != own => Err(Problem::new(
                format!("labshd runs as {own} here and cannot run commands as {user:?}"),
                format!("remove the line, write {own:?}, or run labshd as root"),
            )),
            _ => Ok(()),
        }
    }
}

/// Looks a user up in the user database, for [`UserExists`].
pub fn user_exists(name: &str) -> Result<(), String> {
    match User::from_name(name) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("there is no user {name:?}")),
        Err(error) => Err(format!("cannot look up the user {name:?}: {error}")),
    }
}
