//! An entry, one file in `keys.d`: the key, the user of its commands, its sources, its expiry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::{IpNet, Ipv4Net};
use labsh_diagnostics::Diagnostics;
use labsh_proto::key::HostKey;
use toml::value::{Datetime, Offset};

use crate::account::{RunsAs, UserExists};
use crate::diagnostics::Problem;
use crate::private_file::{self, FileContent};
use crate::toml_fields::Fields;

/// The last second that RFC 3339 can express, 9999-12-31T23:59:59Z, since the epoch.
const MAX_UNIX_TIME: u64 = 253_402_300_799;

/// The sources that a connection over a unix socket counts as.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// An entry of `keys.d`. Entries are equal if they grant the same, whatever the names of their
/// files.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: HostKey,
    /// The user of the key's commands; `None` unless labshd runs as root.
    pub(crate) user: Option<String>,
    /// The networks that the key may be used from; empty means any.
    pub(crate) from: Vec<IpNet>,
    /// The last time at which the key may be used; `None` means no expiry.
    pub(crate) expires: Option<SystemTime>,
    /// The path of the entry's file.
    pub(crate) file: PathBuf,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, &self.user, &self.from, &self.expires)
            == (&other.key, &other.user, &other.from, &other.expires)
    }
}

impl Eq for Entry {}

/// Why a known key may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotPermitted {
    #[error("this key may not be used from {}", match .0 {
        Some(address) => address.to_string(),
        None => "a unix socket".to_owned(),
    })]
    Source(Option<IpAddr>),
    #[error("this key expired on this host at {}", humantime::format_rfc3339_seconds(*.0))]
    Expired(SystemTime),
}

impl NotPermitted {
    /// Returns the next step for the refused client.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Source(_) => {
                "connect from an allowed address, or ask this host's administrator to change \
                 `from` in the key's entry"
            }
            Self::Expired(_) => {
                "ask this host's administrator to change `expires` in the key's entry, or to \
                 enrol a new key"
            }
        }
    }
}

impl Entry {
    /// Checks that the key may be used from `source` at `now`. A unix socket, which has no address
    /// (`None`), counts as loopback.
    pub(crate) fn permits(
        &self,
        source: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<(), NotPermitted> {
        let source = source.map(|address| address.to_canonical());
        let matches = |net: &IpNet| match source {
            Some(address) => net.contains(&address),
            None => {
                net.addr().is_loopback() || LOOPBACK.iter().any(|address| net.contains(address))
            }
        };
        if !self.from.is_empty() && !self.from.iter().any(matches) {
            return Err(NotPermitted::Source(source));
        }
        match self.expires {
            Some(end) if now > end => Err(NotPermitted::Expired(end)),
            _ => Ok(()),
        }
    }

    /// Reads an entry from a file that other users can neither read nor change.
    pub(crate) fn read(
        file: &Path,
        runs_as: &RunsAs,
        user_exists: UserExists<'_>,
    ) -> Result<Self, Diagnostics> {
        let text = private_file::read(file, FileContent::Secret)
            .map_err(|problem| problem.at(file, None))?;
        Self::parse(file, &text, runs_as, user_exists)
    }

    /// Parses the text of an entry.
    pub(crate) fn parse(
        file: &Path,
        text: &str,
        runs_as: &RunsAs,
        user_exists: UserExists<'_>,
    ) -> Result<Self, Diagnostics> {
        let mut fields = Fields::parse(file, text);
        let mut key = None;
        if fields.line("key").is_none() {
            let remedy = "create it with `labsh key enroll` where the user's key is, and add it \
                with `labshd key add`";
            fields.report(None, Problem::new("key is missing", remedy));
        }
        fields.text(&mut key, "key", |line| enrolment(line).map(Some));
        let mut user = None;
        if fields.line("user").is_none()
            && let Err(problem) = runs_as.check(None)
        {
            fields.report(None, problem);
        }
        fields.text(&mut user, "user", |name| {
            runs_as.check(Some(name))?;
            user_exists(name)
                .map_err(|problem| Problem::new(problem, "name a user of this machine"))?;
            Ok(Some(name.to_owned()))
        });
        let mut from = Vec::new();
        let line = fields.line("from");
        if fields.list(&mut from, "from", network) == Some(0) {
            let remedy = "remove the line to permit every address, or the file to permit none";
            fields.report(line, Problem::new("from: an empty list permits no address", remedy));
        }
        let mut expires = None;
        fields.date(&mut expires, "expires", |date| end_of(date).map(Some));
        fields.text(&mut String::new(), "comment", |text| Ok(text.to_owned()));
        let diagnostics = fields.finish();
        match key {
            Some(key) if diagnostics.is_empty() => {
                Ok(Self { key, user, from, expires, file: file.to_owned() })
            }
            _ => Err(Diagnostics(diagnostics)),
        }
    }
}

/// Parses an enrolment line.
pub(crate) fn enrolment(line: &str) -> Result<HostKey, Problem> {
    HostKey::from_line(line).map_err(|error| {
        let remedy = "run `labsh key enroll` again, and copy its line unchanged";
        Problem::new(format!("this is not an enrolment line: {error}"), remedy)
    })
}

/// Parses a network, or an address as a network of one address.
pub(crate) fn network(text: &str) -> Result<IpNet, Problem> {
    let net = match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
        (Ok(address), _) => Ok(IpNet::from(address)),
        (_, Ok(net)) => Ok(net.trunc()),
        _ => Err(Problem::new(
            format!("{text:?} is neither an address nor a network"),
            "write it like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32: names are not looked up",
        )),
    };
    net.map(unmapped)
}

