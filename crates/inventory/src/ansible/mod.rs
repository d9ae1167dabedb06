//! What Ansible makes of hosts, groups and variables: who belongs where, and whose variable counts.
//!
//! Both forms of its inventories, INI and YAML, are read into this. A variable counts for a host as
//! <https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_variables.html> says.
//! The host's own count before those of its groups, a child group's before its parents', `all`
//! last; among groups of the same depth the one with the higher `ansible_group_priority`, then the
//! one whose name comes later.
//! Files in `host_vars` count before all that, files in `group_vars` before all but the host's own.
//! Within one place, the last line counts.

pub mod ini;
mod pattern;
mod vars;
pub mod yaml;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use labsh_diagnostics::Diagnostic;
use labsh_nodeset::{MAX_HOSTS, NodeSet};

use crate::input_file::Place;
use crate::{Group, Room, Setting, Settings, Source, names};

/// The most that a file may come to, in hosts of lines, of groups and of variables, each host
/// counted each time.
const MOST_WORK: usize = 4_000_000;

/// The longest pattern of hosts, in bytes: no name is as long as that.
const LONGEST_PATTERN: usize = 1000;

const ALL: usize = 0;
const UNGROUPED: usize = 1;

/// A variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `None` or `null`: as if it had not been said, here or in a place that counts less.
    Nothing,
    /// Text, a number or a truth value, as written.
    Text(String),
    /// A list or a table, as JSON.
    Structure(String),
    /// Something encrypted.
    Secret,
}

/// An inventory while it is being read.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The inventory itself, and behind it files with variables; the last is the one that is being
    /// read.
    places: Vec<Place>,
    hosts: Vec<String>,
    host_by_name: HashMap<String, usize>,
    groups: Vec<Member>,
    group_by_name: HashMap<String, usize>,
    definitions: Vec<Definition>,
    work: usize,
}

#[derive(Debug)]
struct Member {
    name: String,
    line: Option<usize>,
    priority: i64,
    hosts: Vec<usize>,
    /// Each with the line that says so.
    children: Vec<(usize, Option<usize>)>,
}

#[derive(Debug)]
struct Definition {
    variable: String,
    value: Value,
    /// Of `places`.
    file: usize,
    line: usize,
    whose: Whose,
}

#[derive(Debug)]
enum Whose {
    Group(usize),
    Hosts(Vec<usize>),
}

/// A file of `places`, a line in it, and hosts.
type Line = (usize, usize, Vec<usize>);

impl Definition {
    fn of(&self, hosts: Vec<usize>) -> Line {
        (self.file, self.line, hosts)
    }
}

/// The hosts for which a definition counts.
struct Counting {
    definition: usize,
    hosts: Vec<usize>,
}

/// What labsh takes from an inventory, and the variables that say it, the one that counts most
/// first. They are those of labsh's connection plugin; the names for ssh come behind them.
const SETTINGS: [(Setting, &[&str]); 6] = [
    (Setting::Address, &["ansible_labsh_target", "ansible_host", "ansible_ssh_host"]),
    (Setting::Port, &["ansible_labsh_port", "ansible_port"]),
    (Setting::HostId, &["ansible_labsh_host_id"]),
    (Setting::Key, &["ansible_labsh_key"]),
    (Setting::User, &["ansible_labsh_user", "ansible_user", "ansible_ssh_user"]),
    (Setting::Plain, &["ansible_labsh_plain"]),
];

impl Inventory {
    /// One with nothing in it but the groups that are always there.
    pub(crate) fn new(place: Place) -> Self {
        let mut inventory = Self {
            places: vec![place],
            hosts: Vec::new(),
            host_by_name: HashMap::new(),
            groups: Vec::new(),
            group_by_name: HashMap::new(),
            definitions: Vec::new(),
            work: 0,
        };
        for name in ["all", "ungrouped"] {
            inventory.group_by_name.insert(name.to_owned(), inventory.groups.len());
            inventory.groups.push(Member::new(name, None));
        }
        inventory.groups[ALL].children.push((UNGROUPED, None));
        inventory
    }

    pub(crate) fn diagnostic(
        &self,
        line: impl Into<Option<usize>>,
        reason: impl Into<String>,
    ) -> Diagnostic {
        self.places[self.places.len() - 1].diagnostic(line, reason)
    }

