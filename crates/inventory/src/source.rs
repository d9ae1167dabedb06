//! What one source of hosts says: groups, and settings for sets of hosts, each with the place it
//! came from.

use std::collections::BTreeMap;

use labsh_diagnostics::Origin;
use labsh_nodeset::NodeSet;

/// What can be said of how to get to a host.
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

/// What is said of some hosts; what is absent was not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where the host really is; `{host}` in it stands for the host's name.
    pub address: Option<String>,
    /// The port of labshd there.
    pub port: Option<u16>,
    /// The name under which keys are enrolled there; `{host}` stands for the host's name.
    pub host_id: Option<String>,
    /// The key to use: an id, or a path with a slash in it.
    pub key: Option<String>,
    /// The user as whom commands are expected to run.
    pub user: Option<String>,
    /// Whether to go without TLS.
    pub plain: Option<bool>,
    /// Which of these are said in a way that only another program understands: why, and what to do
    /// about it. Such a host is known, but nobody gets there unless something that counts more says
    /// the same plainly.
    pub unusable: BTreeMap<Setting, String>,
    /// Anything else that people keep with their hosts.
    pub variables: BTreeMap<String, String>,
}

/// Settings for a set of hosts: one machine, or a whole room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The hosts that are meant.
    pub hosts: NodeSet,
    /// What is said of them.
    pub settings: Settings,
    /// Where that is said.
    pub origin: Origin,
}

/// A named set of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The members, in the notation of [`labsh_nodeset`]; it may name other groups of the same
    /// source.
    pub members: String,
    /// Where the group is defined.
    pub origin: Origin,
}

/// Everything that one source says.
///
/// Of two rooms that hold the same host, the one with fewer hosts says more exactly what is meant;
/// of two equally large ones, the first counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The groups by name.
    pub groups: BTreeMap<String, Group>,
    /// The settings, in the order of the file.
    pub rooms: Vec<Room>,
}
