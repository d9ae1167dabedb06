//! Parses the configuration file, `config.toml`: its tables, each with its line.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use labsh_diagnostics::{Diagnostic, LineIndex, Origin, wording};
use labsh_proto::key::HostId;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use toml::Spanned;

use crate::config::overrides::{ConnectionOverrides, parse_duration, parse_keep};
use crate::config::target::{Host, Target};
use crate::keys::key_store::{KeyName, key_in_file};

/// One configuration file.
///
/// ```toml
/// [defaults]
/// key = "alice"
/// port = 5274
/// connect_timeout = "10s"
///
/// [hosts."lab07"]
/// address = "10.0.0.7"
/// host_id = "lab07.example"
/// plain = false
///
/// [hosts."bob@lab07"]
/// key = "bob"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ConfigFile {
    defaults: Table,
    hosts: BTreeMap<(Option<String>, Host), Table>,
}

/// One table of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    /// The line that it begins in, from 1.
    pub(super) line: usize,
    /// Its settings.
    pub(super) overrides: ConnectionOverrides,
}

impl ConfigFile {
    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    ///
    /// The first error that is found, with its line.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, Diagnostic> {
        let lines = LineIndex::new(text);
        let error_at = |line: usize, reason: String| Diagnostic {
            origin: Origin { path: path.into(), line: Some(line) },
            reason: format!("{reason}; correct that line"),
        };
        let tables: Tables = toml::from_str(text).map_err(|error| {
            let line = lines.line(error.span().map_or(0, |span| span.start));
            error_at(line, wording::reword(error.message()))
        })?;
        let defaults = tables.defaults.map_or_else(Table::default, |defaults| Table {
            line: lines.line(defaults.span().start),
            overrides: defaults.into_inner().into(),
        });
        let mut hosts = BTreeMap::<_, Table>::new();
        for (name, entry) in tables.hosts {
            let line = lines.line(name.span().start);
            let HostName { user, host } =
                name.get_ref().parse().map_err(|reason| error_at(line, reason))?;
            if let Some(other) = hosts.insert((user, host), Table { line, overrides: entry.into() })
            {
                // Two spellings of one name are the same host.
                let (first, line) = (line.min(other.line), line.max(other.line));
                let reason = format!(
                    "{:?} has a table in line {first} already; make one of the two",
                    name.get_ref()
                );
                return Err(error_at(line, reason));
            }
        }
        Ok(Self { defaults, hosts })
    }

    /// Returns the table for a host, or for a user on it.
    pub(super) fn table(&self, user: Option<&str>, host: &Host) -> Option<&Table> {
        self.hosts.get(&(user.map(str::to_owned), host.clone()))
    }

    /// Returns the settings for hosts whose tables do not override them.
    pub(super) fn defaults(&self) -> &Table {
        &self.defaults
    }

    /// Returns the hosts that have tables.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.keys().map(|(_, host)| host)
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    defaults: Option<Spanned<Defaults>>,
    hosts: BTreeMap<Spanned<String>, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Defaults {
    #[serde(deserialize_with = "key")]
    key: Option<KeyName>,
    port: Option<NonZeroU16>,
    #[serde(deserialize_with = "duration")]
    connect_timeout: Option<Duration>,
    #[serde(deserialize_with = "keep")]
    keep: Option<Duration>,
}