    /// What is defined from now on is in this file of variables.
    pub(crate) fn begin_variables(&mut self, place: Place) {
        self.places.push(place);
    }

    /// Whether there is such a host, or such a group.
    pub(crate) fn has(&self, host: bool, name: &str) -> bool {
        if host {
            self.host_by_name.contains_key(name)
        } else {
            self.group_by_name.contains_key(name)
        }
    }

    /// A variable of a host or of a group that stands in a file of its own.
    pub(crate) fn variable_of(
        &mut self,
        host: bool,
        name: &str,
        variable: &str,
        value: Value,
        line: usize,
    ) {
        let by_name = if host { &self.host_by_name } else { &self.group_by_name };
        if let Some(index) = by_name.get(name).copied() {
            let whose = if host { Whose::Hosts(vec![index]) } else { Whose::Group(index) };
            self.define(whose, variable, value, line);
        }
    }

    /// The group of this name, which may be new.
    pub(crate) fn group(
        &mut self,
        name: &str,
        line: impl Into<Option<usize>>,
    ) -> Result<usize, Diagnostic> {
        let line = line.into();
        if let Some(group) = self.group_by_name.get(name) {
            let known = &mut self.groups[*group];
            known.line = known.line.or(line);
            return Ok(*group);
        }
        names::group(name).map_err(|reason| self.diagnostic(line, reason))?;
        self.group_by_name.insert(name.to_owned(), self.groups.len());
        self.groups.push(Member::new(name, line));
        Ok(self.groups.len() - 1)
    }

    pub(crate) fn child(&mut self, parent: usize, child: usize, line: usize) {
        self.groups[parent].children.push((child, Some(line)));
    }

    /// The hosts of a pattern become members of a group.
    pub(crate) fn hosts(
        &mut self,
        group: usize,
        pattern: &str,
        line: usize,
    ) -> Result<Vec<usize>, Diagnostic> {
        if pattern.len() > LONGEST_PATTERN {
            return Err(self.diagnostic(
                line,
                format!("a host's name is longer than {LONGEST_PATTERN} bytes; shorten it"),
            ));
        }
        let (pattern, port) = pattern::split_port(pattern);
        let names = pattern::expand(pattern).map_err(|reason| self.diagnostic(line, reason))?;
        let mut hosts = Vec::with_capacity(names.len());
        let mut new = Vec::new();
        for name in names {
            if let Some(host) = self.host_by_name.get(&name) {
                hosts.push(*host);
                continue;
            }
            names::host(&name).map_err(|reason| self.diagnostic(line, reason))?;
            if self.hosts.len() >= MAX_HOSTS {
                return Err(self.diagnostic(
                    line,
                    format!("there are more than {MAX_HOSTS} hosts; is there a digit too many?"),
                ));
            }
            hosts.push(self.hosts.len());
            new.push(self.hosts.len());
            self.host_by_name.insert(name.clone(), self.hosts.len());
            self.hosts.push(name);
        }
        self.spend(hosts.len(), line)?;
        self.groups[group].hosts.extend(&hosts);
        // Later mentions of a host with another port do not change it.
        if let Some(port) = port.filter(|_| !new.is_empty()) {
            self.define(Whose::Hosts(new), "ansible_port", Value::Text(port.to_owned()), line);
        }
        Ok(hosts)
    }

    /// A variable of hosts. Where a group has a host's name, Ansible gives the variable to the
    /// group.
    pub(crate) fn host_variable(
        &mut self,
        hosts: &[usize],
        variable: &str,
        value: &Value,
        line: usize,
    ) -> Result<(), Diagnostic> {
        self.spend(hosts.len(), line)?;
        let (mut own, mut groups) = (Vec::new(), Vec::new());
        for host in hosts {
            match self.group_by_name.get(&self.hosts[*host]) {
                Some(group) => groups.push(*group),
                None => own.push(*host),
            }
        }
        for group in groups {
            self.define(Whose::Group(group), variable, value.clone(), line);
        }
        if !own.is_empty() {
            self.define(Whose::Hosts(own), variable, value.clone(), line);
        }
        Ok(())
    }

