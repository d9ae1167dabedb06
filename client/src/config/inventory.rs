//! The inventory: hosts and groups of hosts from `hosts.toml` and from other tools' files.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use labsh_diagnostics::{Diagnostic, Origin};
use labsh_inventory::external::ExternalSources;
use labsh_inventory::hosts_toml::{self, HostsToml};
use labsh_inventory::{Group, HostTable, Setting, Settings};
use labsh_nodeset::{Groups, NamedBy, NodeSet, NodeSetError};

use crate::config::host_table::ValueName;
use crate::config::overrides::ConnectionOverrides;
use crate::config::target::{Host, Target};
use crate::config::{host_list, host_table};

const HOSTS_FILE: &str = "hosts.toml";

/// Hosts and groups of hosts.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// In descending order of precedence: a table for fewer hosts is more specific.
    tables: Vec<HostTable>,
    /// The ranges of `tables` whose hosts are the same set.
    blocks: Vec<Range<usize>>,
    /// The indices in `blocks` of the tables for a host.
    by_host: HashMap<String, Vec<usize>>,
    /// The parts of each group: its definition, and the tables that add their hosts to it.
    groups: BTreeMap<String, Vec<Group>>,
    /// Hosts that other files name.
    other_hosts: Vec<String>,
    /// Sources of groups that a program prints. labsh does not run such programs.
    ignored: BTreeMap<String, Origin>,
}

/// What a table sets for one of its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableEntry {
    /// The table's file and line.
    pub(super) origin: Origin,
    /// The settings for connections.
    pub(super) overrides: ConnectionOverrides,
    /// Other variables of the host.
    pub(super) variables: BTreeMap<String, String>,
}

impl Inventory {
    /// Reads `hosts.toml` in the user's directory and then in the system's; either may be missing.
    ///
    /// # Errors
    ///
    /// The first error that is found, with its line.
    pub(super) fn load(own: &Path, system: &Path) -> Result<Self, Diagnostic> {
        let (mut files, mut external) = (Vec::new(), Vec::new());
        for directory in [own, system] {
            let file = hosts_toml::read(&directory.join(HOSTS_FILE))?;
            external.push(file.sources.read(directory)?);
            files.push(file);
        }
        Self::new(files, external)
    }

    fn new(files: Vec<HostsToml>, external: Vec<ExternalSources>) -> Result<Self, Diagnostic> {
        let mut inventory = Self::default();
        let mut memberships = Vec::new();
        for file in files {
            for (name, group) in file.groups {
                inventory.groups.entry(name).or_insert_with(|| vec![group]);
            }
            memberships.extend(file.memberships);
            for table in &file.tables {
                host_table::check(table)?;
            }
            inventory.tables.extend(file.tables);
        }
        let own_tables = inventory.tables.len();
        for sources in external {
            inventory.add_external(sources)?;
        }
        // A table can add its hosts to a group of any file.
        for (name, group) in memberships {
            inventory.groups.entry(name).or_default().push(group);
        }
        // Other tools' files come after all of labsh's own, and stay in their order.
        inventory.tables[..own_tables].sort_by_key(|table| table.hosts.len());
        inventory.index_hosts();
        Ok(inventory)
    }

    /// Finds the tables of each host. Each value of a table has its own entry in `tables`, for the
    /// same set.
    fn index_hosts(&mut self) {
        for (index, table) in self.tables.iter().enumerate() {
            match self.blocks.last_mut() {
                Some(block) if self.tables[block.start].hosts.is_clone_of(&table.hosts) => {
                    block.end = index + 1;
                    continue;
                }
                _ => self.blocks.push(index..index + 1),
            }
            for name in &table.hosts {
                let name = host_table::normalize(name);
                self.by_host.entry(name).or_default().push(self.blocks.len() - 1);
            }
        }
    }

    /// Adds the hosts and groups of other tools' files.
    fn add_external(&mut self, external: ExternalSources) -> Result<(), Diagnostic> {
        for (name, source) in external.sources {
            for (group, content) in source.groups {
                // Every source can have a group such as `all`. Without a prefix, @all is the first
                // source's; @source:all is that of any.
                if external.default_sources.contains(&name)
                    && group != "*"
                    && !self.groups.contains_key(&group)
                {
                    let members = format!("@{name}:{group}");
                    self.groups.insert(
                        group.clone(),
                        vec![Group { members, origin: content.origin.clone() }],
                    );
                }
                self.groups.entry(format!("{name}:{group}")).or_default().push(content);
            }
            for table in &source.tables {
                host_table::check(table)?;
            }
            self.tables.extend(source.tables);
        }
        self.ignored.extend(external.ignored);
        Ok(())
    }

