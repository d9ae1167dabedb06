//! Parses and evaluates expressions for sets of hosts, such as `lab[01-40,52]` or `@group!lab07`,
//! and folds a set back to its shortest form.
//!
//! The notation is ClusterShell's (`cluset(1)`, nodeset syntax). Leading zeros are part of a name:
//! `lab1` and `lab01` are two hosts. Operators have equal precedence and are evaluated from left to
//! right:
//!
//! | written | means |
//! | --- | --- |
//! | `lab[01-03,07]` | lab01, lab02, lab03, lab07; `[1-9/2]` takes every second |
//! | `rack[1-2]n[1-4]` | every pair: several dimensions |
//! | `lab*`, `node?[1-2]` | the known hosts (`@*`) whose names match |
//! | `A,B` or `A B` | union |
//! | `A!B` | difference |
//! | `A&B` | intersection |
//! | `A^B` | symmetric difference |
//! | `@name`, `@source:name`, `@*` | a group, a group of a named source, all known hosts |
//! | `^file`, `^-` | the hosts listed in a file, or on standard input: one expression a line |
//!
//! In a file, `#` begins a comment. Blanks around operators and inside brackets have no meaning.
//! `A ^B` is the symmetric difference, and names a file only where B has a slash or is `-`;
//! `A,^B` names a file in any case.
//!
//! Unlike in ClusterShell, the text and the numbers of a name are joined as they are written:
//! `n1[8-10]` is n18, n19 and n110, where ClusterShell counts from 18 to 110.
//!
//! ```
//! use labsh_nodeset::{NodeSet, NoGroups};
//!
//! let set = NodeSet::parse("lab[01-40]!lab[05-09]", &NoGroups)?;
//! assert_eq!(set.len(), 35);
//! assert_eq!(set.to_string(), "lab[01-04,10-40]");
//! # Ok::<(), labsh_nodeset::NodeSetError>(())
//! ```

mod evaluate;
mod fold;
mod name;
mod pattern;

use std::collections::BTreeSet;
use std::collections::btree_set;
use std::fmt;
use std::sync::Arc;

pub use evaluate::{Groups, NamedBy, NoGroups};

use name::Name;

/// The largest number of hosts in a set, so that a typing error cannot exhaust memory.
pub const MAX_HOSTS: usize = 100_000;

/// The longest name of a host or a group, in bytes, which bounds the memory of [`MAX_HOSTS`] names.
pub const MAX_NAME_BYTES: usize = 1000;

/// How deeply groups and files may be nested.
pub const MAX_GROUP_DEPTH: usize = 100;

/// A set of host names in natural order: lab2 comes before lab10.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NodeSet {
    /// Shared by all clones.
    names: Arc<BTreeSet<Name>>,
}

/// An error in an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeSetError {
    /// An operator lacks an operand, or the expression is empty.
    #[error("{expression:?}: a host is missing {place}; write for example lab[01-40]")]
    Missing {
        /// The expression.
        expression: String,
        /// Where the operand is missing.
        place: String,
    },
    /// A bracket is unmatched.
    #[error(
        "{expression:?}: the bracket at position {position} is unmatched; write for example \
         lab[01-40]"
    )]
    Bracket {
        /// The expression.
        expression: String,
        /// The position of the bracket, counted from 1 in characters.
        position: usize,
    },
    /// The text in brackets is not a list of ranges.
    #[error("[{range}]: {reason}; write numbers and ranges, for example [01-40,52] or [1-9/2]")]
    Range {
        /// The text between the brackets.
        range: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The set has more than [`MAX_HOSTS`] hosts.
    #[error("{expression:?} is more than {MAX_HOSTS} hosts; is there a digit too many?")]
    TooMany {
        /// The expression.
        expression: String,
    },
    /// A name has more than [`MAX_NAME_BYTES`] bytes.
    #[error(
        "a name that begins with {beginning:?} is longer than {MAX_NAME_BYTES} bytes; shorten it"
    )]
    TooLong {
        /// The first 40 characters of the pattern that holds the name.
        beginning: String,
    },
    /// No group has this name.
    #[error("there is no group {group:?}{}", known_groups(.group, .known))]
    UnknownGroup {
        /// The name without the `@`.
        group: String,
        /// The names of all groups.
        known: Vec<String>,
    },
    /// A group contains itself, directly or through others.
    #[error("the groups form a cycle: {}", .cycle.join(" → "))]
    Cycle {
        /// The groups of the cycle; the first is repeated at the end.
        cycle: Vec<String>,
    },
    /// Groups and files are nested deeper than [`MAX_GROUP_DEPTH`].
    #[error(
        "{group}: groups are nested more than {MAX_GROUP_DEPTH} deep; name the hosts in fewer \
         steps"
    )]
    TooDeep {
        /// The group or file that exceeds the limit, as written.
        group: String,
    },
    /// A line of a file holds an error.
    #[error("{path}:{line}: {error}")]
    InFile {
        /// The path after the `^`.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// The error in that line.
        error: Box<NodeSetError>,
    },
    /// The source of groups and files reported an error.
    #[error("{0}")]
    Source(String),
}

