//! What is known of hosts and groups, from all files that tell of them; [`crate::config`] decides
//! what wins over it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use labsh_diagnostics::{Diagnostic, Origin};
use labsh_inventory::external::ExternalSources;
use labsh_inventory::hosts_toml::{self, HostsToml};
use labsh_inventory::{Group, HostTable, Setting, Settings};
use labsh_nodeset::{Groups, NodeSetError};
use labsh_proto::key::HostId;

use crate::config::overrides::ConnectionOverrides;
use crate::config::target::{Host, Target};
use crate::keys::key_store::key_in_file;

const FILE: &str = "hosts.toml";

/// The largest list of hosts (`^file`) that is read, in bytes.
const LARGEST_LIST: u64 = 16 << 20;

/// Hosts and groups of hosts.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// In the order in which they are asked: the fewer hosts a table is for, the more exactly it
    /// says what is meant.
    tables: Vec<HostTable>,
    /// The places in `tables` that speak of a host.
    by_host: HashMap<String, Vec<usize>>,
    /// What makes up each group: its definition, and the tables that say that they belong to it.
    groups: BTreeMap<String, Vec<Group>>,
    /// Hosts that are known from elsewhere.
    others: Vec<String>,
    /// Sources of groups that only a program could tell of, which is not run.
    ignored: BTreeMap<String, Origin>,
}

/// What a table sets for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Where it is said.
    pub origin: Origin,
    /// What follows for connections.
    pub overrides: ConnectionOverrides,
    /// The rest.
    pub variables: BTreeMap<String, String>,
}

impl Inventory {
    /// Reads `hosts.toml` in the user's own directory, and behind it in the system's; either may be
    /// missing.
    ///
    /// # Errors
    ///
    /// The first mistake that is found.
    pub fn load(own: &Path, system: &Path) -> Result<Self, Diagnostic> {
        let (mut files, mut others) = (Vec::new(), Vec::new());
        for directory in [own, system] {
            let file = hosts_toml::read(&directory.join(FILE))?;
            others.push(file.sources.read(directory)?);
            files.push(file);
        }
        Self::new(files, others)
    }

    fn new(files: Vec<HostsToml>, others: Vec<ExternalSources>) -> Result<Self, Diagnostic> {
        let mut inventory = Self::default();
        let mut memberships = Vec::new();
        for file in files {
            for (name, group) in file.groups {
                inventory.groups.entry(name).or_insert_with(|| vec![group]);
            }
            memberships.extend(file.memberships);
            for table in &file.tables {
                check(table)?;
            }
            inventory.tables.extend(file.tables);
        }
        let first_of_others = inventory.tables.len();
        for others in others {
            inventory.take(others)?;
        }
        // What a table says of itself adds to a group, wherever that is defined.
        for (name, group) in memberships {
            inventory.groups.entry(name).or_default().push(group);
        }
        // What other tools' files say counts behind all that stands in labsh's own, in the order in
        // which it came.
        inventory.tables[..first_of_others].sort_by_key(|table| table.hosts.len());
        for (place, table) in inventory.tables.iter().enumerate() {
            for name in &table.hosts {
                inventory.by_host.entry(normal(name)).or_default().push(place);
            }
        }
        Ok(inventory)
    }

    /// Takes up what other tools' files say, behind what is known by now.
    fn take(&mut self, others: ExternalSources) -> Result<(), Diagnostic> {
        for (name, source) in others.sources {
            for (group, content) in source.groups {
                // Of `all` and its like there may be one in each: @all is the first source's,
                // @source:all any.
                if others.default_sources.contains(&name)
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
                check(table)?;
            }
            self.tables.extend(source.tables);
        }
        self.ignored.extend(others.ignored);
        Ok(())
    }

    /// Makes hosts known of which nothing is said here.
    pub fn know(&mut self, hosts: impl IntoIterator<Item = String>) {
        self.others.extend(hosts);
    }

