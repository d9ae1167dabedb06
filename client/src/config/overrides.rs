//! What a user or a file sets for a connection, beyond its defaults.

use std::time::Duration;

use labsh_proto::key::HostId;
use labsh_transport::socket::AddressFamily;

use crate::config::target::Host;
use crate::keys::key_store::KeyName;

/// What one source says; what it leaves open, the next one decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionOverrides {
    /// Where the host really is, when its name does not say so.
    pub address: Option<Host>,
    /// The port.
    pub port: Option<u16>,
    /// The name under which the key was enrolled there.
    pub host_id: Option<HostId>,
    /// The key to use.
    pub key: Option<KeyName>,
    /// Whether to go without TLS.
    pub plain: Option<bool>,
    /// How long connecting and authentication may take.
    pub connect_timeout: Option<Duration>,
    /// The user as whom commands are expected to run; a table for that user at the host wins over
    /// the host's own.
    pub user: Option<String>,
    /// Which of the host's addresses are tried.
    pub family: Option<AddressFamily>,
    /// How long a connection is kept for the next command; 0: it is not.
    pub keep: Option<Duration>,
}

impl ConnectionOverrides {
    /// These overrides, and `other`'s where these say nothing.
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

/// Why a text is no duration that anything could wait for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadDuration {
    /// Not a duration.
    #[error("{0}; write a number and its unit, like 30s, 5m or 1h30m")]
    Text(humantime::DurationError),
    /// Nothing could finish in it.
    #[error("a duration is at least 1ms here")]
    Short,
    /// More than fits into 64 bits of milliseconds.
    #[error("it is longer than any command could run")]
    Long,
}

/// Reads a duration of at least a millisecond; the wire counts in those, and 0 means something else
/// there.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let duration = humantime::parse_duration(text).map_err(BadDuration::Text)?;
    match duration.as_millis() {
        0 => Err(BadDuration::Short),
        millis if millis > u64::MAX.into() => Err(BadDuration::Long),
        _ => Ok(duration),
    }
}

/// Reads how long a connection is kept: a duration, or `off`, which is 0.
pub fn parse_keep(text: &str) -> Result<Duration, BadDuration> {
    if text == "off" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_last_a_millisecond_at_least() {
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
