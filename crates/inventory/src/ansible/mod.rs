//! Ansible's inventories: hosts, groups and variables while they are read, in either of two forms.
//!
//! [`ini`] and [`yaml`] parse the two forms into an [`Inventory`], `resolve` works out who belongs
//! to which group, and `precedence` which definition of a variable applies to a host.

pub mod ini;
mod pattern;
mod precedence;
mod resolve;
mod settings;
mod vars;
pub mod yaml;

use std::collections::HashMap;

use labsh_diagnostics::Diagnostic;
use labsh_nodeset::MAX_HOSTS;

use crate::input_file::InputFile;
use crate::names;
use crate::yaml::Node;

/// How many hosts the groups and variables of an inventory may name in all, each host counted every
/// time it is named.
const MAX_HOST_MENTIONS: usize = 4_000_000;

/// The longest pattern of hosts, in bytes.
const MAX_PATTERN_BYTES: usize = 1000;

/// The indices of the groups that every inventory has.
const ALL: usize = 0;
const UNGROUPED: usize = 1;

/// A variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `None` or `null`, which also hides definitions of lower precedence.
    Null,
    /// A string, number or boolean, as written.
    Text(String),
    /// A list or a table, as JSON.
    Structure(String),
    /// An encrypted value.
    Encrypted,
}

impl From<&Node> for Value {
    fn from(node: &Node) -> Self {
        match &node.value {
            crate::yaml::Value::Null => Self::Null,
            crate::yaml::Value::Scalar(text) => Self::Text(text.clone()),
            crate::yaml::Value::Encrypted => Self::Encrypted,
            crate::yaml::Value::List(_) | crate::yaml::Value::Table(_) => {
                Self::Structure(node.json().to_string())
            }
        }
    }
}

/// An inventory while it is being read.
#[derive(Debug)]
pub(crate) struct Inventory {
    /// The inventory file, followed by files of variables; the last one is being read.
    files: Vec<InputFile>,
    hosts: Vec<String>,
    host_by_name: HashMap<String, usize>,
    groups: Vec<AnsibleGroup>,
    group_by_name: HashMap<String, usize>,
    definitions: Vec<Definition>,
    host_mentions: usize,
}

/// A group while the inventory is being read. Hosts and groups are indices.
#[derive(Debug)]
struct AnsibleGroup {
    name: String,
    /// `None` where the group only exists because every inventory has it.
    line: Option<usize>,
    priority: i64,
    hosts: Vec<usize>,
    /// Each child with the line that names it.
    children: Vec<(usize, Option<usize>)>,
}

/// One assignment of a value to a variable.
#[derive(Debug)]
struct Definition {
    variable: String,
    value: Value,
    /// An index in [`Inventory::files`].
    file: usize,
    line: usize,
    scope: Scope,
}

/// What a variable is defined for, as indices.
#[derive(Debug)]
enum Scope {
    Group(usize),
    Hosts(Vec<usize>),
}

/// Whether a file of variables is for a host or for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Host,
    Group,
}

impl AnsibleGroup {
    fn new(name: &str, line: Option<usize>) -> Self {
        Self { name: name.to_owned(), line, priority: 1, hosts: Vec::new(), children: Vec::new() }
    }
}

impl Inventory {
    /// Returns an inventory with the groups `all` and `ungrouped` only.
    pub(crate) fn new(file: InputFile) -> Self {
        let mut inventory = Self {
            files: vec![file],
            hosts: Vec::new(),
            host_by_name: HashMap::new(),
            groups: Vec::new(),
            group_by_name: HashMap::new(),
            definitions: Vec::new(),
            host_mentions: 0,
        };
        for name in ["all", "ungrouped"] {
            inventory.group_by_name.insert(name.to_owned(), inventory.groups.len());
            inventory.groups.push(AnsibleGroup::new(name, None));
        }
        inventory.groups[ALL].children.push((UNGROUPED, None));
        inventory
    }

    /// Returns an error in the file that is being read.
    pub(crate) fn diagnostic(
        &self,
        line: impl Into<Option<usize>>,
        reason: impl Into<String>,
    ) -> Diagnostic {
        self.files[self.files.len() - 1].diagnostic(line, reason)
    }

    /// Starts reading a file of variables: definitions from now on come from it.
    pub(crate) fn begin_variables(&mut self, file: InputFile) {
        self.files.push(file);
    }

    /// Returns whether the inventory has such a host or group.
    pub(crate) fn has(&self, owner: Owner, name: &str) -> bool {
        self.index_by_name(owner).contains_key(name)
    }