    /// Returns the tables for a host, highest precedence first.
    ///
    /// # Errors
    ///
    /// Where that is of no use, or two tables of one file contradict each other and neither is more
    /// exact.
    pub fn entries(&self, host: &Host) -> Result<Vec<TableEntry>, Diagnostic> {
        let name = host.to_string();
        let places = self.by_host.get(&name).map_or(&[][..], Vec::as_slice);
        let mut decided: HashMap<String, (String, &HostTable)> = HashMap::new();
        let mut said = Vec::with_capacity(places.len());
        for table in places.iter().map(|place| &self.tables[*place]) {
            for (what, value) in values(&table.settings) {
                let (first, by) =
                    decided.entry(what.clone()).or_insert_with(|| (value.clone(), table));
                let equal =
                    by.hosts.len() == table.hosts.len() && by.origin.path == table.origin.path;
                if equal && *first != value {
                    let place = match by.origin.line {
                        Some(line) => format!("line {line}"),
                        None => "the same file".to_owned(),
                    };
                    let reason = format!(
                        "the {what} of {name} is {value:?} here and {first:?} in {place}, and \
                         both tables are for {} \
                         hosts; say it in one of them, or in a table for {name} alone",
                        table.hosts.len(),
                    );
                    return Err(Diagnostic { origin: table.origin.clone(), reason });
                }
            }
            said.push(TableEntry {
                origin: table.origin.clone(),
                overrides: overrides(table, &name)?,
                variables: table.settings.variables.clone(),
            });
        }
        Ok(said)
    }

    /// Why a known host cannot be used: what counts for it is said in a way that only another
    /// program understands.
    pub fn unusable(&self, host: &Host) -> Option<Diagnostic> {
        let name = host.to_string();
        let mut said: Vec<Setting> = Vec::new();
        for table in self.by_host.get(&name)?.iter().map(|place| &self.tables[*place]) {
            let unusable =
                table.settings.unusable.iter().find(|(setting, _)| !said.contains(setting));
            if let Some((_, reason)) = unusable {
                return Some(Diagnostic {
                    origin: table.origin.clone(),
                    reason: format!("{name}: {reason}"),
                });
            }
            said.extend(told(&table.settings));
        }
        None
    }

    /// Where a group is defined, and where it is added to.
    pub fn origins(&self, group: &str) -> Vec<&Origin> {
        self.groups.get(group).into_iter().flatten().map(|group| &group.origin).collect()
    }

    /// The line that brought a mistake about, where it is one of a file and not one of whoever
    /// asked.
    pub fn culprit(&self, error: &NodeSetError) -> Option<&Origin> {
        match error {
            NodeSetError::Cycle { cycle } => {
                cycle.iter().find_map(|name| self.origins(name.strip_prefix('@')?).first().copied())
            }
            NodeSetError::UnknownGroup { group, .. } => {
                let named = format!("@{group}");
                let part_of_name = |c: char| !c.is_whitespace() && !",!&^".contains(c);
                self.groups.values().flatten().find_map(|group| {
                    let words = group.members.split(|c| !part_of_name(c));
                    words.into_iter().any(|word| word == named).then_some(&group.origin)
                })
            }
            NodeSetError::InFile { error, .. } => self.culprit(error),
            _ => None,
        }
    }
}

/// A name as [`Host`] shows it.
fn normal(name: &str) -> String {
    match name.contains(':').then(|| name.parse::<Target>()) {
        Some(Ok(target)) => target.host.to_string(),
        _ => name.to_ascii_lowercase(),
    }
}

/// What a table says about the way to a host.
fn told(settings: &Settings) -> impl Iterator<Item = Setting> {
    let Settings { address, port, host_id, key, user, plain, .. } = settings;
    [
        address.as_ref().map(|_| Setting::Address),
        port.map(|_| Setting::Port),
        host_id.as_ref().map(|_| Setting::HostId),
        key.as_ref().map(|_| Setting::Key),
        user.as_ref().map(|_| Setting::User),
        plain.map(|_| Setting::Plain),
    ]
    .into_iter()
    .flatten()
}

/// What a table says, with a name for each value.
fn values(settings: &Settings) -> Vec<(String, String)> {
    let Settings { address, port, host_id, key, user, plain, unusable: _, variables } = settings;
    let mut values: Vec<(String, String)> = [
        ("address", address.clone()),
        ("port", port.map(|port| port.to_string())),
        ("host id", host_id.clone()),
        ("key", key.clone()),
        ("user", user.clone()),
        ("mode (plain)", plain.map(|plain| plain.to_string())),
    ]
    .into_iter()
    .filter_map(|(what, value)| Some((what.to_owned(), value?)))
    .collect();
    values
        .extend(variables.iter().map(|(name, value)| (format!("variable {name}"), value.clone())));
    values
}