    /// Adds hosts that have no table in the inventory.
    pub(super) fn add_hosts(&mut self, hosts: impl IntoIterator<Item = String>) {
        self.other_hosts.extend(hosts);
    }

    fn tables_for(&self, name: &str) -> impl Iterator<Item = &HostTable> {
        let blocks = self.by_host.get(name).into_iter().flatten();
        blocks.flat_map(|block| &self.tables[self.blocks[*block].clone()])
    }

    /// Returns what the tables set for a host, in descending order of precedence.
    ///
    /// # Errors
    ///
    /// A setting is invalid, or two tables of one file contradict each other and are for equally
    /// many hosts.
    pub(super) fn entries(&self, host: &Host) -> Result<Vec<TableEntry>, Diagnostic> {
        let name = host.to_string();
        let mut decided: BTreeMap<ValueName<'_>, (Cow<'_, str>, &HostTable)> = BTreeMap::new();
        let mut entries = Vec::new();
        for table in self.tables_for(&name) {
            for (setting, value) in host_table::values(&table.settings) {
                let (first, by) = decided.entry(setting).or_insert_with(|| (value.clone(), table));
                let is_equal =
                    by.hosts.len() == table.hosts.len() && by.origin.path == table.origin.path;
                if is_equal && *first != value {
                    let first_origin = match by.origin.line {
                        Some(line) => format!("line {line}"),
                        None => "the same file".to_owned(),
                    };
                    let reason = format!(
                        "the {setting} of {name} is {value:?} here and {first:?} in \
                         {first_origin}, and both tables are for {} hosts; set it in one of them, \
                         or in a table for {name} alone",
                        table.hosts.len(),
                    );
                    return Err(Diagnostic { origin: table.origin.clone(), reason });
                }
            }
            entries.push(TableEntry {
                origin: table.origin.clone(),
                overrides: host_table::overrides(table, &name)?,
                variables: table.settings.variables.clone(),
            });
        }
        Ok(entries)
    }

    /// Returns why a host cannot be used, if a setting that counts for it is one that only another
    /// program understands.
    pub fn unusable(&self, host: &Host) -> Option<Diagnostic> {
        let name = host.to_string();
        let mut decided: Vec<Setting> = Vec::new();
        for table in self.tables_for(&name) {
            let unusable =
                table.settings.unusable.iter().find(|(setting, _)| !decided.contains(setting));
            if let Some((_, reason)) = unusable {
                return Some(Diagnostic {
                    origin: table.origin.clone(),
                    reason: format!("{name}: {reason}"),
                });
            }
            decided.extend(host_table::settings_in(&table.settings));
        }
        None
    }

    /// Returns where a group is defined, and where hosts are added to it.
    pub fn origins(&self, group: &str) -> Vec<&Origin> {
        self.groups.get(group).into_iter().flatten().map(|group| &group.origin).collect()
    }

    /// Returns the line of a file that caused an error, unless the user's own input did.
    pub fn error_origin(&self, error: &NodeSetError) -> Option<&Origin> {
        match error {
            NodeSetError::Cycle { cycle } => {
                cycle.iter().find_map(|name| self.origins(name.strip_prefix('@')?).first().copied())
            }
            NodeSetError::UnknownGroup { group, .. } => {
                let named = format!("@{group}");
                let is_separator = |c: char| c.is_whitespace() || ",!&^".contains(c);
                self.groups.values().flatten().find_map(|group| {
                    let mut words = group.members.split(is_separator);
                    words.any(|word| word == named).then_some(&group.origin)
                })
            }
            NodeSetError::InFile { error, .. } => self.error_origin(error),
            _ => None,
        }
    }
}

