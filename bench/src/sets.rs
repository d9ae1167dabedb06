//! Sets of hosts: from an expression, to the shortest form, joined.

use labsh_nodeset::{NoGroups, NodeSet, NodeSetError};

/// An expression that gives so many hosts (of six digits each), every second one of twice as many.
pub fn expression(hosts: usize) -> String {
    format!("lab[000001-{:06}/2]", 2 * hosts)
}

/// The hosts of an expression.
///
/// # Errors
///
/// Those of [`NodeSet::parse`].
pub fn parse(expression: &str) -> Result<NodeSet, NodeSetError> {
    NodeSet::parse(expression, &NoGroups)
}

/// Two sets of half as many hosts each, which lie between each other.
///
/// # Errors
///
/// Those of [`NodeSet::parse`].
pub fn halves(hosts: usize) -> Result<[NodeSet; 2], NodeSetError> {
    Ok([parse(&format!("lab[000001-{hosts:06}/2]"))?, parse(&format!("lab[000002-{hosts:06}/2]"))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_are_as_large_as_is_said() {
        for hosts in [1_000, 100_000] {
            let set = parse(&expression(hosts)).unwrap();
            assert_eq!(set.len(), hosts);
            assert_eq!(parse(&set.to_string()).unwrap(), set);
            let [odd, even] = halves(hosts).unwrap();
            assert_eq!((odd.len(), even.len()), (hosts / 2, hosts / 2));
            assert_eq!(odd.union(even).to_string(), format!("lab[000001-{hosts:06}]"));
        }
    }
}