/// Finds what cannot be meant before anybody asks for one of the hosts.
fn check(table: &HostTable) -> Result<(), Diagnostic> {
    let diagnostic = |reason: String| Diagnostic { origin: table.origin.clone(), reason };
    if table.settings != Settings::default() {
        return table
            .hosts
            .iter()
            .take(1)
            .try_for_each(|name| overrides(table, &normal(name)).map(drop));
    }
    for name in &table.hosts {
        let target: Target =
            name.parse().map_err(|error| diagnostic(format!("{name:?} is no host: {error}")))?;
        if let Some(port) = target.port {
            let reason = format!("{name:?} names a port; write it inside the table: port = {port}");
            return Err(diagnostic(reason));
        }
    }
    Ok(())
}

/// What a table means for connections to one of its hosts.
fn overrides(table: &HostTable, host: &str) -> Result<ConnectionOverrides, Diagnostic> {
    let Settings { address, port, host_id, key, user, plain, unusable: _, variables: _ } =
        &table.settings;
    let diagnostic = |reason: String| Diagnostic { origin: table.origin.clone(), reason };
    let named = |text: &String| {
        let named = text.replace("{host}", host);
        match named.contains(['{', '}']) {
            true => Err(diagnostic(format!(
                "{text:?}: of what stands in braces, only {{host}} is filled in"
            ))),
            false => Ok(named),
        }
    };
    let address = address
        .as_ref()
        .map(named)
        .transpose()?
        .map(|text| text.parse::<Target>())
        .transpose()
        .map_err(|error| diagnostic(format!("the address is none: {error}")))?;
    let host_id = host_id
        .as_ref()
        .map(named)
        .transpose()?
        .map(|text| HostId::new(&text))
        .transpose()
        .map_err(|error| diagnostic(format!("the host id is none: {error}")))?;
    if user.as_deref().is_some_and(str::is_empty) {
        return Err(diagnostic("the user is empty; name one, or leave the line out".to_owned()));
    }
    let (address, behind_it) = address.map(|target| (target.host, target.port)).unzip();
    Ok(ConnectionOverrides {
        address,
        port: port.or(behind_it.flatten()),
        host_id,
        key: key.as_deref().map(key_in_file).transpose().map_err(diagnostic)?,
        user: user.clone(),
        plain: *plain,
        ..ConnectionOverrides::default()
    })
}