    pub(crate) fn group_variable(
        &mut self,
        group: usize,
        variable: &str,
        value: Value,
        line: usize,
    ) -> Result<(), Diagnostic> {
        if variable != "ansible_group_priority" {
            self.define(Whose::Group(group), variable, value, line);
            return Ok(());
        }
        let priority = match &value {
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.groups[group].priority = priority.ok_or_else(|| {
            self.diagnostic(line, "ansible_group_priority is a whole number; write for example 10")
        })?;
        Ok(())
    }

    fn spend(&mut self, hosts: usize, line: impl Into<Option<usize>>) -> Result<(), Diagnostic> {
        self.work += hosts;
        if self.work > MOST_WORK {
            return Err(self.diagnostic(
                line,
                "all groups and variables together are for too many hosts; split the file",
            ));
        }
        Ok(())
    }

    fn define(&mut self, whose: Whose, variable: &str, value: Value, line: usize) {
        let file = self.places.len() - 1;
        self.definitions.push(Definition {
            variable: variable.to_owned(),
            value,
            file,
            line,
            whose,
        });
    }

    /// Everything has been read.
    pub(crate) fn finish(mut self) -> Result<Source, Diagnostic> {
        self.adopt();
        let order = self.ancestors_first()?;
        let depths = self.depths(&order);
        let members = self.members(&order)?;
        let rooms = self.rooms(&depths, &members)?;
        let groups =
            self.groups.iter().map(|group| (group.name.clone(), self.written(group))).collect();
        Ok(Source { groups, rooms })
    }

    /// Gives parents to groups and hosts that have none.
    fn adopt(&mut self) {
        let mut has_parent = vec![false; self.groups.len()];
        for group in &self.groups {
            group.children.iter().for_each(|(child, _)| has_parent[*child] = true);
        }
        for (group, has_parent) in has_parent.into_iter().enumerate().skip(1) {
            if !has_parent {
                let line = self.groups[group].line;
                self.groups[ALL].children.push((group, line));
            }
        }
        let mut grouped = vec![false; self.hosts.len()];
        for group in &self.groups[UNGROUPED + 1..] {
            group.hosts.iter().for_each(|host| grouped[*host] = true);
        }
        self.groups[UNGROUPED].hosts =
            (0..self.hosts.len()).filter(|host| !grouped[*host]).collect();
    }

    /// The groups, each behind all of which it is a child.
    fn ancestors_first(&self) -> Result<Vec<usize>, Diagnostic> {
        let mut parents = vec![0_usize; self.groups.len()];
        for group in &self.groups {
            group.children.iter().for_each(|(child, _)| parents[*child] += 1);
        }
        let mut order: Vec<usize> =
            (0..self.groups.len()).filter(|group| parents[*group] == 0).collect();
        let mut next = 0;
        while next < order.len() {
            for (child, _) in &self.groups[order[next]].children {
                parents[*child] -= 1;
                if parents[*child] == 0 {
                    order.push(*child);
                }
            }
            next += 1;
        }
        match parents.iter().position(|left| *left > 0) {
            None => Ok(order),
            Some(group) => Err(self.circle(group, &parents)),
        }
    }

    /// Of groups that have parents left, each has one that has parents left too: going up, a circle
    /// closes.
    fn circle(&self, start: usize, parents_left: &[usize]) -> Diagnostic {
        let mut parent_of = vec![None; self.groups.len()];
        for (parent, group) in
            self.groups.iter().enumerate().filter(|(parent, _)| parents_left[*parent] > 0)
        {
            for (child, line) in &group.children {
                parent_of[*child] = Some((parent, *line));
            }
        }
        let (mut way, mut passed) = (Vec::new(), vec![false; self.groups.len()]);
        let (mut group, mut at) = (start, self.groups[start].line);
        while !std::mem::replace(&mut passed[group], true) {
            way.push(group);
            let Some((parent, line)) = parent_of[group] else { break };
            (group, at) = (parent, line);
        }
        let circle = way.iter().skip_while(|passed| **passed != group).chain([&group]);
        let mut names: Vec<&str> = circle.map(|group| self.groups[*group].name.as_str()).collect();
        if names.len() > 10 {
            names.splice(5..names.len() - 1, ["…"]);
        }
        let reason = format!("the groups form a cycle: {}; take one out", names.join(" ← "));
        self.places[0].diagnostic(at, reason)
    }

    /// The longest way down from `all`.
    fn depths(&self, order: &[usize]) -> Vec<usize> {
        let mut depths = vec![0; self.groups.len()];
        for group in order {
            for (child, _) in &self.groups[*group].children {
                depths[*child] = depths[*child].max(depths[*group] + 1);
            }
        }
        depths
    }

    /// The hosts of each group and of its children.
    fn members(&mut self, order: &[usize]) -> Result<Vec<Vec<usize>>, Diagnostic> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        for group in order.iter().rev() {
            let mut hosts = self.groups[*group].hosts.clone();
            let inherited =
                self.groups[*group].children.iter().map(|(child, _)| members[*child].len()).sum();
            self.spend(inherited, self.groups[*group].line)?;
            for (child, _) in &self.groups[*group].children {
                hosts.extend(&members[*child]);
            }
            hosts.sort_unstable();
            hosts.dedup();
            members[*group] = hosts;
        }
        Ok(members)
    }