/// How many times larger than the other one a set is for which it is faster to insert the names of
/// the other one by one than to merge both: about as many as an insertion compares names.
const MERGE_RATIO: usize = 16;

/// How many known groups the message for an unknown one lists.
const MAX_LISTED_GROUPS: usize = 12;

/// Returns the rest of the message for an unknown group: the most similar name, and existing names.
fn known_groups(group: &str, names: &[String]) -> String {
    if names.is_empty() {
        return "; none are configured".to_owned();
    }
    let mut nearest: Vec<(f64, &str)> =
        names.iter().map(|name| (strsim::jaro_winkler(group, name), name.as_str())).collect();
    nearest.sort_by(|one, other| other.0.total_cmp(&one.0));
    let guess = nearest.first().filter(|(similarity, _)| *similarity > 0.8);
    let guess = guess.map_or_else(String::new, |(_, name)| format!("; perhaps @{name}"));
    let mut known: Vec<&str> =
        nearest.iter().take(MAX_LISTED_GROUPS).map(|(_, name)| *name).collect();
    known.sort_unstable();
    let more = if names.len() > MAX_LISTED_GROUPS { ", …" } else { "" };
    format!("{guess}; there are: {}{more}", known.join(", "))
}

impl NodeSet {
    /// Evaluates an expression.
    ///
    /// # Errors
    ///
    /// See [`NodeSetError`]. Its texts quote the input: escape control characters before printing.
    pub fn parse(expression: &str, groups: &dyn Groups) -> Result<Self, NodeSetError> {
        evaluate::evaluate(expression, groups)
    }

    /// Returns the set of these names, taken literally.
    pub fn of<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        names.into_iter().collect()
    }

    /// Returns the number of hosts.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns whether the set has no host.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns whether the set holds the host `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(&Name::new(name.to_owned()))
    }

    /// Returns whether this set was cloned from `other`, or both from one set: they are equal
    /// without a comparison.
    pub fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }

    /// Returns an iterator over the names in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.names.iter())
    }

    /// Returns the hosts that are in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (mut larger, smaller) = self.by_size(other);
        if smaller.is_empty() || smaller.is_clone_of(&larger) {
            return larger;
        }
        let mut names = Arc::unwrap_or_clone(smaller.names);
        let all = Arc::make_mut(&mut larger.names);
        // Merging takes time for every name of both sets.
        if names.len() < all.len() / MERGE_RATIO {
            all.extend(names);
        } else {
            all.append(&mut names);
        }
        larger
    }

    /// Returns the hosts that are not in `other`.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        let names = Arc::make_mut(&mut self.names);
        if other.len() < names.len() {
            for name in other.names.iter() {
                names.remove(name);
            }
        } else {
            names.retain(|name| !other.names.contains(name));
        }
        self
    }

    /// Returns the hosts that are in both sets.
    #[must_use]
    pub fn intersection(self, other: &Self) -> Self {
        let (larger, mut smaller) = self.by_size(other.clone());
        Arc::make_mut(&mut smaller.names).retain(|name| larger.names.contains(name));
        smaller
    }

    /// Returns the hosts that are in exactly one of the two sets.
    #[must_use]
    pub fn symmetric_difference(self, other: Self) -> Self {
        let (mut larger, smaller) = self.by_size(other);
        let names = Arc::make_mut(&mut larger.names);
        for name in Arc::unwrap_or_clone(smaller.names) {
            if !names.remove(&name) {
                names.insert(name);
            }
        }
        larger
    }

    /// Returns the larger of two sets, and the other one: the time of an operation follows from the
    /// size of the smaller one, so that many small ones on a large set take linear time.
    fn by_size(self, other: Self) -> (Self, Self) {
        if self.len() < other.len() { (other, self) } else { (self, other) }
    }
}

/// An iterator over the names of a set, in order.
#[derive(Debug, Clone)]
pub struct Iter<'a>(btree_set::Iter<'a, Name>);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.next().map(Name::as_str)
    }
}

impl<'a> IntoIterator for &'a NodeSet {
    type Item = &'a str;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<T: Into<String>> FromIterator<T> for NodeSet {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let names: BTreeSet<Name> = names.into_iter().map(|name| Name::new(name.into())).collect();
        Self { names: Arc::new(names) }
    }
}

/// Writes the folded form, which parses to the same set.
impl fmt::Display for NodeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&fold::fold(&self.names))
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeSet({self})")
    }
}
