//! Parses and formats the addresses that labshd listens on.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use labsh_proto::auth::Mode;

use crate::diagnostics::Problem;

/// The port if none is given.
pub(crate) const DEFAULT_PORT: u16 = 5274;

const PLAIN_PREFIX: &str = "plain://";
const UNIX_PREFIX: &str = "unix:";
/// Limit on the path of a unix socket, in bytes: `sun_path` of sockaddr_un without the final NUL.
const MAX_UNIX_PATH: usize = 107;

/// An address that labshd listens on. Its text form:
///
/// | text | |
/// | --- | --- |
/// | `0.0.0.0:5274`, `[::]:5274`, `lab07.example:5274` | TLS; port 0 takes any free port |
/// | `127.0.0.1`, `::1`, `lab07.example` | TLS on port 5274 |
/// | `plain://127.0.0.1:5275` | without TLS |
/// | `unix:/run/labshd.sock` | a unix socket, always without TLS |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// A TCP port.
    Tcp {
        /// An address (IPv6 without brackets), or a name, which is resolved when the port is bound.
        host: String,
        /// 0 means any free port.
        port: u16,
        mode: Mode,
    },
    /// A unix socket.
    Unix {
        /// Absolute.
        path: PathBuf,
    },
}

impl ListenAddress {
    /// Returns the mode of its connections.
    pub(crate) fn mode(&self) -> Mode {
        match self {
            Self::Tcp { mode, .. } => *mode,
            Self::Unix { .. } => Mode::Plain,
        }
    }

    /// Returns whether only this machine can reach it: a unix socket, a loopback address,
    /// `localhost`.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, .. } => {
                let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
                address.map_or(host == "localhost", |address| address.is_loopback())
            }
        }
    }
}

impl FromStr for ListenAddress {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
            return unix(path);
        }
        let (rest, mode) = match text.strip_prefix(PLAIN_PREFIX) {
            Some(rest) => (rest, Mode::Plain),
            None => (text, Mode::Tls),
        };
        let (host, port) = split(rest).ok_or_else(|| invalid(text))?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.starts_with('+') => return Err(invalid(text)),
            Some(port) => port.parse().map_err(|_| {
                Problem::new(
                    format!("{port:?} is not a port"),
                    "write a number from 0 to 65535 after the colon",
                )
            })?,
        };
        Ok(Self::Tcp { host: host.to_ascii_lowercase(), port, mode })
    }
}

fn unix(path: &str) -> Result<ListenAddress, Problem> {
    if !path.starts_with('/') {
        let remedy = "write unix: and an absolute path, for example \"unix:/run/labshd.sock\"";
        return Err(Problem::new(format!("{path:?} is not an absolute path"), remedy));
    }
    if path.len() > MAX_UNIX_PATH || path.contains('\0') {
        let problem =
            format!("the path of a unix socket has at most {MAX_UNIX_PATH} bytes and no NUL");
        return Err(Problem::new(problem, "choose a shorter one"));
    }
    Ok(ListenAddress::Unix { path: PathBuf::from(path) })
}

/// Splits host and port. An IPv6 address without brackets has no port.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':')?),
        };
        return is_ipv6(host).then_some((host, port));
    }
    if is_ipv6(text) {
        return Some((text, None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let named = !host.is_empty() && !host.starts_with('-') && host.chars().all(allowed);
    named.then_some((host, port))
}

/// Returns whether the text is an IPv6 address, with or without an interface: `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let (address, interface) = text.split_once('%').unwrap_or((text, "-"));
    address.parse::<Ipv6Addr>().is_ok()
        && !interface.is_empty()
        && interface.chars().all(|c| c.is_ascii_graphic())
}

fn invalid(text: &str) -> Problem {
    Problem::new(
        format!("{text:?} is not an address to listen on"),
        "write HOST:PORT, \"[::]:5274\" for every address, \"plain://127.0.0.1:5275\" or \
         \"unix:/run/labshd.sock\"",
    )
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path } => write!(formatter, "{UNIX_PREFIX}{}", path.display()),
            Self::Tcp { host, port, mode } => {
                let scheme = if *mode == Mode::Plain { PLAIN_PREFIX } else { "" };
                match host.contains(':') {
                    true => write!(formatter, "{scheme}[{host}]:{port}"),
                    false => write!(formatter, "{scheme}{host}:{port}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<ListenAddress>().unwrap().to_string()
    }

    #[test]
    fn every_form_of_an_address_is_parsed() {
        for (text, expected) in [
            ("0.0.0.0:5274", "0.0.0.0:5274"),
            ("[::]:5274", "[::]:5274"),
            ("127.0.0.1", "127.0.0.1:5274"),
            ("::1", "[::1]:5274"),
            ("[::1]", "[::1]:5274"),
            ("[fe80::1%eth0]:22", "[fe80::1%eth0]:22"),
            ("Lab07.example:0", "lab07.example:0"),
            ("plain://127.0.0.1:5275", "plain://127.0.0.1:5275"),
            ("plain://[::1]", "plain://[::1]:5274"),
            ("unix:/run/labshd.sock", "unix:/run/labshd.sock"),
        ] {
            assert_eq!(canonical(text), expected);
            assert_eq!(canonical(expected), expected);
        }
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for text in [
            "",
            ":5274",
            "*:5274",
            "host:",
            "host:+1",
            "host:65536",
            "host:1:2",
            "[::1",
            "[::1]5274",
            "[lab07]:1",
            "-x:1",
            "a b:1",
            "tls://h",
            "unix:",
            "unix:run/x",
            "unix:///x\0",
            "::1%",
            "https://h:1",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
        assert!(format!("unix:/{}", "x".repeat(107)).parse::<ListenAddress>().is_err());
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_local() {
        for (text, local) in [
            ("plain://127.0.0.2", true),
            ("plain://[::1]", true),
            ("plain://[::ffff:127.0.0.1]", true),
            ("plain://localhost", true),
            ("unix:/x", true),
            ("plain://0.0.0.0", false),
            ("plain://[::]", false),
            ("plain://localhost.example", false),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().is_local(), local, "{text}");
        }
    }
}
