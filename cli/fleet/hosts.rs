//! Chooses the hosts that a subcommand works on, and resolves how to connect to each.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::Context;
use labsh_client::config::inventory::Inventory;
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::config::target::Target;
use labsh_client::config::{Config, Resolved};
use labsh_client::fanout::Host;
use labsh_client::keys::key_file;
use labsh_diagnostics::Diagnostic;
use labsh_nodeset::NodeSet;
use labsh_proto::key::Key;
use labsh_transport::random;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::console::note;
use crate::fleet::last_run::WithLast;
use crate::remote::connection::without_agent;
use crate::remote::words::Targets;

/// How many addresses with several names are reported one by one.
const MAX_REPORTED_ADDRESSES: usize = 3;

/// Returns the hosts of an expression, without the excluded ones.
///
/// # Errors
///
/// When an expression is malformed, or no host is left.
pub(crate) fn select(
    expression: &str,
    excluded: &[String],
    inventory: &Inventory,
) -> anyhow::Result<NodeSet> {
    without(evaluate(expression, inventory)?, expression, excluded, inventory)
}

/// Removes the excluded hosts from a set. `name` is the expression that errors show.
pub(crate) fn without(
    mut set: NodeSet,
    name: &str,
    excluded: &[String],
    inventory: &Inventory,
) -> anyhow::Result<NodeSet> {
    for excluded in excluded {
        set = set.difference(&evaluate(excluded, inventory).context("--exclude")?);
    }
    if set.is_empty() && name.starts_with("@last") {
        anyhow::bail!("{name:?} is no host at all; `labsh last` shows the outcome of the last run");
    }
    if set.is_empty() {
        anyhow::bail!("{name:?} is no host at all; see `labsh hosts` for those that are known");
    }
    Ok(set)
}

pub(crate) fn evaluate(expression: &str, inventory: &Inventory) -> anyhow::Result<NodeSet> {
    NodeSet::parse(expression, &WithLast(inventory)).map_err(|error| {
        match inventory.error_origin(&error) {
            Some(origin) => {
                let reason = format!("{error}; correct that line");
                Diagnostic { origin: origin.clone(), reason }.into()
            }
            None => error.into(),
        }
    })
}

/// Returns the hosts that the targets name, without the excluded ones; with `pick`, that many of
/// them, chosen at random.
///
/// # Errors
///
/// Where an expression is malformed, or no host is left.
pub(crate) fn names(
    targets: &Targets,
    inventory: &Inventory,
    excluded: &[String],
    pick: Option<u32>,
) -> anyhow::Result<NodeSet> {
    let mut set = match targets {
        // One host, even where its characters would be operators of a set.
        Targets::One(target) => {
            let name = target.to_string();
            without(NodeSet::of([&*name]), &name, excluded, inventory)?
        }
        Targets::Set(expression) => select(expression, excluded, inventory)?,
    };
    if let Some(count) = pick {
        let mut shuffled: Vec<([u8; 8], &str)> =
            set.iter().map(|name| (random::bytes(), name)).collect();
        shuffled.sort_unstable();
        set = shuffled.into_iter().take(count as usize).map(|(_, name)| name).collect();
    }
    Ok(set)
}

/// Resolves each name: its address, its key, its user.
pub(crate) fn resolve(
    names: &NodeSet,
    config: &Config,
    overrides: &ConnectionOverrides,
) -> anyhow::Result<Vec<Host>> {
    // Most hosts share a key, whose file is read once.
    let mut keys = HashMap::new();
    names.iter().map(|name| host(name, config, overrides, &mut keys)).collect()
}

fn host(
    name: &str,
    config: &Config,
    overrides: &ConnectionOverrides,
    keys: &mut HashMap<PathBuf, Key>,
) -> anyhow::Result<Host> {
    let target: Target = name.parse().with_context(|| format!("{name:?}"))?;
    let Resolved { route, key } = config.resolve(&target, overrides)?;
    let key = match keys.entry(key) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => {
            let key = key_file::load(unknown.key())?;
            unknown.insert(key)
        }
    };
    let user = route.user.clone();
    // The agent keeps fewer connections than a run may have hosts.
    Ok(Host { name: name.to_owned(), connection: without_agent(route, key), user })
}

/// Warns of hosts that have one address: the command would run there once for each name, which is
/// rarely meant. `consequence` completes the sentence.
pub(crate) fn warn_of_shared_addresses(hosts: &[Host], consequence: &str) {
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for host in hosts {
        names.entry(host.connection.address.to_string()).or_default().push(&host.name);
    }
    names.retain(|_, names| names.len() > 1);
    let shared = names.len();
    for (address, names) in names.into_iter().take(MAX_REPORTED_ADDRESSES) {
        let all: NodeSet = names.into_iter().collect();
        note(&format!("{all} have one address, {address}, which {consequence}"));
    }
    if shared > MAX_REPORTED_ADDRESSES {
        note(&format!("the same is true of {} more addresses", shared - MAX_REPORTED_ADDRESSES));
    }
}

/// Raises the soft limit of open files to the hard one: each connection is a descriptor, and a
/// thousand hosts are more than the usual soft limit.
pub(crate) fn allow_descriptors() {
    // If the system refuses that, connections beyond the limit fail with errors of their own.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
