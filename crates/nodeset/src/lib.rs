//! Sets of hosts as people write them: `lab[01-40,52]`, `@group`, unions and differences, and the
//! way back to the shortest form.
//!
//! The notation is ClusterShell's (`cluset(1)`, nodeset syntax). A number's leading zeros belong to
//! its name: `lab1` and `lab01` are two hosts. Operators are evaluated from left to right, none
//! binds tighter than another:
//!
//! | written | means |
//! | --- | --- |
//! | `lab[01-03,07]` | lab01, lab02, lab03, lab07; `[1-9/2]` takes every second |
//! | `rack[1-2]n[1-4]` | every pair: several dimensions |
//! | `lab*`, `node?[1-2]` | those of the known hosts (`@*`) that are called so |
//! | `A,B` or `A B` | union |
//! | `A!B` | difference |
//! | `A&B` | intersection |
//! | `A^B` | in one of the two, not in both |
//! | `@name`, `@source:name`, `@*` | a group, a group of a named source, everything |
//! | `^file` | what stands in a file, `#` begins a comment |
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

pub use evaluate::{Groups, NoGroups};

use name::Name;

/// No expression gives more hosts than this: a slip of the finger must not fill the memory.
pub const MOST: usize = 100_000;

/// No name, and no name of a group, has more bytes than this: [`MOST`] of them must not fill the
/// memory either.
pub const LONGEST: usize = 1000;

/// Groups and files stand within each other no deeper than this.
pub const DEEPEST: usize = 100;

/// Hosts, each once, in the order in which people count: lab2 before lab10.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NodeSet {
    names: BTreeSet<Name>,
}

/// Why an expression is no set of hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeSetError {
    /// An operator without something on both sides, or nothing at all.
    #[error("{expression:?}: a host is missing {place}; write for example lab[01-40]")]
    Missing {
        /// What was being read.
        expression: String,
        /// Where.
        place: String,
    },
    /// A bracket without its partner.
    #[error(
        "{expression:?}: the bracket at position {position} has no partner; write for example \
         lab[01-40]"
    )]
    Bracket {
        /// What was being read.
        expression: String,
        /// Of the bracket, counted from 1 in characters.
        position: usize,
    },
    /// What stands between brackets is no list of ranges.
    #[error("[{range}]: {reason}; write numbers and ranges, for example [01-40,52] or [1-9/2]")]
    Range {
        /// The text between the brackets.
        range: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More than [`MOST`] hosts.
    #[error("{expression:?} are more than {MOST} hosts; is there a digit too many?")]
    TooMany {
        /// What was being read.
        expression: String,
    },
    /// A name of more than [`LONGEST`] bytes.
    #[error("a name that begins with {beginning:?} is longer than {LONGEST} bytes; shorten it")]
    TooLong {
        /// Enough of it to find it by.
        beginning: String,
    },
    /// No group has this name.
    #[error("there is no group {group:?}{}", and_known(.group, .known))]
    UnknownGroup {
        /// The name, as it was written behind the `@`.
        group: String,
        /// Names that do exist.
        known: Vec<String>,
    },
    /// A group is, by way of others, part of itself.
    #[error("the groups go round in a circle: {}", .circle.join(" → "))]
    Circle {
        /// The groups on the way, the first again as the last.
        circle: Vec<String>,
    },
    /// Groups within groups, more than [`DEEPEST`].
    #[error("{group}: more than {DEEPEST} groups within groups; name the hosts in fewer steps")]
    TooDeep {
        /// The group or the file that would be one too many, as it is written.
        group: String,
    },
    /// A file holds a line that is none of these.
    #[error("{path}:{line}: {error}")]
    InFile {
        /// The file, as it is written behind the `^`.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: Box<NodeSetError>,
    },
    /// A group or a file cannot be read.
    #[error("{0}")]
    Source(String),
}

/// More names than these would hide the one that is looked for.
const NAMES: usize = 12;

fn and_known(group: &str, names: &[String]) -> String {
    if names.is_empty() {
        return "; none are configured".to_owned();
    }
    let mut nearest: Vec<(f64, &str)> =
        names.iter().map(|name| (strsim::jaro_winkler(group, name), name.as_str())).collect();
    nearest.sort_by(|one, other| other.0.total_cmp(&one.0));
    let guess = nearest.first().filter(|(likeness, _)| *likeness > 0.8);
    let guess = guess.map_or_else(String::new, |(_, name)| format!("; perhaps @{name}"));
    let mut known: Vec<&str> = nearest.iter().take(NAMES).map(|(_, name)| *name).collect();
    known.sort_unstable();
    let more = if names.len() > NAMES { ", …" } else { "" };
    format!("{guess}; there are: {}{more}", known.join(", "))
}

impl NodeSet {
    /// Evaluates an expression.
    ///
    /// # Errors
    ///
    /// See [`NodeSetError`]; every text in one is fit to be shown after escaping.
    pub fn parse(expression: &str, groups: &dyn Groups) -> Result<Self, NodeSetError> {
        evaluate::evaluate(expression, groups)
    }

    /// A set of these very names; nothing in them is a notation.
    pub fn of<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        names.into_iter().collect()
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether this host is in it.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(&Name::new(name.to_owned()))
    }

    /// The names in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.names.iter())
    }

    /// Those that are in one of the two or in both.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        if self.is_empty() {
            // Every expression begins so: what is in order already need not be put in order name by
            // name.
            return other;
        }
        self.names.extend(other.names);
        self
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.names.retain(|name| !other.names.contains(name));
        self
    }

    /// Those that are in both.
    #[must_use]
    pub fn intersection(mut self, other: &Self) -> Self {
        self.names.retain(|name| other.names.contains(name));
        self
    }

    /// Those that are in exactly one of the two.
    #[must_use]
    pub fn symmetric_difference(self, other: Self) -> Self {
        Self { names: self.names.symmetric_difference(&other.names).cloned().collect() }
    }
}

/// The names of a set, in order.
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
        Self { names: names.into_iter().map(|name| Name::new(name.into())).collect() }
    }
}

/// The shortest form: evaluated again it gives the same set.
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
