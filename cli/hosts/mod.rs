//! `labsh hosts`: lists the hosts and groups that are known, and the origin of each value.

mod check;

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use labsh_client::Address;
use labsh_client::config::inventory::Inventory;
use labsh_client::config::overrides::ConnectionOverrides;
use labsh_client::config::target::Target;
use labsh_client::config::{Config, Layer, Route, Source, route};
use labsh_client::keys::key_store::KeyName;
use labsh_client::terminal_text::escape;
use labsh_diagnostics::Diagnostic;
use labsh_nodeset::{Groups, NodeSet};

use crate::console::{note, print};
use crate::fleet::hosts::{evaluate, select, without};
use crate::json::{self, Event, Fields};

/// How many of the places that add hosts to a group are shown.
const MAX_GROUP_ORIGINS: usize = 3;

/// List the hosts and groups that are known
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct HostsOptions {
    /// The subcommand; none to list the hosts.
    #[command(subcommand)]
    action: Option<HostsAction>,
    /// List the groups: how many hosts each has, and which
    #[arg(long, conflicts_with = "origin")]
    groups: bool,
    /// Show each value on a line of its own, with the file and line that it comes from
    #[arg(long)]
    origin: bool,
    /// Print a line of JSON for each host, or each group
    #[arg(long, conflicts_with = "origin")]
    json: bool,
    /// Which hosts.
    #[command(flatten)]
    which: Which,
}

/// The subcommands of `labsh hosts`.
#[derive(Debug, Clone, Subcommand)]
enum HostsAction {
    /// Connect to all of them: which answer, how fast, which version, and why the others do not
    #[command(after_help = CHECK_EXIT_STATUS)]
    Check(check::CheckOptions),
}

const CHECK_EXIT_STATUS: &str = "\
Exit status:
  0    all answered
  125  a host refused, and all others answered
  255  a host was unreachable, or its connection was lost";

/// The hosts that a command line selects.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Leave these hosts out: a set like SET (repeatable)
    #[arg(short = 'x', long, value_name = "HOSTS")]
    exclude: Vec<String>,
    /// The hosts: lab[01-40,52], @group, @last:failed; several sets are one [default: all that are
    /// known]
    #[arg(value_name = "SET", help_heading = "Arguments")]
    sets: Vec<String>,
}

impl Which {
    fn select(&self, inventory: &Inventory) -> anyhow::Result<NodeSet> {
        if self.sets.is_empty() {
            return select("@*", &self.exclude, inventory);
        }
        let mut all = NodeSet::default();
        for set in &self.sets {
            all = all.union(evaluate(set, inventory)?);
        }
        without(all, &self.sets.join(" "), &self.exclude, inventory)
    }
}