    /// A group as an expression: its own hosts, and its children by name.
    fn written(&self, group: &Member) -> Group {
        let mut members =
            NodeSet::of(group.hosts.iter().map(|host| self.hosts[*host].as_str())).to_string();
        let mut children: Vec<&str> =
            group.children.iter().map(|(child, _)| self.groups[*child].name.as_str()).collect();
        children.sort_unstable();
        children.dedup();
        for child in children {
            if !members.is_empty() {
                members.push(',');
            }
            members.push('@');
            members.push_str(child);
        }
        Group { members, origin: self.places[0].line(group.line) }
    }

    /// The settings, each with just those hosts for which its line counts.
    fn rooms(&mut self, depths: &[usize], members: &[Vec<usize>]) -> Result<Vec<Room>, Diagnostic> {
        for index in 0..self.definitions.len() {
            let definition = &self.definitions[index];
            if let Whose::Group(group) = definition.whose {
                self.spend(members[group].len(), definition.line)?;
            }
        }
        let mut by_variable: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, definition) in self.definitions.iter().enumerate() {
            by_variable.entry(&definition.variable).or_default().push(index);
        }
        let mut counting: BTreeMap<&str, Vec<Counting>> = BTreeMap::new();
        for (variable, mut definitions) in by_variable {
            definitions.sort_by_key(|index| {
                let definition = &self.definitions[*index];
                let own_file = definition.file > 0;
                let rank = match &definition.whose {
                    Whose::Hosts(_) => (3 + usize::from(own_file), 0, 0, ""),
                    Whose::Group(group) => {
                        // Files of variables count more than all groups of the inventory, the one
                        // for `all` included.
                        let layer = if own_file { 1 + usize::from(*group != ALL) } else { 0 };
                        let Member { name, priority, .. } = &self.groups[*group];
                        (layer, depths[*group], *priority, name.as_str())
                    }
                };
                Reverse((rank, *index))
            });
            let mut taken = vec![false; self.hosts.len()];
            let mut each = Vec::new();
            for definition in definitions {
                let hosts = match &self.definitions[definition].whose {
                    Whose::Hosts(hosts) => hosts,
                    Whose::Group(group) => &members[*group],
                };
                let hosts = take(hosts.iter().copied(), &mut taken);
                each.push(Counting { definition, hosts });
            }
            counting.insert(variable, each);
        }
        let mut said: BTreeMap<Line, Settings> = BTreeMap::new();
        self.settings(&mut counting, &mut said)?;
        for (variable, each) in counting {
            for Counting { definition, hosts } in each {
                if let Value::Text(text) | Value::Structure(text) =
                    &self.definitions[definition].value
                {
                    let settings = said.entry(self.definitions[definition].of(hosts)).or_default();
                    settings.variables.insert(variable.to_owned(), text.clone());
                }
            }
        }
        let rooms = said.into_iter().filter(|((_, _, hosts), _)| !hosts.is_empty());
        let room = |((file, line, hosts), settings): (Line, Settings)| Room {
            hosts: NodeSet::of(hosts.into_iter().map(|host| self.hosts[host].as_str())),
            settings,
            origin: self.places[file].line(line),
        };
        Ok(rooms.map(room).collect())
    }

    /// Takes those variables out that are settings of labsh.
    fn settings(
        &self,
        counting: &mut BTreeMap<&str, Vec<Counting>>,
        said: &mut BTreeMap<Line, Settings>,
    ) -> Result<(), Diagnostic> {
        // `ansible_port` is the port of whatever makes the connection.
        let mut other = vec![true; self.hosts.len()];
        for Counting { definition, hosts } in
            counting.get("ansible_connection").into_iter().flatten()
        {
            let labsh = matches!(&self.definitions[*definition].value,
                Value::Text(text) if text == "labsh");
            hosts.iter().for_each(|host| other[*host] = !labsh);
        }
        for (setting, variables) in SETTINGS {
            let mut taken = vec![false; self.hosts.len()];
            for variable in variables {
                for Counting { definition, hosts } in counting.remove(variable).unwrap_or_default()
                {
                    let definition = &self.definitions[definition];
                    if definition.value == Value::Nothing {
                        continue;
                    }
                    let (hosts, others): (Vec<usize>, Vec<usize>) = hosts
                        .into_iter()
                        .partition(|host| *variable != "ansible_port" || !other[*host]);
                    if let (Value::Text(text), false) = (&definition.value, others.is_empty()) {
                        let settings = said.entry(definition.of(others)).or_default();
                        settings.variables.insert((*variable).to_owned(), text.clone());
                    }
                    let hosts = take(hosts.into_iter(), &mut taken);
                    if !hosts.is_empty() {
                        let settings = said.entry(definition.of(hosts)).or_default();
                        setting.set(settings, definition).map_err(|reason| {
                            self.places[definition.file].diagnostic(definition.line, reason)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Member {
    fn new(name: &str, line: Option<usize>) -> Self {
        Self { name: name.to_owned(), line, priority: 1, hosts: Vec::new(), children: Vec::new() }
    }
}

impl Setting {
    fn set(self, settings: &mut Settings, definition: &Definition) -> Result<(), String> {
        let variable = &definition.variable;
        let plainly = match self {
            Self::Address => "ansible_labsh_target",
            Self::Port => "ansible_labsh_port",
            Self::User => "ansible_labsh_user",
            Self::HostId | Self::Key | Self::Plain => variable,
        };
        let mut only_ansible = |reason: &str| {
            settings
                .unusable
                .insert(self, format!("{variable} is {reason}; set {plainly} to a plain value"));
        };
        let text = match &definition.value {
            Value::Text(text) => text,
            Value::Nothing => return Ok(()),
            Value::Structure(_) => {
                return Err(format!("{variable} is no single value; write one behind it"));
            }
            Value::Secret => {
                only_ansible("encrypted, and labsh has no key to it");
                return Ok(());
            }
        };
        if text.is_empty() {
            return Ok(());
        }
        let own_name =
            matches!(self, Self::Address | Self::HostId).then(|| with_host(text)).flatten();
        let text = own_name.unwrap_or_else(|| text.clone());
        if ["{{", "{%", "{#"].iter().any(|template| text.contains(template)) {
            only_ansible("a template, which only Ansible can fill in");
            return Ok(());
        }
        match self {
            Self::Address => settings.address = Some(text),
            Self::HostId => settings.host_id = Some(text),
            Self::Key => settings.key = Some(text),
            Self::User => settings.user = Some(text),
            Self::Port => match text.parse().ok().filter(|port| *port > 0) {
                Some(port) => settings.port = Some(port),
                None => {
                    return Err(format!("{variable} is a port; write a number from 1 to 65535"));
                }
            },
            // As Ansible understands truth values.
            Self::Plain => match text.to_lowercase().as_str() {
                "y" | "yes" | "on" | "1" | "true" | "t" => settings.plain = Some(true),
                "n" | "no" | "off" | "0" | "false" | "f" => settings.plain = Some(false),
                _ => return Err(format!("{variable} is true or false; write one of them")),
            },
        }
        Ok(())
    }
}

/// The one template that means the same here: the host's own name.
fn with_host(text: &str) -> Option<String> {
    let (before, rest) = text.split_once("{{")?;
    let (inside, behind) = rest.split_once("}}")?;
    (inside.trim() == "inventory_hostname").then(|| format!("{before}{{host}}{behind}"))
}

/// Those hosts that nobody took before.
fn take(hosts: impl Iterator<Item = usize>, taken: &mut [bool]) -> Vec<usize> {
    let mut hosts: Vec<usize> =
        hosts.filter(|host| !std::mem::replace(&mut taken[*host], true)).collect();
    hosts.sort_unstable();
    hosts
}
