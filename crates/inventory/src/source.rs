//! A source of hosts: groups, and settings for sets of hosts, each with its origin.

use std::collections::BTreeMap;

use labsh_diagnostics::Origin;
use labsh_nodeset::NodeSet;

/// A setting for connections to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Setting {
    Address,
    Port,
    HostId,
    Key,
    User,
    Plain,
}

/// The settings of some hosts; what is absent is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The address to connect to; `{host}` in it stands for the host's name.
    pub address: Option<String>,
    /// The port of labshd.
    pub port: Option<u16>,
    /// The name under which keys are enrolled on the host; `{host}` stands for the host's name.
    pub host_id: Option<String>,
    /// The key to use: an id, or a path that has a slash.
    pub key: Option<String>,
    /// The user as whom commands are expected to run.
    pub user: Option<String>,
    /// Whether to connect without TLS.
    pub plain: Option<bool>,
    /// The settings whose values only another program can evaluate, each with the reason and the
    /// remedy. Such a host is known, but connections to it fail unless a source of higher
    /// precedence has a plain value.
    pub unusable: BTreeMap<Setting, String>,
    /// Any other variables.
    pub variables: BTreeMap<String, String>,
}

/// Settings for a set of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTable {
    /// The hosts.
    pub hosts: NodeSet,
    /// Their settings.
    pub settings: Settings,
    /// The line that holds the settings.
    pub origin: Origin,
}

/// A named set of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The members, as an expression of [`labsh_nodeset`], which may name other groups of the same
    /// source.
    pub members: String,
    /// The line that defines the group.
    pub origin: Origin,
}

/// The groups and settings of one source.
///
/// Of two tables for the same host, the one with fewer hosts takes precedence; of two with equally
/// many, the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The groups by name.
    pub groups: BTreeMap<String, Group>,
    /// The settings, in the order of the file.
    pub tables: Vec<HostTable>,
}
