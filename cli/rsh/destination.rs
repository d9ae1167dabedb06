//! Parses a destination: `[user@]HOST` or `ssh://[user@]HOST[:PORT]`.

use std::ffi::OsStr;

use labsh_client::config::target::{BadTarget, Target};

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// The user, if given.
    pub(crate) user: Option<String>,
    /// The host.
    pub(crate) target: Target,
}

/// Why a text is not a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDestination {
    /// The host is invalid.
    #[error("{0:?} is no host: {1}")]
    Host(String, BadTarget),
    /// The URL has a path.
    #[error("ssh://{0} holds a path; write ssh://[user@]host[:port]")]
    Path(String),
    /// The user is invalid.
    #[error(transparent)]
    User(#[from] BadUser),
}

/// The text is not a valid user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no user: a name is not empty, does not begin with '-' and holds neither blanks nor \
     control characters"
)]
pub(crate) struct BadUser(pub(crate) String);

impl Destination {
    /// Parses a destination. A host may have any form of a target: `HOST:PORT`, `[IPv6]:PORT`,
    /// `unix:/path`.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, BadDestination> {
        // Bytes that are not UTF-8 become U+FFFD, which targets and users reject.
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

/// Parses a user name. A leading dash is rejected: another program could take it for an option.
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
