//! Completes an inventory that has been read: parents for all groups, members, and the order of
//! groups.

use labsh_diagnostics::Diagnostic;
use labsh_nodeset::NodeSet;

use super::{ALL, AnsibleGroup, Inventory, UNGROUPED};
use crate::{Group, Source};

/// How many groups the message about a cycle names.
const MAX_SHOWN_CYCLE: usize = 10;

impl Inventory {
    /// Returns the groups and settings of an inventory that has been read completely.
    pub(crate) fn finish(mut self) -> Result<Source, Diagnostic> {
        self.add_implicit_members();
        let order = self.parents_first()?;
        let depths = self.depths(&order);
        let members = self.members(&order)?;
        let tables = self.tables(&depths, &members)?;
        let groups =
            self.groups.iter().map(|group| (group.name.clone(), self.written(group))).collect();
        Ok(Source { groups, tables })
    }

    /// Makes groups without a parent children of `all`, and hosts without a group members of
    /// `ungrouped`.
    fn add_implicit_members(&mut self) {
        let mut has_parent = vec![false; self.groups.len()];
        for (child, _) in self.groups.iter().flat_map(|group| &group.children) {
            has_parent[*child] = true;
        }
        for (group, has_parent) in has_parent.into_iter().enumerate().skip(1) {
            if !has_parent {
                let line = self.groups[group].line;
                self.groups[ALL].children.push((group, line));
            }
        }
        let mut grouped = vec![false; self.hosts.len()];
        for host in self.groups[UNGROUPED + 1..].iter().flat_map(|group| &group.hosts) {
            grouped[*host] = true;
        }
        self.groups[UNGROUPED].hosts =
            (0..self.hosts.len()).filter(|host| !grouped[*host]).collect();
    }

    /// Returns the groups in topological order: each after all its parents.
    fn parents_first(&self) -> Result<Vec<usize>, Diagnostic> {
        let mut parents_left = vec![0_usize; self.groups.len()];
        for (child, _) in self.groups.iter().flat_map(|group| &group.children) {
            parents_left[*child] += 1;
        }
        let mut order: Vec<usize> =
            (0..self.groups.len()).filter(|group| parents_left[*group] == 0).collect();
        let mut next = 0;
        while next < order.len() {
            for (child, _) in &self.groups[order[next]].children {
                parents_left[*child] -= 1;
                if parents_left[*child] == 0 {
                    order.push(*child);
                }
            }
            next += 1;
        }
        match parents_left.iter().position(|left| *left > 0) {
            None => Ok(order),
            Some(group) => Err(self.cycle(group, &parents_left)),
        }
    }

    /// Returns the error for a cycle of groups. Each group with parents left has a parent that has
    /// parents left too, so the walk up from `start` meets a group twice.
    fn cycle(&self, start: usize, parents_left: &[usize]) -> Diagnostic {
        let mut parent_of = vec![None; self.groups.len()];
        for (parent, group) in
            self.groups.iter().enumerate().filter(|(parent, _)| parents_left[*parent] > 0)
        {
            for (child, line) in &group.children {
                parent_of[*child] = Some((parent, *line));
            }
        }
        let (mut path, mut visited) = (Vec::new(), vec![false; self.groups.len()]);
        let (mut group, mut line) = (start, self.groups[start].line);
        while !std::mem::replace(&mut visited[group], true) {
            path.push(group);
            let Some((parent, named_in)) = parent_of[group] else { break };
            (group, line) = (parent, named_in);
        }
        let cycle = path.iter().skip_while(|visited| **visited != group).chain([&group]);
        let mut names: Vec<&str> = cycle.map(|group| self.groups[*group].name.as_str()).collect();
        if names.len() > MAX_SHOWN_CYCLE {
            names.splice(MAX_SHOWN_CYCLE / 2..names.len() - 1, ["…"]);
        }
        let reason = format!("the groups form a cycle: {}; take one out", names.join(" ← "));
        self.files[0].diagnostic(line, reason)
    }

    /// Returns the length of the longest path from `all` to each group.
    fn depths(&self, order: &[usize]) -> Vec<usize> {
        let mut depths = vec![0; self.groups.len()];
        for group in order {
            for (child, _) in &self.groups[*group].children {
                depths[*child] = depths[*child].max(depths[*group] + 1);
            }
        }
        depths
    }

    /// Returns the hosts of each group and of its descendants, sorted.
    fn members(&mut self, order: &[usize]) -> Result<Vec<Vec<usize>>, Diagnostic> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        for group in order.iter().rev() {
            let mut hosts = self.groups[*group].hosts.clone();
            let inherited =
                self.groups[*group].children.iter().map(|(child, _)| members[*child].len()).sum();
            self.count_mentions(inherited, self.groups[*group].line)?;
            for (child, _) in &self.groups[*group].children {
                hosts.extend(&members[*child]);
            }
            hosts.sort_unstable();
            hosts.dedup();
            members[*group] = hosts;
        }
        Ok(members)
    }

    /// Returns a group as an expression: its own hosts, and its children by name.
    fn written(&self, group: &AnsibleGroup) -> Group {
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
        Group { members, origin: self.files[0].origin(group.line) }
    }
}