/// Converts an IPv4-mapped IPv6 network to IPv4, as sources are compared in that form.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(net, IpNet::V4)
}

/// Returns the last second of a date, or the second of a date-time.
pub(crate) fn end_of(written: Datetime) -> Result<SystemTime, Problem> {
    let remedy =
        "write a date like 2031-12-31, or a time like 2031-12-31T18:00:00Z or …T18:00:00+02:00";
    let invalid = |problem: &str| Problem::new(format!("{written}: {problem}"), remedy);
    let Some(date) = written.date else {
        return Err(invalid("it is a time of day without a date"));
    };
    let (time, offset) = match (written.time, written.offset) {
        (None, _) => ("23:59:59".to_owned(), Offset::Z),
        (Some(_), None) => return Err(invalid("it has no time zone")),
        (Some(time), Some(offset)) => {
            (format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second.unwrap_or(0)), offset)
        }
    };
    let east = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    let utc = format!("{:04}-{:02}-{:02}T{time}Z", date.year, date.month, date.day);
    humantime::parse_rfc3339(&utc)
        .ok()
        .and_then(|local| local.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| since.as_secs().checked_add_signed(-east))
        .filter(|seconds| *seconds <= MAX_UNIX_TIME)
        .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
        .ok_or_else(|| invalid("it is out of range"))
}

#[cfg(test)]
pub(crate) mod tests {
    use labsh_proto::key::{HostId, Key, KeyId, Secret};

    use super::*;

    /// An enrolment line for a key of that name on the host `lab07`.
    pub(crate) fn line(key: &str) -> String {
        line_for(key, "lab07", 7)
    }

    /// The same for any host and any secret.
    pub(crate) fn line_for(key: &str, host: &str, secret: u8) -> String {
        let key = Key::new(KeyId::new(key).unwrap(), Secret::new([secret; 32]));
        key.for_host(&HostId::new(host).unwrap()).to_line()
    }

    fn parse_as(text: &str, runs_as: &RunsAs) -> Result<Entry, Diagnostics> {
        let text = format!("key = \"{}\"\n{text}", line("alice"));
        Entry::parse(Path::new("/keys.d/alice.toml"), &text, runs_as, &|name| match name {
            "no-such-user" => Err("there is no user \"no-such-user\"".to_owned()),
            _ => Ok(()),
        })
    }

    fn parse(text: &str) -> Result<Entry, Diagnostics> {
        parse_as(text, &RunsAs::User("me".to_owned()))
    }

