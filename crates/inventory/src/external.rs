//! Reads other tools' inventories, which `[sources]` in `hosts.toml` names.

use std::env;
use std::path::{Path, PathBuf};

use labsh_diagnostics::{Diagnostic, Origin};
use labsh_nodeset::NodeSet;
use serde::Deserialize;

use crate::{Group, Source, ansible_ini, ansible_yaml, clustershell, ssh_config};

/// The table `[sources]`: which files are read.
///
/// ```toml
/// [sources]
/// ansible = ["~/ansible/inventory.yml"]
/// clustershell = true
/// ssh_config = true
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourcesConfig {
    /// Ansible's inventories: YAML if the name ends in `.yml`, `.yaml` or `.json`, otherwise INI.
    pub ansible: Vec<String>,
    /// ClusterShell's groups.
    pub clustershell: SourceLocation,
    /// The hosts of OpenSSH's configuration.
    pub ssh_config: SourceLocation,
}

/// The location of a tool's files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "write true, false or a path in quotes")]
pub enum SourceLocation {
    /// `true`: where the tool itself looks for them, if any exist; `false`: none are read.
    Default(bool),
    /// This path, which must exist.
    Path(String),
}

impl Default for SourceLocation {
    fn default() -> Self {
        Self::Default(false)
    }
}

/// The contents of other tools' files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalSources {
    /// The sources with their names, highest precedence first: `ansible`, those of ClusterShell,
    /// `ssh`. Their groups refer to others as `@source:group`; the group `*` of each holds all its
    /// hosts.
    pub sources: Vec<(String, Source)>,
    /// The sources whose groups can be named without their source, highest precedence first.
    pub default_sources: Vec<String>,
    /// Sources that only a program could list, and where they are configured.
    pub ignored: Vec<(String, Origin)>,
}

impl SourcesConfig {
    /// Reads the files. Relative paths start at `directory`, `~/` is the user's home.
    ///
    /// # Errors
    ///
    /// The first error in any of the files, or a path that does not exist.
    pub fn read(&self, directory: &Path) -> Result<ExternalSources, Diagnostic> {
        let home = env::home_dir();
        let path = |text: &str| match (text.strip_prefix("~/"), &home) {
            (Some(inside), Some(home)) => home.join(inside),
            _ => directory.join(text),
        };
        let mut external = ExternalSources::default();
        for text in &self.ansible {
            let path = path(text);
            if path.is_dir() {
                let reason = "it is a directory; name the inventories in it one by one".to_owned();
                let origin = Origin { path: path.into(), line: None };
                return Err(Diagnostic { origin, reason });
            }
            let yaml = path.extension().is_some_and(|extension| {
                ["yml", "yaml", "json"].iter().any(|yaml| extension == *yaml)
            });
            let source = if yaml { ansible_yaml::read(&path)? } else { ansible_ini::read(&path)? };
            external.add("ansible", source);
            external.default_sources.push("ansible".to_owned());
        }
        let clustershell = match &self.clustershell {
            SourceLocation::Default(false) => None,
            SourceLocation::Default(true) => clustershell_configuration(home.as_deref()),
            SourceLocation::Path(text) => Some(path(text)),
        };
        if let Some(path) = clustershell {
            let groups = clustershell::read(&path)?;
            for (name, source) in groups.sources {
                external.add(&name, source);
            }
            external.default_sources.extend(groups.default);
            external.ignored = groups.ignored;
        }
        let ssh = match &self.ssh_config {
            SourceLocation::Default(false) => None,
            SourceLocation::Default(true) => {
                home.map(|home| home.join(".ssh/config")).filter(|path| path.exists())
            }
            SourceLocation::Path(text) => Some(path(text)),
        };
        if let Some(path) = ssh {
            external.add("ssh", ssh_config::read(&path)?);
        }
        Ok(external)
    }
}

impl ExternalSources {
    /// Adds a source, and its group `*`.
    fn add(&mut self, name: &str, source: Source) {
        let mut source = source.qualified(name);
        let groups = source.groups.values().map(|group| &group.origin);
        let origin = groups.chain(source.tables.iter().map(|table| &table.origin)).min().cloned();
        if let Some(origin) = origin {
            let members = if source.groups.contains_key("all") {
                format!("@{name}:all")
            } else {
                let groups = source.groups.keys().map(|group| format!("@{name}:{group}"));
                // One expression: evaluating one for each of a hundred thousand tables is slow.
                let hosts: NodeSet = source.tables.iter().flat_map(|table| &table.hosts).collect();
                groups.chain([hosts.to_string()]).collect::<Vec<_>>().join("\n")
            };
            source.groups.insert("*".to_owned(), Group { members, origin });
        }
        self.sources.push((name.to_owned(), source));
    }
}

/// Returns the first `groups.conf` that exists where ClusterShell looks for it.
fn clustershell_configuration(home: Option<&Path>) -> Option<PathBuf> {
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
        .find(|path| path.exists())
}