/// Prints the hosts or groups.
pub(crate) fn execute(options: HostsOptions) -> anyhow::Result<ExitCode> {
    if let Some(HostsAction::Check(options)) = options.action {
        return check::execute(options);
    }
    let config = Config::load()?;
    let names = options.which.select(config.inventory())?;
    let groups = groups(config.inventory())?;
    let text = match options.groups {
        true => list_groups(groups, &names, &options),
        false => list_hosts(&names, &config, &groups, &options)?,
    };
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A group with its hosts.
struct HostGroup {
    name: String,
    hosts: NodeSet,
    /// The places that define it, and those that add hosts to it.
    origins: String,
}

/// Returns every group.
fn groups(inventory: &Inventory) -> anyhow::Result<Vec<HostGroup>> {
    let with_hosts = |name: String| {
        let origins = inventory.origins(&name);
        let mut shown: Vec<String> =
            origins.iter().take(MAX_GROUP_ORIGINS).map(ToString::to_string).collect();
        if origins.len() > MAX_GROUP_ORIGINS {
            shown.push(format!("and {} more lines", origins.len() - MAX_GROUP_ORIGINS));
        }
        let hosts = evaluate(&format!("@{name}"), inventory)?;
        Ok(HostGroup { name, hosts, origins: shown.join(", ") })
    };
    inventory.names().into_iter().map(with_hosts).collect()
}

fn list_groups(groups: Vec<HostGroup>, names: &NodeSet, options: &HostsOptions) -> String {
    // With a set, only groups with hosts in it are listed, and only those hosts.
    let chosen: Vec<HostGroup> = groups
        .into_iter()
        .map(|group| HostGroup { hosts: group.hosts.intersection(names), ..group })
        .filter(|group| !group.hosts.is_empty() || options.which.sets.is_empty())
        .collect();
    if options.json { groups_json(&chosen) } else { groups_table(&chosen) }
}

/// Lists hosts one by one: a hundred thousand with all their settings would fill the memory.
fn list_hosts(
    names: &NodeSet,
    config: &Config,
    groups: &[HostGroup],
    options: &HostsOptions,
) -> anyhow::Result<String> {
    let mut of_host: HashMap<&str, Vec<&HostGroup>> = HashMap::new();
    for group in groups {
        for host in &group.hosts {
            of_host.entry(host).or_default().push(group);
        }
    }
    let only_key = config.store().only().ok().map(|id| id.to_string());
    let mut text = String::new();
    let mut rows = vec![["HOST", "ADDRESS", "KEY", "USER", "GROUPS"].map(str::to_owned)];
    for name in names {
        let groups = of_host.get(name).map_or(&[][..], Vec::as_slice);
        let facts = Facts::of(name, config, groups, only_key.as_deref())?;
        match (options.origin, options.json) {
            (true, _) => text += &facts.origins(),
            (_, true) => text += &facts.json(),
            _ => {
                if let Err(diagnostic) = &facts.route {
                    note(&diagnostic.to_string());
                }
                rows.push(facts.row());
            }
        }
    }
    let is_table = !options.origin && !options.json;
    Ok(if is_table { table(&rows) } else { text })
}

fn groups_table(groups: &[HostGroup]) -> String {
    let mut rows = vec![["GROUP", "COUNT", "HOSTS"].map(str::to_owned)];
    rows.extend(groups.iter().map(|HostGroup { name, hosts, .. }| {
        [shown(name), hosts.len().to_string(), shown(&hosts.to_string())]
    }));
    table(&rows)
}

fn groups_json(groups: &[HostGroup]) -> String {
    let line = |HostGroup { name, hosts, .. }: &HostGroup| {
        Event::new("group")
            .with("group", name.as_str())
            .with("count", hosts.len())
            .with("set", hosts.to_string())
            .with("names", hosts.iter().collect::<Vec<&str>>())
            .line()
    };
    groups.iter().map(line).collect()
}

/// Escapes a text for a terminal.
fn shown(text: &str) -> String {
    escape(text).to_string()
}

/// Aligns rows: every column but the last is as wide as its widest cell.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        // Not with format!, which panics on a very wide cell, such as a group of thousands of
        // hosts.
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let blanks = width.saturating_sub(cell.chars().count());
            cell.to_owned() + &" ".repeat(blanks)
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The settings of one host.
struct Facts<'a> {
    name: &'a str,
    /// The route to the host, or why there is none.
    route: Result<Route, Diagnostic>,
    /// The name or file of the key; none if there is no usable key, or more than one.
    key: Option<String>,
    /// Its groups.
    groups: &'a [&'a HostGroup],
    /// The settings by source, in descending order of precedence.
    layers: Vec<Layer>,
}

