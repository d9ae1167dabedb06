//! Decides which definition of a variable applies to a host.
//!
//! The precedence is that of
//! <https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_variables.html>: a host's own
//! variables come before those of its groups, a child group's before its parents', `all` last;
//! among groups of the same depth the one with the higher `ansible_group_priority`, then the one
//! whose name sorts later. Files in `host_vars` come before all of these, files in `group_vars`
//! before all but the host's own. Within one of these levels, the last line applies.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use labsh_diagnostics::Diagnostic;
use labsh_nodeset::NodeSet;

use super::settings::VARIABLES;
use super::{ALL, AnsibleGroup, Definition, Inventory, Scope, Value};
use crate::{HostTable, Settings};

/// A definition, by its index, and the hosts that it applies to.
struct Effective {
    definition: usize,
    hosts: Vec<usize>,
}

/// The effective definitions of each variable, highest precedence first.
type EffectiveByVariable<'a> = BTreeMap<&'a str, Vec<Effective>>;

/// The index of a file, a line in it, and the hosts that the line applies to.
type LineKey = (usize, usize, Vec<usize>);

impl Definition {
    fn key(&self, hosts: Vec<usize>) -> LineKey {
        (self.file, self.line, hosts)
    }
}

impl Inventory {
    /// Returns the settings and variables, one table for each line and the hosts that it applies
    /// to.
    pub(super) fn tables(
        &mut self,
        depths: &[usize],
        members: &[Vec<usize>],
    ) -> Result<Vec<HostTable>, Diagnostic> {
        for index in 0..self.definitions.len() {
            let definition = &self.definitions[index];
            if let Scope::Group(group) = definition.scope {
                self.count_mentions(members[group].len(), definition.line)?;
            }
        }
        let mut effective = self.effective(depths, members);
        let mut by_line: BTreeMap<LineKey, Settings> = BTreeMap::new();
        self.take_settings(&mut effective, &mut by_line)?;
        for (variable, definitions) in effective {
            for Effective { definition, hosts } in definitions {
                let definition = &self.definitions[definition];
                if let Value::Text(text) | Value::Structure(text) = &definition.value {
                    let settings = by_line.entry(definition.key(hosts)).or_default();
                    settings.variables.insert(variable.to_owned(), text.clone());
                }
            }
        }
        let by_line = by_line.into_iter().filter(|((_, _, hosts), _)| !hosts.is_empty());
        // The lines of one section are for the same hosts.
        let mut last: Option<(Vec<usize>, NodeSet)> = None;
        let table = |((file, line, indices), settings): (LineKey, Settings)| {
            let known = last.take().filter(|(last, _)| *last == indices);
            let (indices, hosts) = known.unwrap_or_else(|| {
                let names = indices.iter().map(|host| self.hosts[*host].as_str());
                let hosts = NodeSet::of(names);
                (indices, hosts)
            });
            last = Some((indices, hosts.clone()));
            HostTable { hosts, settings, origin: self.files[file].origin(line) }
        };
        Ok(by_line.map(table).collect())
    }

    /// Assigns each host to the definition of highest precedence, variable by variable.
    fn effective(&self, depths: &[usize], members: &[Vec<usize>]) -> EffectiveByVariable<'_> {
        let mut by_variable: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, definition) in self.definitions.iter().enumerate() {
            by_variable.entry(&definition.variable).or_default().push(index);
        }
        let mut effective = EffectiveByVariable::new();
        for (variable, mut definitions) in by_variable {
            definitions.sort_by_key(|index| {
                Reverse((self.precedence(&self.definitions[*index], depths), *index))
            });
            let mut taken = vec![false; self.hosts.len()];
            let with_hosts = definitions.into_iter().map(|definition| {
                let hosts = match &self.definitions[definition].scope {
                    Scope::Hosts(hosts) => hosts,
                    Scope::Group(group) => &members[*group],
                };
                Effective { definition, hosts: take(hosts.iter().copied(), &mut taken) }
            });
            effective.insert(variable, with_hosts.collect());
        }
        effective
    }

    /// Returns the rank of a definition; the higher one applies.
    fn precedence(&self, definition: &Definition, depths: &[usize]) -> (usize, usize, i64, &str) {
        let own_file = definition.file > 0;
        match &definition.scope {
            Scope::Hosts(_) => (3 + usize::from(own_file), 0, 0, ""),
            Scope::Group(group) => {
                // Any file in `group_vars` comes before all groups of the inventory itself, even
                // the file for `all`.
                let layer = if own_file { 1 + usize::from(*group != ALL) } else { 0 };
                let AnsibleGroup { name, priority, .. } = &self.groups[*group];
                (layer, depths[*group], *priority, name.as_str())
            }
        }
    }

    /// Moves the variables that are settings of labsh from `effective` to `by_line`.
    fn take_settings(
        &self,
        effective: &mut EffectiveByVariable<'_>,
        by_line: &mut BTreeMap<LineKey, Settings>,
    ) -> Result<(), Diagnostic> {
        // `ansible_port` is the port of whichever connection plugin a host uses.
        let mut uses_labsh = vec![false; self.hosts.len()];
        for Effective { definition, hosts } in
            effective.get("ansible_connection").into_iter().flatten()
        {
            let labsh = matches!(&self.definitions[*definition].value,
                Value::Text(text) if text == "labsh");
            for host in hosts {
                uses_labsh[*host] = labsh;
            }
        }
        for (setting, variables) in VARIABLES {
            let mut taken = vec![false; self.hosts.len()];
            for variable in variables {
                for Effective { definition, hosts } in
                    effective.remove(variable).unwrap_or_default()
                {
                    let definition = &self.definitions[definition];
                    if definition.value == Value::Null {
                        continue;
                    }
                    let (hosts, others): (Vec<usize>, Vec<usize>) = hosts
                        .into_iter()
                        .partition(|host| *variable != "ansible_port" || uses_labsh[*host]);
                    if let (Value::Text(text), false) = (&definition.value, others.is_empty()) {
                        let settings = by_line.entry(definition.key(others)).or_default();
                        settings.variables.insert((*variable).to_owned(), text.clone());
                    }
                    let hosts = take(hosts.into_iter(), &mut taken);
                    if !hosts.is_empty() {
                        let settings = by_line.entry(definition.key(hosts)).or_default();
                        setting.set(settings, definition).map_err(|reason| {
                            self.files[definition.file].diagnostic(definition.line, reason)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the hosts that were not taken before, sorted, and marks them as taken.
fn take(hosts: impl Iterator<Item = usize>, taken: &mut [bool]) -> Vec<usize> {
    let mut hosts: Vec<usize> =
        hosts.filter(|host| !std::mem::replace(&mut taken[*host], true)).collect();
    hosts.sort_unstable();
    hosts
}
