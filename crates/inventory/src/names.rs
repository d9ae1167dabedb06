//! Checks that names of hosts and groups can be used in expressions for sets of hosts.

use std::net::Ipv6Addr;

use labsh_nodeset::{NoGroups, NodeSet};

/// The longest name in DNS (RFC 1035, section 2.3.4).
const MAX_DNS_NAME_BYTES: usize = 255;

/// Refuses a name that a host cannot have; the error says why.
pub(crate) fn check_host(name: &str) -> Result<(), String> {
    let address = name.split_once('%').map_or(name, |(address, _zone)| address);
    let port =
        name.contains(':') && !name.starts_with("unix:") && address.parse::<Ipv6Addr>().is_err();
    let reason = port.then_some("the text after a colon is a port");
    let reason = reason.or(name.contains('@').then_some("the text before an @ is a user"));
    let reason =
        reason.or(name.starts_with('-').then_some("a word that begins with a dash is an option"));
    reason.map_or_else(|| check(name), Err).map_err(|reason| {
        format!("{:?} cannot be the name of a host: {reason}; give it another one", shortened(name))
    })
}

/// Refuses a name that a group cannot have; the error says why.
pub(crate) fn check_group(name: &str) -> Result<(), String> {
    let source = name.contains(':').then_some("the text before a colon is the name of a source");
    source.map_or_else(|| check(name), Err).map_err(|reason| {
        format!(
            "{:?} cannot be the name of a group: {reason}; give it another one",
            shortened(name)
        )
    })
}

/// Refuses a name with wildcards in a file: the known hosts are not complete until every file is
/// read.
pub(crate) fn check_wildcard(name: &str) -> Result<(), String> {
    Err(format!("{name:?}: wildcards cannot be used here; write the hosts, or a range of them"))
}

/// Checks what holds for hosts and groups alike.
fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > MAX_DNS_NAME_BYTES {
        return Err("it is longer than 255 bytes");
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("it has spaces or control characters");
    }
    if name.contains(['*', '?']) {
        return Err("wildcards cannot be used here");
    }
    // As an expression, it must be the set of this one name.
    let literal =
        NodeSet::parse(name, &NoGroups).is_ok_and(|set| set.len() == 1 && set.contains(name));
    if !literal || name.contains('#') {
        return Err("one of its characters has a meaning in sets of hosts");
    }
    Ok(())
}

/// Returns the beginning of a long name, for a message.
fn shortened(name: &str) -> String {
    if name.len() > 80 { name.chars().take(60).chain(['…']).collect() } else { name.to_owned() }
}
