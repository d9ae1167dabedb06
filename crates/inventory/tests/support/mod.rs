//! Lists a source's hosts and groups with their values, to compare them with other programs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use labsh_inventory::Source;
use labsh_nodeset::{Groups, NamedBy, NodeSet};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// The hosts of each group, and the values of each host.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    pub groups: BTreeMap<String, BTreeSet<String>>,
    pub hosts: BTreeMap<String, BTreeMap<String, String>>,
}

struct Names<'a>(&'a Source);

impl Groups for Names<'_> {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.0.groups.get(name).map(|group| group.members.clone()))
    }

    fn all(&self) -> Result<String, String> {
        Err("@* is not used in these tests".to_owned())
    }

    fn file(&self, path: &str, _: NamedBy) -> Result<String, String> {
        Err(format!("{path} is not used in these tests"))
    }

    fn names(&self) -> Vec<String> {
        self.0.groups.keys().cloned().collect()
    }
}

/// Returns the hosts of a group of a source.
pub fn members(source: &Source, group: &str) -> BTreeSet<String> {
    let set = NodeSet::parse(&format!("@{group}"), &Names(source)).unwrap();
    set.iter().map(str::to_owned).collect()
}

/// Returns all groups and hosts. A value of a host must be set only once: which of several
/// definitions applies has been decided.
pub fn contents(source: &Source) -> Contents {
    let groups: BTreeMap<_, _> =
        source.groups.keys().map(|name| (name.clone(), members(source, name))).collect();
    let mut hosts: BTreeMap<String, BTreeMap<String, String>> =
        groups.values().flatten().map(|host| (host.clone(), BTreeMap::new())).collect();
    for table in &source.tables {
        let settings = &table.settings;
        for host in &table.hosts {
            let named =
                |text: &Option<String>| text.as_ref().map(|text| text.replace("{host}", host));
            let fixed = [
                ("address", named(&settings.address)),
                ("port", settings.port.map(|port| port.to_string())),
                ("host-id", named(&settings.host_id)),
                ("key", settings.key.clone()),
                ("user", settings.user.clone()),
                ("plain", settings.plain.map(|plain| plain.to_string())),
            ];
            let fixed =
                fixed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            let others = settings
                .variables
                .iter()
                .map(|(name, value)| (format!("variable {name}"), value.clone()));
            for (name, value) in fixed.chain(others) {
                let known = hosts.entry(host.to_owned()).or_default().insert(name.clone(), value);
                assert_eq!(known, None, "{name} of {host} is set twice: {}", table.origin);
            }
        }
    }
    Contents { groups, hosts }
}

/// Returns `count` values of a strategy, the same in every run.
pub fn values<T: std::fmt::Debug>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}
