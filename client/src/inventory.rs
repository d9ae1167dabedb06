//! The hosts that are known by groups: `hosts.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use etcetera::base_strategy::{BaseStrategy, Xdg};
use labsh_nodeset::Groups;
use serde::Deserialize;

/// Groups of hosts by name, each an expression that may name other groups.
///
/// ```toml
/// [groups]
/// lab-a = "lab[01-40]"
/// teaching = "@lab-a,@lab-b!lab40"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    groups: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    groups: BTreeMap<String, String>,
}

impl Inventory {
    /// Reads `$XDG_CONFIG_HOME/labsh/hosts.toml`, and behind it `/etc/labsh/hosts.toml`; either may be missing.
    pub fn load() -> anyhow::Result<Self> {
        let own = Xdg::new().context("there is no home directory")?.config_dir().join("labsh/hosts.toml");
        let mut inventory = Self::default();
        for path in [own, PathBuf::from("/etc/labsh/hosts.toml")] {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot read the inventory {}", path.display()));
                }
            };
            inventory.add(&path, &text)?;
        }
        Ok(inventory)
    }

    /// Takes up the groups of a file, save those that are known by now.
    fn add(&mut self, path: &Path, text: &str) -> anyhow::Result<()> {
        let tables: Tables = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            let reason = error.message().replace('\n', ", ");
            anyhow::anyhow!("{}:{line}: {reason}; correct that line", path.display())
        })?;
        for (name, members) in tables.groups {
            self.groups.entry(name).or_insert(members);
        }
        Ok(())
    }
}

impl Groups for Inventory {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.groups.get(name).cloned())
    }

    fn all(&self) -> Result<String, String> {
        if self.groups.is_empty() {
            return Err("@*: no groups are known; write them into hosts.toml".to_owned());
        }
        Ok(self.groups.values().cloned().collect::<Vec<_>>().join("\n"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| format!("cannot read the hosts in {path}: {error}"))
    }

    fn names(&self) -> Vec<String> {
        self.groups.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use labsh_nodeset::NodeSet;

    use super::*;

    #[test]
    fn the_packaged_inventory_is_understood() {
        let mut inventory = Inventory::default();
        inventory.add(Path::new("hosts.toml"), include_str!("../../packaging/hosts.toml")).unwrap();
        let folded = |set: &str| NodeSet::parse(set, &inventory).unwrap().to_string();
        assert_eq!(folded("@lab-a"), "lab[01-40]");
        assert_eq!(folded("@teaching"), "lab[01-39,52-60]");
        assert_eq!(folded("@*!@lab-a"), "lab[52-60]");
    }

    #[test]
    fn the_first_file_that_knows_a_group_wins() {
        let mut inventory = Inventory::default();
        for text in ["[groups]\na = \"own\"\n", "[groups]\na = \"everyones\"\nb = \"other\"\n"] {
            inventory.add(Path::new("hosts.toml"), text).unwrap();
        }
        assert_eq!(NodeSet::parse("@a,@b", &inventory).unwrap().to_string(), "other,own");
    }

    #[test]
    fn a_mistake_is_named_with_its_file_and_line() {
        let mistake = Inventory::default().add(Path::new("/etc/labsh/hosts.toml"), "[groups]\na = 1\n");
        let said = mistake.unwrap_err().to_string();
        assert!(
            said.starts_with("/etc/labsh/hosts.toml:2: ") && said.ends_with("correct that line"),
            "{said}"
        );
        assert!(Inventory::default().add(Path::new("h"), "[rooms]\n").is_err());
    }
}