    fn index_by_name(&self, owner: Owner) -> &HashMap<String, usize> {
        match owner {
            Owner::Host => &self.host_by_name,
            Owner::Group => &self.group_by_name,
        }
    }

    /// Defines a variable of a host or group in a file of its own; an unknown name is ignored.
    pub(crate) fn variable_of(
        &mut self,
        owner: Owner,
        name: &str,
        variable: &str,
        value: Value,
        line: usize,
    ) {
        if let Some(index) = self.index_by_name(owner).get(name).copied() {
            let scope = match owner {
                Owner::Host => Scope::Hosts(vec![index]),
                Owner::Group => Scope::Group(index),
            };
            self.define(scope, variable, value, line);
        }
    }

    /// Returns the group of this name, which is created if it is new.
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
        names::check_group(name).map_err(|reason| self.diagnostic(line, reason))?;
        self.group_by_name.insert(name.to_owned(), self.groups.len());
        self.groups.push(AnsibleGroup::new(name, line));
        Ok(self.groups.len() - 1)
    }

    /// Makes `child` a child of `parent`.
    pub(crate) fn child(&mut self, parent: usize, child: usize, line: usize) {
        self.groups[parent].children.push((child, Some(line)));
    }

    /// Adds the hosts of a pattern to a group and returns them.
    pub(crate) fn hosts(
        &mut self,
        group: usize,
        pattern: &str,
        line: usize,
    ) -> Result<Vec<usize>, Diagnostic> {
        if pattern.len() > MAX_PATTERN_BYTES {
            let reason =
                format!("a host's name is longer than {MAX_PATTERN_BYTES} bytes; shorten it");
            return Err(self.diagnostic(line, reason));
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
            names::check_host(&name).map_err(|reason| self.diagnostic(line, reason))?;
            if self.hosts.len() >= MAX_HOSTS {
                let reason =
                    format!("there are more than {MAX_HOSTS} hosts; is there a digit too many?");
                return Err(self.diagnostic(line, reason));
            }
            hosts.push(self.hosts.len());
            new.push(self.hosts.len());
            self.host_by_name.insert(name.clone(), self.hosts.len());
            self.hosts.push(name);
        }
        self.count_mentions(hosts.len(), line)?;
        self.groups[group].hosts.extend(&hosts);
        // A later mention of a host with another port does not change its port.
        if let Some(port) = port.filter(|_| !new.is_empty()) {
            self.define(Scope::Hosts(new), "ansible_port", Value::Text(port.to_owned()), line);
        }
        Ok(hosts)
    }

    /// Defines a variable of hosts. Where a group has the name of a host, the variable is the
    /// group's, as in Ansible.
    pub(crate) fn host_variable(
        &mut self,
        hosts: &[usize],
        variable: &str,
        value: &Value,
        line: usize,
    ) -> Result<(), Diagnostic> {
        self.count_mentions(hosts.len(), line)?;
        let (mut own, mut groups) = (Vec::new(), Vec::new());
        for host in hosts {
            match self.group_by_name.get(&self.hosts[*host]) {
                Some(group) => groups.push(*group),
                None => own.push(*host),
            }
        }
        for group in groups {
            self.define(Scope::Group(group), variable, value.clone(), line);
        }
        if !own.is_empty() {
            self.define(Scope::Hosts(own), variable, value.clone(), line);
        }
        Ok(())
    }

    /// Defines a variable of a group; `ansible_group_priority` is the group's priority instead.
    pub(crate) fn group_variable(
        &mut self,
        group: usize,
        variable: &str,
        value: Value,
        line: usize,
    ) -> Result<(), Diagnostic> {
        if variable != "ansible_group_priority" {
            self.define(Scope::Group(group), variable, value, line);
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

    fn define(&mut self, scope: Scope, variable: &str, value: Value, line: usize) {
        let file = self.files.len() - 1;
        self.definitions.push(Definition {
            variable: variable.to_owned(),
            value,
            file,
            line,
            scope,
        });
    }

    /// Counts hosts towards [`MAX_HOST_MENTIONS`].
    fn count_mentions(
        &mut self,
        hosts: usize,
        line: impl Into<Option<usize>>,
    ) -> Result<(), Diagnostic> {
        self.host_mentions += hosts;
        if self.host_mentions > MAX_HOST_MENTIONS {
            let reason = "all groups and variables together name too many hosts; split the file";
            return Err(self.diagnostic(line, reason));
        }
        Ok(())
    }
}
