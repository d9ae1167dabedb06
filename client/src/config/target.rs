//! Targets: the names by which users refer to hosts.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use labsh_diagnostics::characters::is_unseen;
use labsh_proto::key::{BadId, HostId};

/// The port that labshd listens on by default.
pub const DEFAULT_PORT: u16 = 5274;

/// The longest path of a unix socket on Linux, in bytes (`sun_path` without its terminating NUL).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The host of a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name or an IP address, in lower case; an IPv6 address in its shortest form, without
    /// brackets.
    Name(String),
    /// A unix socket on this machine.
    Unix(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => formatter.write_str(name),
            Host::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// A host as the command line names it: `host`, `host:port`, `[v6]:port`, a bare IPv6
/// address, or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port, if the target names one.
    pub port: Option<u16>,
    host_id: HostId,
}

impl Target {
    /// Returns the default host id: the host in lower case, without port and brackets.
    ///
    /// For `unix:/path` it is `localhost`, whatever the path and the name of this machine: the
    /// socket is always on this machine, where a key is enrolled once.
    pub fn default_host_id(&self) -> &HostId {
        &self.host_id
    }
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// The text is empty.
    #[error("the target is empty; name a host, like lab07, lab07:5300 or unix:/run/labsh.sock")]
    Empty,
    /// Other programs would take the text for an option.
    #[error("a target cannot begin with '-'; options come before the target")]
    Dash,
    /// The text contains a blank, a control character, an invisible character, one that changes the
    /// direction of writing, or bytes that are not UTF-8.
    #[error("a target cannot contain {0:?}")]
    Character(char),
    /// The text is a set of hosts, and one host is expected.
    #[error("this is a set of hosts; name one host here")]
    Set,
    /// The text is `user@host`, as for ssh.
    #[error(
        "the client cannot choose the user: the key's entry on the host decides it; write {host} \
         (and choose the key with --key)"
    )]
    User {
        /// The part before the `@`.
        user: String,
        /// The part after the `@`.
        host: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} is not a port; a port is a number from 1 to 65535")]
    Port(String),
    /// There are several colons, but the text is not an IPv6 address.
    #[error("with several colons it must be an IPv6 address; write host:port or [address]:port")]
    Colons,
    /// Brackets do not enclose an IPv6 address.
    #[error("brackets enclose an IPv6 address, as in [::1] or [::1]:5300")]
    Brackets,
    /// The text is not `unix:` and an absolute path that fits into a socket's address.
    #[error(
        "a unix socket is written unix:/path, with an absolute path of at most \
         {MAX_SOCKET_PATH_BYTES} bytes"
    )]
    Socket,
    /// The host's name is not a valid host id.
    #[error("the host's name is not valid: {0}")]
    Name(BadId),
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        if text.is_empty() {
            return Err(BadTarget::Empty);
        }
        if text.starts_with('-') {
            return Err(BadTarget::Dash);
        }
        if let Some(bad) =
            text.chars().find(|c| is_unseen(*c) || c.is_whitespace() || *c == '\u{fffd}')
        {
            return Err(BadTarget::Character(bad));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > MAX_SOCKET_PATH_BYTES {
                return Err(BadTarget::Socket);
            }
            let host_id = HostId::new("localhost").map_err(BadTarget::Name)?;
            return Ok(Self { host: Host::Unix(PathBuf::from(path)), port: None, host_id });
        }
        if text.starts_with('@') || text.contains([',', '!', '&', '^', '*']) || has_range(text) {
            return Err(BadTarget::Set);
        }
        if let Some((user, host)) = text.rsplit_once('@') {
            return Err(BadTarget::User { user: user.to_owned(), host: host.to_owned() });
        }
        let (name, port) = split(text)?;
        let host_id = HostId::new(&name).map_err(BadTarget::Name)?;
        let port = port
            .map(|text| parse_port(text).map_err(|_| BadTarget::Port(text.to_owned())))
            .transpose()?;
        Ok(Self { host: Host::Name(host_id.as_str().to_owned()), port, host_id })
    }
}

/// Whether a text has a range in brackets, as sets have. At the start, brackets with colons enclose
/// an IPv6 address, and a name in brackets is taken for a misspelt one.
pub fn has_range(text: &str) -> bool {
    text.match_indices('[').any(|(at, _)| {
        let inside = text[at + 1..].split(']').next().unwrap_or_default();
        match &text[..at] {
            "" => !inside.contains(':') && !inside.starts_with(char::is_alphabetic),
            before => !(before.ends_with('@') && inside.contains(':')),
        }
    })
}

/// Splits a target into its host and its port.
fn split(text: &str) -> Result<(String, Option<&str>), BadTarget> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, suffix) = rest.split_once(']').ok_or(BadTarget::Brackets)?;
        let address = normalize_ipv6(address).ok_or(BadTarget::Brackets)?;
        return match suffix.strip_prefix(':') {
            Some(port) => Ok((address, Some(port))),
            None if suffix.is_empty() => Ok((address, None)),
            None => Err(BadTarget::Brackets),
        };
    }
    if let Some(address) = normalize_ipv6(text) {
        return Ok((address, None));
    }
    match text.split_once(':') {
        None => Ok((text.to_owned(), None)),
        Some((_, port)) if port.contains(':') => Err(BadTarget::Colons),
        Some((name, port)) => Ok((name.to_owned(), Some(port))),
    }
}

