//! Names that can be used for hosts and for groups wherever labsh takes a set of hosts.

use std::net::Ipv6Addr;

use labsh_nodeset::{NoGroups, NodeSet};

/// Says why a host cannot have this name.
pub(crate) fn host(name: &str) -> Result<(), String> {
    let address = name.split_once('%').map_or(name, |(address, _zone)| address);
    let port =
        name.contains(':') && !name.starts_with("unix:") && address.parse::<Ipv6Addr>().is_err();
    let why = port.then_some("behind a colon stands a port");
    let why = why.or(name.contains('@').then_some("what stands in front of an @ is a user"));
    let why = why.or(name.starts_with('-').then_some("what begins with a dash is an option"));
    why.map_or_else(|| check(name), Err).map_err(|why| {
        format!("{:?} cannot be the name of a host: {why}; give it another one", brief(name))
    })
}

/// Says why a group cannot have this name.
pub(crate) fn group(name: &str) -> Result<(), String> {
    let source =
        name.contains(':').then_some("what stands in front of a colon is the name of a source");
    let why = source.map_or_else(|| check(name), Err);
    why.map_err(|why| {
        format!("{:?} cannot be the name of a group: {why}; give it another one", brief(name))
    })
}

/// Refuses names with wildcards in what files say: all hosts are known only once every file is
/// read.
pub(crate) fn check_wildcard(name: &str) -> Result<(), String> {
    Err(format!("{name:?}: wildcards are not looked up here; write the hosts, or a range of them"))
}

fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    // No name in DNS is longer (RFC 1035, section 2.3.4).
    if name.len() > 255 {
        return Err("it is longer than 255 bytes");
    }
    if name.chars().any(|sign| sign.is_control() || sign.is_whitespace()) {
        return Err("there are blanks or control characters in it");
    }
    if name.contains(['*', '?']) {
        return Err("wildcards are not looked up here");
    }
    // Read as a set of hosts, it has to be itself and nothing else.
    let alone =
        NodeSet::parse(name, &NoGroups).is_ok_and(|set| set.len() == 1 && set.contains(name));
    if !alone || name.contains('#') {
        return Err("a sign in it means something in sets of hosts");
    }
    Ok(())
}

/// Enough of a name to find it by.
fn brief(name: &str) -> String {
    if name.len() > 80 { name.chars().take(60).chain(['…']).collect() } else { name.to_owned() }
}
