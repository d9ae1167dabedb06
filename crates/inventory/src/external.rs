//! Other tools' files, as `[sources]` of `hosts.toml` names them.

use std::env;
use std::path::{Path, PathBuf};

use labsh_diagnostics::{Diagnostic, Origin};
use serde::Deserialize;

use crate::{Group, Source, ansible_ini, ansible_yaml, clustershell, ssh_config};

/// Which files are read.
///
/// ```toml
/// [sources]
/// ansible = ["~/ansible/inventory.yml"]
/// clustershell = true
/// ssh_config = true
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Inventories of Ansible: YAML where the name ends in `.yml`, `.yaml` or `.json`, INI
    /// otherwise.
    pub ansible: Vec<String>,
    /// ClusterShell's groups.
    pub clustershell: Location,
    /// The hosts of OpenSSH's configuration.
    pub ssh_config: Location,
}

/// Where a tool's files are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "write true, false or a path in quotes")]
pub enum Location {
    /// Where the tool itself looks for them, if there are any; or nowhere.
    Usual(bool),
    /// At this path, where they have to be.
    At(String),
}

impl Default for Location {
    fn default() -> Self {
        Self::Usual(false)
    }
}

/// What those files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// The sources in the order in which they count, each with its name: `ansible`, those of
    /// ClusterShell, `ssh`. Their groups name others as `@source:group`; the group `*` of each is
    /// all of it.
    pub sources: Vec<(String, Source)>,
    /// The sources whose groups may also be named without their source, in the order in which they
    /// count.
    pub unnamed: Vec<String>,
    /// Sources that only a program could tell of, and where they are configured.
    pub ignored: Vec<(String, Origin)>,
}

impl Wanted {
    /// Reads them. Relative paths begin in this directory, `~/` in the user's home.
    ///
    /// # Errors
    ///
    /// The first mistake in any of the files; a file that is named and is not there.
    pub fn read(&self, directory: &Path) -> Result<Others, Diagnostic> {
        let home = env::home_dir();
        let path = |text: &str| match (text.strip_prefix("~/"), &home) {
            (Some(inside), Some(home)) => home.join(inside),
            _ => directory.join(text),
        };
        let mut others = Others::default();
        for text in &self.ansible {
            let path = path(text);
            let yaml = path
                .extension()
                .is_some_and(|ending| ending == "yml" || ending == "yaml" || ending == "json");
            let source = if yaml { ansible_yaml::read(&path)? } else { ansible_ini::read(&path)? };
            others.add("ansible", source);
            others.unnamed.push("ansible".to_owned());
        }
        let clustershell = match &self.clustershell {
            Location::Usual(false) => None,
            Location::Usual(true) => clustershells_own(home.as_deref()),
            Location::At(text) => Some(path(text)),
        };
        if let Some(path) = clustershell {
            let told = clustershell::read(&path)?;
            for (name, source) in told.sources {
                others.add(&name, source);
            }
            others.unnamed.extend(told.default);
            others.ignored = told.ignored;
        }
        let ssh = match &self.ssh_config {
            Location::Usual(false) => None,
            Location::Usual(true) => {
                home.map(|home| home.join(".ssh/config")).filter(|path| path.exists())
            }
            Location::At(text) => Some(path(text)),
        };
        if let Some(path) = ssh {
            others.add("ssh", ssh_config::read(&path)?);
        }
        Ok(others)
    }
}

impl Others {
    fn add(&mut self, name: &str, source: Source) {
        let mut source = source.qualified(name);
        let groups = source.groups.values().map(|group| &group.origin);
        let origin = groups.chain(source.rooms.iter().map(|room| &room.origin)).min().cloned();
        if let Some(origin) = origin {
            let members = if source.groups.contains_key("all") {
                format!("@{name}:all")
            } else {
                let groups = source.groups.keys().map(|group| format!("@{name}:{group}"));
                let rooms = source.rooms.iter().map(|room| room.hosts.to_string());
                groups.chain(rooms).collect::<Vec<_>>().join("\n")
            };
            source.groups.insert("*".to_owned(), Group { members, origin });
        }
        self.sources.push((name.to_owned(), source));
    }
}

/// The configuration that counts most of those that ClusterShell looks for.
fn clustershells_own(home: Option<&Path>) -> Option<PathBuf> {
    let own = env::var_os("CLUSTERSHELL_CFGDIR").map(PathBuf::from);
    let users = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".config")));
    let directories = [
        own,
        users.map(|directory| directory.join("clustershell")),
        home.map(|home| home.join(".local/etc/clustershell")),
        Some(PathBuf::from("/etc/clustershell")),
    ];
    directories
        .into_iter()
        .flatten()
        .map(|directory| directory.join("groups.conf"))
        .find(|path| path.is_file())
}