impl<'a> Facts<'a> {
    /// Returns the facts about a host. `only_key` is the key that is used if none is set.
    fn of(
        name: &'a str,
        config: &Config,
        groups: &'a [&'a HostGroup],
        only_key: Option<&str>,
    ) -> anyhow::Result<Self> {
        let target: Target = name.parse().with_context(|| format!("{name:?}"))?;
        if let Some(unusable) = config.inventory().unusable(&target.host) {
            return Ok(Self { name, route: Err(unusable), key: None, groups, layers: Vec::new() });
        }
        let flags = ConnectionOverrides::default();
        let layers = config.layers(&target, &flags)?;
        let named = layers.iter().find_map(|layer| layer.overrides.key.as_ref());
        let key = match named {
            Some(KeyName::Id(id)) => Some(id.to_string()),
            Some(KeyName::Path(path)) => Some(path.display().to_string()),
            None => only_key.map(str::to_owned),
        };
        let route = route(&target, &flags, &layers).with_context(|| name.to_owned())?;
        Ok(Self { name, route: Ok(route), key, groups, layers })
    }

    /// Returns the host's row of the table.
    fn row(&self) -> [String; 5] {
        let (address, user) = match &self.route {
            Ok(route) => {
                let plain = matches!(route.address, Address::Tcp { .. }) && route.plain;
                (
                    format!("{}{}", route.address, if plain { " (plain)" } else { "" }),
                    route.user.as_deref(),
                )
            }
            Err(_) => ("?".to_owned(), None),
        };
        [
            shown(self.name),
            shown(&address),
            shown(self.key.as_deref().unwrap_or("-")),
            shown(user.unwrap_or("-")),
            shown(&self.group_names().join(" ")),
        ]
    }

    fn group_names(&self) -> Vec<&str> {
        self.groups.iter().map(|group| group.name.as_str()).collect()
    }

    /// Returns each variable with its place.
    fn variables(&self) -> BTreeMap<&str, (&str, String)> {
        let mut variables = BTreeMap::new();
        for layer in &self.layers {
            for (variable, value) in &layer.variables {
                variables
                    .entry(variable.as_str())
                    .or_insert_with(|| (value.as_str(), source(&layer.source)));
            }
        }
        variables
    }

    /// Returns the places of the values of `route` and `key`.
    fn value_origins(&self) -> BTreeMap<&'static str, String> {
        let layers = &self.layers;
        if layers.is_empty() {
            return BTreeMap::new();
        }
        [
            ("address", origin(layers, |said| said.address.is_some())),
            ("port", origin(layers, |said| said.port.is_some())),
            ("host_id", origin(layers, |said| said.host_id.is_some())),
            ("key", origin(layers, |said| said.key.is_some())),
            ("user", origin(layers, |said| said.user.is_some())),
            ("plain", origin(layers, |said| said.plain.is_some())),
            ("connect_timeout", origin(layers, |said| said.connect_timeout.is_some())),
        ]
        .into()
    }

    /// Returns the name of the host, and below it each value with its place.
    fn origins(&self) -> String {
        let mut rows: Vec<[String; 3]> = Vec::new();
        match &self.route {
            Ok(route) => rows.extend(self.values(route)),
            Err(Diagnostic { origin, reason }) => {
                rows.push(["  unusable".to_owned(), shown(reason), shown(&origin.to_string())]);
            }
        }
        for group in self.groups {
            rows.push(["  group".to_owned(), shown(&group.name), shown(&group.origins)]);
        }
        for (name, (value, origin)) in self.variables() {
            rows.push([format!("  variable {}", shown(name)), shown(value), shown(&origin)]);
        }
        format!("{}\n{}", shown(self.name), table(&rows))
    }

    /// Returns each value with its place.
    fn values(&self, route: &Route) -> impl Iterator<Item = [String; 3]> {
        let (address, port) = parts(&route.address);
        let origins = self.value_origins();
        let timeout = humantime::format_duration(route.connect_timeout).to_string();
        let values = [
            ("address", Some(address)),
            ("port", port.map(|port| port.to_string())),
            ("host_id", Some(route.host_id.to_string())),
            ("key", self.key.clone()),
            ("user", route.user.clone()),
            ("plain", Some(route.plain.to_string())),
            ("connect_timeout", Some(timeout)),
        ];
        values.into_iter().filter_map(move |(what, value)| {
            let origin = origins.get(what).map_or("default", String::as_str);
            Some([format!("  {what}"), shown(&value?), shown(origin)])
        })
    }

    fn json(&self) -> String {
        let event = Event::of_host("host", self.name).with("groups", self.group_names());
        let route = match &self.route {
            Ok(route) => route,
            Err(diagnostic) => {
                return event.with("error", json::error_of_diagnostic(diagnostic)).line();
            }
        };
        let variables: Fields = self
            .variables()
            .into_iter()
            .map(|(name, (value, _))| (name.to_owned(), value.into()))
            .collect();
        let origins: Fields = self
            .value_origins()
            .into_iter()
            .map(|(name, origin)| (name.to_owned(), origin.into()))
            .collect();
        event
            .with_all(json::location(&route.address))
            .with("host_id", route.host_id.as_str())
            .with("key", self.key.as_deref())
            .with("user", route.user.as_deref())
            .with("plain", route.plain)
            .with("connect_timeout_ms", json::milliseconds(route.connect_timeout))
            .with("variables", variables)
            .with("origins", origins)
            .line()
    }
}

/// Returns address and port, or the path of a socket.
fn parts(address: &Address) -> (String, Option<u16>) {
    match address {
        Address::Tcp { host, port } => (host.clone(), Some(*port)),
        Address::Unix(path) => (format!("unix:{}", path.display()), None),
    }
}

/// Returns the place of a value: the first layer that sets it.
fn origin(layers: &[Layer], says: fn(&ConnectionOverrides) -> bool) -> String {
    let layer = layers.iter().find(|layer| says(&layer.overrides));
    layer.map_or_else(|| "default".to_owned(), |layer| source(&layer.source))
}

fn source(source: &Source) -> String {
    match source {
        Source::Flag => "option".to_owned(),
        Source::Target => "target".to_owned(),
        Source::Environment => "environment".to_owned(),
        Source::File(origin) => origin.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_cells_of_any_width() {
        let (wide, blanks) = ("x".repeat(70_000), " ".repeat(69_999));
        let rows =
            [["a".to_owned(), wide.clone(), "b".to_owned()], ["粘包", "y", "z"].map(str::to_owned)];
        assert_eq!(table(&rows), format!("a   {wide}  b\n粘包  y{blanks}  z\n"));
    }
}