impl From<Defaults> for ConnectionOverrides {
    fn from(defaults: Defaults) -> Self {
        Self {
            key: defaults.key,
            port: defaults.port.map(NonZeroU16::get),
            connect_timeout: defaults.connect_timeout,
            keep: defaults.keep,
            ..Self::default()
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    #[serde(deserialize_with = "address")]
    address: Option<Target>,
    port: Option<NonZeroU16>,
    #[serde(deserialize_with = "host_id")]
    host_id: Option<HostId>,
    #[serde(deserialize_with = "key")]
    key: Option<KeyName>,
    plain: Option<bool>,
    #[serde(deserialize_with = "keep")]
    keep: Option<Duration>,
}

impl From<Entry> for ConnectionOverrides {
    fn from(entry: Entry) -> Self {
        let (address, port) = entry.address.map(|target| (target.host, target.port)).unzip();
        Self {
            address,
            port: entry.port.map(NonZeroU16::get).or(port.flatten()),
            host_id: entry.host_id,
            key: entry.key,
            plain: entry.plain,
            keep: entry.keep,
            ..Self::default()
        }
    }
}

struct HostName {
    user: Option<String>,
    host: Host,
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(c) = text.chars().find(|c| "*?{},".contains(*c)) {
            return Err(format!(
                "{text:?} contains {c:?}, but a table is for one host, by its exact name"
            ));
        }
        let (user, host) = match text.rsplit_once('@') {
            Some((user, host)) if !text.starts_with("unix:") && !user.is_empty() => {
                (Some(user), host)
            }
            _ => (None, text),
        };
        let target: Target =
            host.parse().map_err(|error| format!("{text:?} is not a host: {error}"))?;
        match target.port {
            Some(port) => {
                Err(format!("{text:?} names a port; write it inside the table: port = {port}"))
            }
            None => Ok(Self { user: user.map(str::to_owned), host: target.host }),
        }
    }
}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<KeyName>, D::Error> {
    key_in_file(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Target>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn host_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HostId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    HostId::new(&text)
        .map(Some)
        .map_err(|error| D::Error::custom(format!("{text:?} is not a host id: {error}")))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_keep(&text).map(Some).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, Diagnostic> {
        ConfigFile::parse(text, Path::new("config.toml"))
    }

    fn host(text: &str) -> Host {
        text.parse::<Target>().unwrap().host
    }

    /// Merges the settings of a file: the table of the user, the table of the host, the defaults.
    fn overrides(file: &ConfigFile, user: Option<&str>, host: &Host) -> ConnectionOverrides {
        let users = user.and_then(|user| file.table(Some(user), host));
        let tables = [users, file.table(None, host), Some(file.defaults())];
        tables.into_iter().flatten().fold(ConnectionOverrides::default(), |merged, table| {
            merged.or(table.overrides.clone())
        })
    }

    #[test]
    fn a_hosts_own_table_wins_over_the_defaults_of_its_file() {
        let file = parse(
            "[defaults]\nkey = \"alice\"\nport = 5300\nconnect_timeout = \"3s\"\n\n\
             [hosts.\"Lab07\"]\naddress = \"10.0.0.7\"\nport = 22\nhost_id = \"Old-Name\"\nkey = \
             \"/k/x.key\"\n\
             plain = true\n[hosts.lab08]\naddress = \"[::1]:99\"\n[hosts.\"unix:/run/s\"]\nkey = \
             \"bob\"\n",
        )
        .unwrap();
        let lab07 = overrides(&file, None, &host("LAB07"));
        assert_eq!(lab07.address, Some(host("10.0.0.7")));
        assert_eq!(lab07.port, Some(22));
        assert_eq!(lab07.host_id, Some(HostId::new("old-name").unwrap()));
        assert_eq!(lab07.key, Some(KeyName::Path("/k/x.key".into())));
        assert_eq!(lab07.plain, Some(true));
        assert_eq!(lab07.connect_timeout, Some(Duration::from_secs(3)));
        let lab08 = overrides(&file, None, &host("lab08"));
        assert_eq!((lab08.address, lab08.port), (Some(host("::1")), Some(99)));
        assert_eq!(lab08.key, Some("alice".parse().unwrap()));
        assert_eq!(overrides(&file, None, &host("unix:/run/s")).key, Some("bob".parse().unwrap()));
        assert_eq!(overrides(&file, None, &host("lab09")).port, Some(5300));
        assert_eq!(parse("").unwrap(), ConfigFile::default());
    }

    #[test]
    fn a_table_for_a_user_at_a_host_wins_over_the_hosts() {
        let file = parse(
            "[defaults]\nkey = \"alice\"\nport = 1\n[hosts.lab07]\nkey = \"seven\"\nport = 2\n\
             [hosts.\"bob@Lab07\"]\nkey = \"bob\"\n[hosts.\"carol@lab08\"]\nkey = \"carol\"\n",
        )
        .unwrap();
        for (user, name, key, port) in [
            (Some("bob"), "lab07", "bob", 2),
            (Some("carol"), "lab07", "seven", 2),
            (None, "lab07", "seven", 2),
            (Some("carol"), "lab08", "carol", 1),
            (Some("bob"), "lab08", "alice", 1),
        ] {
            let merged = overrides(&file, user, &host(name));
            assert_eq!(
                (merged.key, merged.port),
                (Some(key.parse().unwrap()), Some(port)),
                "{user:?} {name}"
            );
        }
    }

    #[test]
    fn a_key_file_may_be_named_from_home() {
        let file = parse("[defaults]\nkey = \"~/k.key\"\n").unwrap();
        let home = std::env::home_dir().unwrap();
        assert_eq!(overrides(&file, None, &host("h")).key, Some(KeyName::Path(home.join("k.key"))));
    }

    #[test]
    fn every_error_has_its_line() {
        for (text, line, reason) in [
            (
                "[defaults]\nkey = \"a\"\nprot = 1\n",
                3,
                "unknown field `prot`, expected one of `key`, `port`",
            ),
            ("[default]\n", 1, "unknown field `default`"),
            ("\n[defaults]\nport = 0\n", 3, "0 instead of a whole number from 1 to 65535"),
            ("[defaults]\nport = 70000\n", 2, "70000"),
            ("[defaults]\nport = \"22\"\n", 2, "the text \"22\" instead of"),
            ("[defaults]\nconnect_timeout = \"10\"\n", 2, "like 30s"),
            ("[defaults]\nkey = \"a b\"\n", 2, "is not a key"),
            ("[defaults]\nkey = \"keys/a\"\n", 2, "from / or from ~/"),
            ("[hosts.\"lab*\"]\n", 1, "exact name"),
            ("\n[hosts.\"lab07:22\"]\n", 2, "port = 22"),
            ("[hosts.Lab07]\n\n[hosts.lab07]\n", 3, "has a table in line 1 already"),
            ("[hosts.\"bob@[::1]\"]\n[hosts.\"bob@::1\"]\n", 2, "has a table in line 1 already"),
            ("[hosts.lab07]\nplain = \"yes\"\n", 2, "true or false"),
            ("[hosts.lab07]\naddress = \"me@lab07\"\n", 2, "key's entry on the host"),
            ("[hosts.lab07]\nhost_id = \"\"\n", 2, "is not a host id"),
            ("[hosts.lab07]\nconnect_timeout = \"1s\"\n", 2, "unknown field"),
            ("[defaults]\nport = \n", 2, ""),
        ] {
            let diagnostic = parse(text).unwrap_err();
            assert_eq!(diagnostic.origin.line, Some(line), "{text:?}: {diagnostic:?}");
            assert!(diagnostic.reason.contains(reason), "{text:?}: {diagnostic:?}");
            assert!(!diagnostic.reason.contains('\n'), "{diagnostic:?}");
        }
    }
}