    fn diagnostic(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn as_root_every_key_names_its_user() {
        let error = parse_as("", &RunsAs::Root).unwrap_err().to_string();
        assert!(error.contains("user = \"alice\""), "{error}");
        assert_eq!(parse_as("user = 'bob'", &RunsAs::Root).unwrap().user.as_deref(), Some("bob"));
        let error = parse_as("user = 'no-such-user'", &RunsAs::Root).unwrap_err().to_string();
        assert!(error.starts_with("/keys.d/alice.toml:2: user: there is no user"), "{error}");
    }

    #[test]
    fn without_root_commands_run_as_labshds_own_user() {
        assert_eq!(parse("").unwrap().user, None);
        assert_eq!(parse("user = 'me'").unwrap().user.as_deref(), Some("me"));
        assert!(diagnostic("user = 'bob'").contains("cannot run commands as \"bob\""));
    }

    #[test]
    fn a_key_is_refused_from_other_networks() {
        let entry = parse("from = ['10.1.2.3/8', '::1', '::ffff:192.0.2.0/120']").unwrap();
        let now = SystemTime::now();
        for allowed in ["10.9.9.9", "::ffff:10.9.9.9", "::1", "192.0.2.255"] {
            assert_eq!(entry.permits(from(allowed), now), Ok(()), "{allowed}");
        }
        for refused in ["11.0.0.1", "::2", "::ffff:11.0.0.1", "192.0.3.0"] {
            let error = entry.permits(from(refused), now).unwrap_err();
            let shown = refused.trim_start_matches("::ffff:");
            assert_eq!(error.to_string(), format!("this key may not be used from {shown}"));
        }
        assert_eq!(parse("").unwrap().permits(from("11.0.0.1"), now), Ok(()));
    }

    #[test]
    fn a_unix_socket_counts_as_loopback() {
        let now = SystemTime::now();
        assert_eq!(parse("").unwrap().permits(None, now), Ok(()));
        for network in ["127.0.0.1", "127.0.0.0/8", "127.0.0.2", "::1", "0.0.0.0/0", "::/0"] {
            assert_eq!(
                parse(&format!("from = ['{network}']")).unwrap().permits(None, now),
                Ok(()),
                "{network}"
            );
        }
        let error = parse("from = ['10.0.0.0/8']").unwrap().permits(None, now).unwrap_err();
        assert!(error.to_string().contains("unix socket"));
    }

    #[test]
    fn a_key_expires_at_the_end_of_its_last_day() {
        let entry = parse("expires = 2027-01-31").unwrap();
        assert_eq!(entry.permits(None, at("2027-01-31T23:59:59Z")), Ok(()));
        let error = entry.permits(None, at("2027-02-01T00:00:00Z")).unwrap_err();
        assert_eq!(error.to_string(), "this key expired on this host at 2027-01-31T23:59:59Z");
        let entry = parse("expires = 2027-01-31T18:00:00+02:00").unwrap();
        assert_eq!(entry.expires, Some(at("2027-01-31T16:00:00Z")));
    }

    #[test]
    fn invalid_dates_are_reported() {
        assert!(diagnostic("expires = 2027-01-31T18:00:00").contains("time zone"));
        assert!(diagnostic("expires = 18:00:00").contains("without a date"));
        assert!(diagnostic("expires = 9999-12-31T23:59:59-01:00").contains("out of range"));
        assert!(diagnostic("expires = 1970-01-01T00:00:00+01:00").contains("out of range"));
        assert!(diagnostic("expires = '2027-01-31'").contains("without quotes"));
    }

    #[test]
    fn every_error_in_a_file_is_reported_and_no_secret_with_it() {
        let text = format!("key = \"{}0\"\nusr = 'me'\nfrom = []\n", line("alice"));
        let error = Entry::parse(Path::new("f"), &text, &RunsAs::Root, &|_| Ok(()))
            .unwrap_err()
            .to_string();
        assert_eq!(error.lines().count(), 4, "{error}");
        assert!(
            error.contains("f:1: key:")
                && error.contains("f:2: \"usr\"")
                && error.contains("f:3: from:")
        );
        let secret = line("alice").split(' ').nth(3).unwrap().to_owned();
        assert!(!error.contains(&secret));
        assert!(diagnostic("from = ['lab07.example']").contains("names are not looked up"));
        let error = Entry::parse(Path::new("f"), "", &RunsAs::Root, &|_| Ok(())).unwrap_err();
        assert_eq!(error.0.len(), 2, "{error}");
    }

    #[test]
    fn entries_that_grant_the_same_are_equal() {
        let entry = parse("from = ['::1']").unwrap();
        let moved = Entry { file: PathBuf::from("elsewhere"), ..entry.clone() };
        assert_eq!(entry, moved);
        assert_eq!(entry, parse("comment = 'x'\nfrom = ['::1']").unwrap());
        assert_ne!(entry, parse("").unwrap());
    }
}
