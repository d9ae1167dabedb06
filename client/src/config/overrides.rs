//! The settings for a connection that one source overrides.

use std::time::Duration;

use labsh_proto::key::HostId;
use labsh_transport::socket::AddressFamily;

use crate::config::target::Host;
use crate::keys::key_store::KeyName;

/// The settings of one source; the next source decides those that are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionOverrides {
    /// The address of the host, if it is not the target's name.
    pub address: Option<Host>,
    /// The port.
    pub port: Option<u16>,
    /// The host id that the key is enrolled for.
    pub host_id: Option<HostId>,
    /// The key to use.
    pub key: Option<KeyName>,
    /// Whether to use plain mode, without TLS.
    pub plain: Option<bool>,
    /// The time limit for connecting and authentication.
    pub connect_timeout: Option<Duration>,
    /// The user that commands are expected to run as. A table for this user on the host wins over
    /// the table of the host.
    pub user: Option<String>,
    /// Which of the host's addresses to try.
    pub family: Option<AddressFamily>,
    /// How long the agent keeps the connection for the next command; 0 is not at all.
    pub keep: Option<Duration>,
}

impl ConnectionOverrides {
    /// Returns these overrides, completed with those of `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            address: self.address.or(other.address),
            port: self.port.or(other.port),
            host_id: self.host_id.or(other.host_id),
            key: self.key.or(other.key),
            plain: self.plain.or(other.plain),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            user: self.user.or(other.user),
            family: self.family.or(other.family),
            keep: self.keep.or(other.keep),
        }
    }
}

/// Why a text is not a usable duration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadDuration {
    /// The text is not a duration.
    #[error("{0}; write a number and its unit, like 30s, 5m or 1h30m")]
    Text(humantime::DurationError),
    /// The duration is shorter than a millisecond.
    #[error("a duration is at least 1ms")]
    Short,
    /// The duration does not fit into 64 bits of milliseconds.
    #[error("the duration is too long")]
    Long,
}

/// Reads a duration of at least a millisecond. That is the unit of the wire, where 0 means no
/// limit.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let duration = humantime::parse_duration(text).map_err(BadDuration::Text)?;
    match duration.as_millis() {
        0 => Err(BadDuration::Short),
        millis if millis > u64::MAX.into() => Err(BadDuration::Long),
        _ => Ok(duration),
    }
}

/// Reads how long the agent is to keep a connection: a duration, or `off` for 0.
pub fn parse_keep(text: &str) -> Result<Duration, BadDuration> {
    if text == "off" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_are_at_least_a_millisecond() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1ms"), Ok(Duration::from_millis(1)));
        for text in ["0s", "999us", "0ms"] {
            assert_eq!(parse_duration(text), Err(BadDuration::Short), "{text}");
        }
        assert_eq!(parse_duration("600000000000y").ok(), None);
        for text in ["", "30", "-1s", "soon"] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains("like 30s"), "{error}");
        }
    }
}