impl Groups for Inventory {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        if let Some((source, origin)) =
            name.split_once(':').and_then(|(source, _)| self.ignored.get_key_value(source))
        {
            return Err(format!(
                "@{name}: {origin}: the groups of {source} are told by a program, which labsh \
                 does not run; write them \
                 into a file of groups"
            ));
        }
        let parts = self.groups.get(name);
        let members = |parts: &Vec<Group>| {
            parts.iter().map(|part| part.members.as_str()).collect::<Vec<_>>().join("\n")
        };
        Ok(parts.map(members))
    }

    fn all(&self) -> Result<String, String> {
        // Each table once.
        let tables = self.tables.iter().filter(|table| table.settings == Settings::default());
        let mut all: Vec<String> = tables.map(|table| table.hosts.to_string()).collect();
        all.extend(self.groups.keys().map(|name| format!("@{name}")));
        all.extend(self.others.iter().cloned());
        if all.is_empty() {
            return Err(
                "no hosts are known; write them into ~/.config/labsh/hosts.toml, as a group or as \
                 a table"
                    .to_owned(),
            );
        }
        Ok(all.join("\n"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        // It may be a pipe or a device, which need not have an end.
        let mut text = String::new();
        let read =
            File::open(path).and_then(|file| file.take(LARGEST_LIST + 1).read_to_string(&mut text));
        match read {
            Ok(_) if text.len() as u64 <= LARGEST_LIST => Ok(text),
            Ok(_) => Err(format!(
                "cannot read the hosts in {path}: it is larger than {} MiB; is it a list of hosts?",
                LARGEST_LIST >> 20
            )),
            Err(error) => Err(format!("cannot read the hosts in {path}: {error}")),
        }
    }

    fn names(&self) -> Vec<String> {
        // Each once: by its shorter name where it has two, and without what only `@*` of a source
        // is.
        let longer = |name: &str| {
            let Some((_, group)) = name.split_once(':') else { return false };
            let short = self.groups.get(group).and_then(|parts| parts.first());
            group == "*" || short.is_some_and(|short| short.members.strip_prefix('@') == Some(name))
        };
        self.groups.keys().filter(|name| !longer(name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use labsh_nodeset::NodeSet;

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

    /// What holds in the end, without its places.
    fn merged(inventory: &Inventory, name: &str) -> ConnectionOverrides {
        let entries = inventory.entries(&host(name)).unwrap();
        entries
            .into_iter()
            .fold(ConnectionOverrides::default(), |so_far, said| so_far.or(said.overrides))
    }

    #[test]
    fn the_packaged_inventory_is_understood() {
        let inventory = inventory(&[include_str!("../../../packaging/hosts.toml")]).unwrap();
        assert_eq!(folded("@lab-a", &inventory), "lab[01-40]");
        assert_eq!(folded("@teaching", &inventory), "lab[01-39,52-60]");
        assert_eq!(folded("@*!@lab-a", &inventory), "lab[52-60]");
        let one = merged(&inventory, "lab07");
        assert_eq!(one.address, Some(host("lab07.cs.example")));
        assert_eq!(one.port, Some(5300));
    }

    #[test]
    fn the_first_file_that_defines_a_group_wins_and_tables_add_to_it() {
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
    fn fewer_hosts_win_over_more_and_your_file_over_the_systems() {
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
    fn a_port_that_is_said_wins_over_one_behind_the_address() {
        let inventory = inventory(&[
            "[hosts.a]\naddress = \"[::1]:7\"\nport = 8\n[hosts.b]\naddress = \"h:7\"\n",
        ]);
        let inventory = inventory.unwrap();
        assert_eq!(merged(&inventory, "a").port, Some(8));
        assert_eq!(merged(&inventory, "b").port, Some(7));
    }

    #[test]
    fn tables_that_contradict_each_other_are_told_unless_a_more_exact_one_decides() {
        let text = "[hosts.\"a,b\"]\nport = 1\n[hosts.\"b,c\"]\nport = 2\nkey = \"k\"\n";
        let contradictory = inventory(&[text]).unwrap();
        assert_eq!(merged(&contradictory, "a").port, Some(1));
        let told = contradictory.entries(&host("b")).unwrap_err().to_string();
        assert!(
            told.starts_with("own:4: the port of b is \"2\" here and \"1\" in line 2"),
            "{told}"
        );
        let decided = inventory(&[&format!("{text}[hosts.b]\nport = 3\n")]).unwrap();
        assert_eq!(merged(&decided, "b").port, Some(3));
        // Your own file wins over the system's: that is no contradiction.
        let two = inventory(&["[hosts.b]\nport = 1\n", "[hosts.b]\nport = 2\n"]).unwrap();
        assert_eq!(merged(&two, "b").port, Some(1));
    }

    #[test]
    fn a_list_of_hosts_without_an_end_does_not_fill_the_memory() {
        let endless = NodeSet::parse("^/dev/zero", &Inventory::default()).unwrap_err().to_string();
        assert_eq!(
            endless,
            "cannot read the hosts in /dev/zero: it is larger than 16 MiB; is it a list of hosts?"
        );
    }

    #[test]
    fn a_value_that_is_of_no_use_is_named_with_its_line() {
        for (text, told) in [
            (
                "[hosts.a]\naddress = \"x y\"\n",
                "own:2: the address is none: a target cannot contain ' '",
            ),
            ("[hosts.a]\nhost_id = \"\"\n", "own:2: the host id is none: "),
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
            ("[hosts.\"bob@a\"]\n", "own:1: \"bob@a\" is no host: "),
        ] {
            let told_here = inventory(&[text]).unwrap_err().to_string();
            assert!(told_here.starts_with(told), "{told_here}");
        }
    }
}