impl Groups for Inventory {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        if let Some((source, origin)) =
            name.split_once(':').and_then(|(source, _)| self.ignored.get_key_value(source))
        {
            return Err(format!(
                "@{name}: {origin}: a program prints the groups of {source}, and labsh does not \
                 run it; write them into a file of groups"
            ));
        }
        let parts = self.groups.get(name);
        let members = |parts: &Vec<Group>| {
            parts.iter().map(|part| part.members.as_str()).collect::<Vec<_>>().join("\n")
        };
        Ok(parts.map(members))
    }

    fn all(&self) -> Result<String, String> {
        if self.tables.is_empty() && self.groups.is_empty() && self.other_hosts.is_empty() {
            return Err(
                "no hosts are known; write them into ~/.config/labsh/hosts.toml, in a group or a \
                 table"
                    .to_owned(),
            );
        }
        let groups = self.groups.keys().map(|name| format!("@{name}"));
        Ok(groups.collect::<Vec<_>>().join("\n"))
    }

    fn all_names(&self) -> NodeSet {
        let plain_tables = self.tables.iter().filter(|table| table.settings == Settings::default());
        let names = plain_tables.flat_map(|table| &table.hosts);
        names.chain(self.other_hosts.iter().map(String::as_str)).collect()
    }

    fn file(&self, path: &str, named_by: NamedBy) -> Result<String, String> {
        host_list::read(path, named_by)
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        let target: Result<Target, _> = name.parse();
        target.map(drop).map_err(|error| format!("{name:?} is not a host: {error}"))
    }

    fn names(&self) -> Vec<String> {
        // Leaves out the long name of a group that has a short one as well, and the `*` of a
        // source, which is all of its hosts.
        let is_redundant = |name: &str| {
            let Some((_, group)) = name.split_once(':') else { return false };
            let short = self.groups.get(group).and_then(|parts| parts.first());
            group == "*" || short.is_some_and(|short| short.members.strip_prefix('@') == Some(name))
        };
        self.groups.keys().filter(|name| !is_redundant(name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(files: &[&str]) -> Result<Inventory, Diagnostic> {
        let names = ["own", "system"];
        Inventory::new(
            files
                .iter()
                .zip(names)
                .map(|(text, name)| hosts_toml::parse(text, Path::new(name)).unwrap())
                .collect(),
            Vec::new(),
        )
    }

    fn folded(set: &str, inventory: &Inventory) -> String {
        NodeSet::parse(set, inventory).unwrap().to_string()
    }

    fn host(text: &str) -> Host {
        text.parse::<Target>().unwrap().host
    }

    fn merged(inventory: &Inventory, name: &str) -> ConnectionOverrides {
        let entries = inventory.entries(&host(name)).unwrap();
        entries
            .into_iter()
            .fold(ConnectionOverrides::default(), |merged, entry| merged.or(entry.overrides))
    }

    #[test]
    fn the_packaged_inventory_is_valid() {
        let inventory = inventory(&[include_str!("../../../packaging/hosts.toml")]).unwrap();
        assert_eq!(folded("@lab-a", &inventory), "lab[01-40]");
        assert_eq!(folded("@teaching", &inventory), "lab[01-39,52-60]");
        assert_eq!(folded("@*!@lab-a", &inventory), "lab[52-60]");
        let one = merged(&inventory, "lab07");
        assert_eq!(one.address, Some(host("lab07.cs.example")));
        assert_eq!(one.port, Some(5300));
    }

    #[test]
    fn the_first_definition_of_a_group_wins_and_tables_of_all_files_add_to_it() {
        let inventory = inventory(&[
            "[groups]\na = \"own\"\n[hosts.\"r[1-2]\"]\ngroups = [\"a\", \"b\"]\n",
            "[groups]\na = \"everyones\"\nb = \"other\"\n[hosts.s]\ngroups = [\"a\"]\n",
        ])
        .unwrap();
        assert_eq!(folded("@a", &inventory), "own,r[1-2],s");
        assert_eq!(folded("@b", &inventory), "other,r[1-2]");
        assert_eq!(folded("@*", &inventory), "other,own,r[1-2],s");
        let origins: Vec<String> = inventory.origins("a").iter().map(ToString::to_string).collect();
        assert_eq!(origins, ["own:2", "own:4", "system:5"]);
    }

    #[test]
    fn tables_for_fewer_hosts_win_and_the_users_file_wins_over_the_systems() {
        let inventory = inventory(&[
            "[hosts.\"lab[01-40]\"]\naddress = \"{host}.example\"\nport = 1\nkey = \"k\"\n\
             [hosts.\"lab[01-10]\"]\nport = 2\nuser = \"u\"\n",
            "[hosts.LAB07]\nport = 3\n[hosts.\"lab[11-20]\"]\nport = 4\n[hosts.\"x,y\"]\nport = \
             5\n",
        ])
        .unwrap();
        let seven = merged(&inventory, "Lab07");
        assert_eq!(seven.address, Some(host("lab07.example")));
        assert_eq!((seven.port, seven.user.as_deref()), (Some(3), Some("u")));
        assert_eq!(seven.key, Some("k".parse().unwrap()));
        assert_eq!(merged(&inventory, "lab08").port, Some(2));
        assert_eq!(merged(&inventory, "lab11").port, Some(4));
        assert_eq!(merged(&inventory, "lab40").port, Some(1));
        assert_eq!(merged(&inventory, "elsewhere"), ConnectionOverrides::default());
        let origin = &inventory.entries(&host("lab08")).unwrap()[1].origin;
        assert_eq!(origin.to_string(), "own:6");
    }

    #[test]
    fn the_port_setting_wins_over_the_port_in_the_address() {
        let inventory = inventory(&[
            "[hosts.a]\naddress = \"[::1]:7\"\nport = 8\n[hosts.b]\naddress = \"h:7\"\n",
        ]);
        let inventory = inventory.unwrap();
        assert_eq!(merged(&inventory, "a").port, Some(8));
        assert_eq!(merged(&inventory, "b").port, Some(7));
    }

    #[test]
    fn contradictory_tables_are_an_error_unless_a_more_specific_one_decides() {
        let text = "[hosts.\"a,b\"]\nport = 1\n[hosts.\"b,c\"]\nport = 2\nkey = \"k\"\n";
        let contradictory = inventory(&[text]).unwrap();
        assert_eq!(merged(&contradictory, "a").port, Some(1));
        let message = contradictory.entries(&host("b")).unwrap_err().to_string();
        assert!(
            message.starts_with("own:4: the port of b is \"2\" here and \"1\" in line 2"),
            "{message}"
        );
        let decided = inventory(&[&format!("{text}[hosts.b]\nport = 3\n")]).unwrap();
        assert_eq!(merged(&decided, "b").port, Some(3));
        // The user's file wins over the system's: they do not contradict each other.
        let two = inventory(&["[hosts.b]\nport = 1\n", "[hosts.b]\nport = 2\n"]).unwrap();
        assert_eq!(merged(&two, "b").port, Some(1));
    }

    #[test]
    fn an_endless_list_of_hosts_does_not_fill_the_memory() {
        let endless = NodeSet::parse("^/dev/zero", &Inventory::default()).unwrap_err().to_string();
        assert_eq!(
            endless,
            "cannot read the hosts in /dev/zero: it is larger than 16 MiB; is it a list of hosts?"
        );
    }

    #[test]
    fn a_list_of_hosts_may_begin_with_a_byte_order_mark() {
        // A set has no quotes, and TMPDIR may contain a blank.
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let path = directory.path().join("hosts");
        std::fs::write(&path, "\u{feff}lab1\nlab2\n").unwrap();
        assert_eq!(folded(&format!("^{}", path.display()), &Inventory::default()), "lab[1-2]");
    }

    #[test]
    fn an_invalid_setting_is_reported_with_its_line() {
        for (text, expected) in [
            (
                "[hosts.a]\naddress = \"x y\"\n",
                "own:2: the address is invalid: a target cannot contain ' '",
            ),
            ("[hosts.a]\nhost_id = \"\"\n", "own:2: the host id is invalid: "),
            ("[hosts.a]\nkey = \"a b\"\n", "own:2: \"a b\" is not a key"),
            (
                "[hosts.a]\nkey = \"keys/a\"\n",
                "own:2: \"keys/a\": write the key's file from / or from ~/",
            ),
            ("[hosts.a]\nuser = \"\"\n", "own:2: the user is empty"),
            (
                "\n[hosts.\"lab[1-2]:22\"]\n",
                "own:2: \"lab1:22\" names a port; write it inside the table: port = 22",
            ),
            ("[hosts.\"bob@a\"]\n", "own:1: \"bob@a\" is not a host: "),
        ] {
            let message = inventory(&[text]).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
