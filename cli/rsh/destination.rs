//! `[user@]HOST` and `ssh://[user@]HOST[:PORT]`: who and where.

use std::ffi::OsStr;

use labsh_client::config::target::{BadTarget, Target};

/// Where to, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// As whom, if that was said.
    pub(crate) user: Option<String>,
    /// Where to.
    pub(crate) target: Target,
}

/// Why a text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDestination {
    /// The host.
    #[error("{0:?} is no host: {1}")]
    Host(String, BadTarget),
    /// More than a host.
    #[error("ssh://{0} holds a path; write ssh://[user@]host[:port]")]
    Path(String),
    /// The user.
    #[error(transparent)]
    User(#[from] BadUser),
}

/// Why a text is no user's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no user: a name is not empty, does not begin with '-' and holds neither blanks nor \
     control characters"
)]
pub(crate) struct BadUser(pub(crate) String);

impl Destination {
    /// Reads a destination. Hosts may also be written as labsh's targets are: `HOST:PORT`,
    /// `[IPv6]:PORT`, `unix:/path`.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, BadDestination> {
        // A byte that is no text becomes U+FFFD, which neither a target nor a user may hold.
        let text = text.to_string_lossy();
        let bare = match text.strip_prefix("ssh://") {
            Some(rest) => match rest.split_once('/') {
                Some((_, path)) if !path.is_empty() => {
                    return Err(BadDestination::Path(rest.to_owned()));
                }
                Some((bare, _)) => bare,
                None => rest,
            },
            None => &text,
        };
        let (user, host) = match bare.rsplit_once('@') {
            Some((name, host)) if !bare.starts_with("unix:") => (Some(user(name)?), host),
            _ => (None, bare),
        };
        let target = host.parse().map_err(|error| BadDestination::Host(host.to_owned(), error))?;
        Ok(Self { user, target })
    }
}

/// Reads a user's name: what begins with a dash could be an option of whatever program it is handed
/// to.
pub(crate) fn user(text: &str) -> Result<String, BadUser> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || c == '\u{fffd}';
    if text.is_empty() || text.starts_with('-') || text.contains(bad) {
        return Err(BadUser(text.to_owned()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn users_hosts_and_ports_are_found() {
        for (text, user, target) in [
            ("lab07", None, "lab07"),
            ("bob@lab07", Some("bob"), "lab07"),
            ("bob@realm@lab07", Some("bob@realm"), "lab07"),
            ("::1", None, "::1"),
            ("bob@[::1]", Some("bob"), "::1"),
            ("bob@[::1]:99", Some("bob"), "[::1]:99"),
            ("ssh://lab07", None, "lab07"),
            ("ssh://bob@lab07:99/", Some("bob"), "lab07:99"),
            ("ssh://[::1]:99", None, "[::1]:99"),
            ("unix:/run/a@b.sock", None, "unix:/run/a@b.sock"),
        ] {
            let found = Destination::parse(OsStr::new(text))
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(found.user.as_deref(), user, "{text}");
            assert_eq!(found.target, target.parse().unwrap(), "{text}");
        }
    }

    #[test]
    fn tricks_are_refused() {
        for text in [
            "",
            "-oProxyCommand=x",
            "bob@-host",
            "-bob@host",
            "@host",
            "bob@",
            "a b@h",
            "h\n",
            "a\0b",
            "x\0@h",
        ] {
            assert!(Destination::parse(OsStr::new(text)).is_err(), "{text:?}");
        }
        for text in ["ssh://", "ssh://h/path", "ssh://h:0", "ssh://-h", "ssh://h:22:33"] {
            assert!(Destination::parse(OsStr::new(text)).is_err(), "{text:?}");
        }
        assert!(Destination::parse(OsStr::from_bytes(b"b\xffb@h")).is_err());
        assert!(Destination::parse(OsStr::from_bytes(b"h\xff")).is_err());
    }
}