/// Returns an IPv6 address in its shortest form (RFC 5952) with its zone, so that the host id does
/// not depend on the spelling.
fn normalize_ipv6(text: &str) -> Option<String> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    Some(zone.map_or(address.to_string(), |zone| format!("{address}%{zone}")))
}

/// A text that is not a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a port is a number from 1 to 65535")]
pub struct BadPort;

/// Reads a port from 1 to 65535.
pub fn parse_port(text: &str) -> Result<u16, BadPort> {
    // `parse` would accept a sign as well.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or(BadPort)
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Name(name), Some(port)) if name.contains(':') => {
                write!(formatter, "[{name}]:{port}")
            }
            (host, Some(port)) => write!(formatter, "{host}:{port}"),
            (host, None) => host.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Target {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn every_form_of_a_target_is_parsed_and_displayed() {
        for (text, host, port, host_id, shown) in [
            ("lab07", "lab07", None, "lab07", "lab07"),
            (
                "Lab07.Example:5300",
                "lab07.example",
                Some(5300),
                "lab07.example",
                "lab07.example:5300",
            ),
            ("10.0.0.7:1", "10.0.0.7", Some(1), "10.0.0.7", "10.0.0.7:1"),
            ("::1", "::1", None, "::1", "::1"),
            ("[::1]", "::1", None, "::1", "::1"),
            (
                "[2001:DB8:0::7]:65535",
                "2001:db8::7",
                Some(65535),
                "2001:db8::7",
                "[2001:db8::7]:65535",
            ),
            ("fe80::1%eth0", "fe80::1%eth0", None, "fe80::1%eth0", "fe80::1%eth0"),
            ("[fe80::1%eth0]:22", "fe80::1%eth0", Some(22), "fe80::1%eth0", "[fe80::1%eth0]:22"),
        ] {
            let target = parse(text);
            assert_eq!(target.host, Host::Name(host.to_owned()), "{text}");
            assert_eq!(target.port, port, "{text}");
            assert_eq!(target.default_host_id().as_str(), host_id, "{text}");
            assert_eq!(target.to_string(), shown);
            assert_eq!(parse(shown), target, "{shown} reads back");
        }
    }

    #[test]
    fn a_unix_socket_is_this_machine() {
        let target = parse("unix:/run/Lab@7:x.sock");
        assert_eq!(target.host, Host::Unix(PathBuf::from("/run/Lab@7:x.sock")));
        assert_eq!(target.port, None);
        assert_eq!(target.default_host_id().as_str(), "localhost");
        assert_eq!(target.to_string(), "unix:/run/Lab@7:x.sock");
    }

    #[test]
    fn texts_that_are_ambiguous_or_unsafe_are_refused() {
        for (text, error) in [
            ("", BadTarget::Empty),
            ("-oProxyCommand=x", BadTarget::Dash),
            ("lab 07", BadTarget::Character(' ')),
            ("lab07\n", BadTarget::Character('\n')),
            ("lab\x1b[2J", BadTarget::Character('\x1b')),
            ("lab\u{a0}07", BadTarget::Character('\u{a0}')),
            ("lab\u{202e}07", BadTarget::Character('\u{202e}')),
            ("lab07\u{200b}", BadTarget::Character('\u{200b}')),
            ("unix:/run/\u{2066}s", BadTarget::Character('\u{2066}')),
            ("lab07:", BadTarget::Port(String::new())),
            ("lab07:0", BadTarget::Port("0".into())),
            ("lab07:+22", BadTarget::Port("+22".into())),
            ("lab07:65536", BadTarget::Port("65536".into())),
            ("lab07:ssh", BadTarget::Port("ssh".into())),
            (":22", BadTarget::Name(BadId::Empty)),
            ("lab07:22:33", BadTarget::Colons),
            ("[lab07]:22", BadTarget::Brackets),
            ("@lab-a", BadTarget::Set),
            ("lab[01-40]", BadTarget::Set),
            ("lab01,lab02", BadTarget::Set),
            ("[01-02]node", BadTarget::Set),
            ("[1]", BadTarget::Set),
            ("lab[01:40]", BadTarget::Set),
            ("root@[::1]", BadTarget::User { user: "root".into(), host: "[::1]".into() }),
            ("[::1", BadTarget::Brackets),
            ("[::1]22", BadTarget::Brackets),
            ("lab0*:22", BadTarget::Set),
            ("lab01,lab02:22", BadTarget::Set),
            ("[::1]:x", BadTarget::Port("x".into())),
            ("unix:", BadTarget::Socket),
            ("unix:run/labsh", BadTarget::Socket),
        ] {
            assert_eq!(text.parse::<Target>(), Err(error), "{text:?}");
        }
        assert_eq!(format!("unix:/{}", "x".repeat(107)).parse::<Target>(), Err(BadTarget::Socket));
        assert!(matches!(
            "x".repeat(256).parse::<Target>(),
            Err(BadTarget::Name(BadId::Long { .. }))
        ));
    }

    #[test]
    fn a_user_before_the_host_is_refused_with_the_reason() {
        let error = "alice@lab07".parse::<Target>().unwrap_err();
        assert_eq!(error, BadTarget::User { user: "alice".into(), host: "lab07".into() });
        let text = error.to_string();
        assert!(text.contains("key's entry on the host") && text.contains("write lab07"), "{text}");
    }

    #[test]
    fn ports_are_plain_numbers() {
        assert_eq!(parse_port("5274"), Ok(5274));
        for text in ["", "0", "+1", "-1", "65536", "ssh"] {
            assert_eq!(parse_port(text), Err(BadPort), "{text}");
        }
    }
}
