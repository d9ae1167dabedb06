//! Evaluates expressions: patterns, groups and files joined by operators.

use std::collections::HashMap;

use crate::{MAX_GROUP_DEPTH, MAX_HOSTS, NodeSet, NodeSetError, pattern};

/// A source of groups and files, whose contents are expressions again, one a line.
pub trait Groups {
    /// Returns the members of a group, or `None` where it does not exist. The name has no `@`, but
    /// may begin with the name of a source: `racks:r1`.
    fn group(&self, name: &str) -> Result<Option<String>, String>;

    /// Returns the members of `@*`: every known host.
    fn all(&self) -> Result<String, String>;

    /// Returns members of `@*` by their names, besides those of [`Groups::all`].
    fn all_names(&self) -> NodeSet {
        NodeSet::default()
    }

    /// Refuses a name with wildcards where known hosts cannot be searched.
    fn check_wildcard(&self, _name: &str) -> Result<(), String> {
        Ok(())
    }

    /// Returns the content of a file of hosts.
    fn file(&self, path: &str, named_by: NamedBy) -> Result<String, String>;

    /// Refuses a name in a file that no host can have.
    fn check_name(&self, _name: &str) -> Result<(), String> {
        Ok(())
    }

    /// Returns the names of all groups, for the message about an unknown one.
    fn names(&self) -> Vec<String>;
}

/// What names a file of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The user, whose file may be a pipe.
    User,
    /// A group.
    Group,
}

/// A source without groups and files.
#[derive(Debug, Clone, Copy)]
pub struct NoGroups;

impl Groups for NoGroups {
    fn group(&self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn all(&self) -> Result<String, String> {
        Err("@*: no hosts are configured".to_owned())
    }

    fn file(&self, path: &str, _: NamedBy) -> Result<String, String> {
        Err(format!("^{path}: files cannot be read here"))
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) fn evaluate(expression: &str, groups: &dyn Groups) -> Result<NodeSet, NodeSetError> {
    Evaluation { groups, stack: Vec::new(), cache: HashMap::new() }.evaluate(expression)
}

struct Evaluation<'a> {
    groups: &'a dyn Groups,
    /// The groups and files that are being evaluated, outermost first.
    stack: Vec<String>,
    /// Results by name, so that a group shared by many others is evaluated once.
    cache: HashMap<String, NodeSet>,
}

#[derive(Clone, Copy)]
enum Operator {
    Union,
    Difference,
    Intersection,
    SymmetricDifference,
}

impl Evaluation<'_> {
    fn evaluate(&mut self, expression: &str) -> Result<NodeSet, NodeSetError> {
        let missing =
            |place: String| NodeSetError::Missing { expression: expression.to_owned(), place };
        let mut set = NodeSet::default();
        let mut operator = Operator::Union;
        let mut rest = expression.trim();
        loop {
            let (operand, tail) = rest.split_at(operand_end(rest));
            if operand.is_empty() || operand == "^" {
                let place = match rest.chars().next() {
                    Some('^') => "after \"^\"".to_owned(),
                    Some(symbol) => format!("in front of {:?}", symbol.to_string()),
                    None => "at the end".to_owned(),
                };
                return Err(missing(place));
            }
            let value = self.operand(operand)?;
            set = match operator {
                Operator::Union => set.union(value),
                Operator::Difference => set.difference(&value),
                Operator::Intersection => set.intersection(&value),
                Operator::SymmetricDifference => set.symmetric_difference(value),
            };
            if set.len() > MAX_HOSTS {
                return Err(NodeSetError::TooMany { expression: expression.to_owned() });
            }
            if tail.trim_start().is_empty() {
                return Ok(set);
            }
            (operator, rest) = next_operator(tail);
        }
    }

    fn operand(&mut self, operand: &str) -> Result<NodeSet, NodeSetError> {
        if let Some(path) = operand.strip_prefix('^') {
            return self.file(operand, path);
        }
        let Some(groups) = operand.strip_prefix('@') else {
            let names = pattern::expand(operand)?;
            if !pattern::has_wildcard(operand) {
                return Ok(NodeSet::of(names));
            }
            self.groups.check_wildcard(operand).map_err(NodeSetError::Source)?;
            let all = self.all()?;
            let matches = |host: &&str| names.iter().any(|name| pattern::matches(name, host));
            return Ok(all.iter().filter(matches).collect());
        };
        if groups == "*" {
            return self.all();
        }
        let mut set = NodeSet::default();
        for group in pattern::expand(groups)? {
            if let Some(known) = self.cache.get(&format!("@{group}")) {
                set = set.union(known.clone());
                continue;
            }
            let Some(content) = self.groups.group(&group).map_err(NodeSetError::Source)? else {
                return Err(NodeSetError::UnknownGroup { group, known: self.groups.names() });
            };
            set =
                set.union(self.nested(&format!("@{group}"), |inner| inner.lines(&content, None))?);
        }
        Ok(set)
    }

    /// Evaluates a file, which is read once: a pipe has its hosts only the first time.
    fn file(&mut self, operand: &str, path: &str) -> Result<NodeSet, NodeSetError> {
        if let Some(known) = self.cache.get(operand) {
            return Ok(known.clone());
        }
        let in_group = self.stack.iter().any(|outer| outer.starts_with('@'));
        let named_by = if in_group { NamedBy::Group } else { NamedBy::User };
        let text = self.groups.file(path, named_by).map_err(NodeSetError::Source)?;
        let shown = if path == STDIN { "standard input" } else { path };
        self.nested(operand, |inner| inner.lines(&text, Some(shown)))
    }

    /// Evaluates `@*`: every known host.
    fn all(&mut self) -> Result<NodeSet, NodeSetError> {
        if let Some(known) = self.cache.get("@*") {
            return Ok(known.clone());
        }
        let all = self.groups.all().map_err(NodeSetError::Source)?;
        let names = self.groups.all_names();
        self.nested("@*", |inner| Ok(inner.lines(&all, None)?.union(names)))
    }

    /// Returns the union of the expressions in `text`, one a line; empty text is an empty set.
    /// Errors in a file get its path and the line.
    fn lines(&mut self, text: &str, file: Option<&str>) -> Result<NodeSet, NodeSetError> {
        let mut set = NodeSet::default();
        // Sorting the names of a long list is faster than to insert one after the other.
        let mut single_hosts: Vec<String> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default();
            if line.trim().is_empty() {
                continue;
            }
            let hosts = match file {
                None => self.evaluate(line)?,
                Some(path) => self.checked(line).map_err(|error| in_file(error, path, number))?,
            };
            match hosts.len() {
                1 => single_hosts.extend(hosts.iter().map(str::to_owned)),
                _ => set = set.union(hosts),
            }
        }
        Ok(set.union(NodeSet::of(single_hosts)))
    }

    /// Evaluates a line of a file, and checks its names.
    fn checked(&mut self, line: &str) -> Result<NodeSet, NodeSetError> {
        let set = self.evaluate(line)?;
        set.iter()
            .try_for_each(|name| self.groups.check_name(name))
            .map_err(NodeSetError::Source)?;
        Ok(set)
    }

    /// Evaluates a group or file inside those on the stack, and caches the result.
    fn nested(
        &mut self,
        name: &str,
        evaluate: impl FnOnce(&mut Self) -> Result<NodeSet, NodeSetError>,
    ) -> Result<NodeSet, NodeSetError> {
        if let Some(at) = self.stack.iter().position(|outer| outer == name) {
            let mut cycle = self.stack.split_off(at);
            cycle.push(name.to_owned());
            return Err(NodeSetError::Cycle { cycle });
        }
        if self.stack.len() == MAX_GROUP_DEPTH {
            return Err(NodeSetError::TooDeep { group: name.to_owned() });
        }
        self.stack.push(name.to_owned());
        let set = evaluate(self);
        self.stack.pop();
        if let Ok(set) = &set {
            self.cache.insert(name.to_owned(), set.clone());
        }
        set
    }
}

/// Adds the file and the line to an error that has none yet.
fn in_file(error: NodeSetError, path: &str, line: usize) -> NodeSetError {
    match error {
        NodeSetError::InFile { .. } => error,
        _ => NodeSetError::InFile { path: path.to_owned(), line, error: Box::new(error) },
    }
}

/// The operand that is standard input, without its `^`.
const STDIN: &str = "-";

/// Returns the operator at the start of the text after an operand, and the text after it. Blanks
/// around it have no meaning, and blanks alone are a union.
fn next_operator(tail: &str) -> (Operator, &str) {
    let text = tail.trim_start();
    let after_blank = text.len() < tail.len();
    let operator = match text.chars().next() {
        Some('!') => Operator::Difference,
        Some('&') => Operator::Intersection,
        // After a blank, `^rooms/a` is a file and `^lab2` an operator with its operand.
        Some('^') if !after_blank || !begins_with_path(&text[1..]) => Operator::SymmetricDifference,
        Some(',') => Operator::Union,
        _ => return (Operator::Union, text),
    };
    (operator, text[1..].trim_start())
}

/// Whether a text begins with the path of a file or with that of standard input, rather than with
/// hosts: a slash in it is neither in brackets nor in the path of a socket.
fn begins_with_path(text: &str) -> bool {
    let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
    let before_brackets = text[..end].split('[').next().unwrap_or_default();
    let is_set = text.starts_with("unix:") || text.starts_with('@');
    stdin_end(text).is_some() || before_brackets.contains('/') && !is_set
}

/// Returns the end of `-` at the start of `text`, if that is not the beginning of a longer path.
fn stdin_end(text: &str) -> Option<usize> {
    let rest = text.strip_prefix(STDIN)?;
    let ends = |c: char| c.is_whitespace() || ",!&^".contains(c);
    rest.chars().next().is_none_or(ends).then_some(STDIN.len())
}

/// Returns the end of the operand at the start of `text`: an operator or a blank outside brackets.
/// The path of a file or a Unix socket ends only at a comma or a blank.
fn operand_end(text: &str) -> usize {
    if let Some(end) = text.strip_prefix('^').and_then(stdin_end) {
        return '^'.len_utf8() + end;
    }
    let path = text.starts_with('^') || text.starts_with("unix:");
    let mut in_brackets = false;
    for (at, symbol) in text.char_indices() {
        match symbol {
            '[' if !path => in_brackets = true,
            ']' => in_brackets = false,
            ',' if !in_brackets => return at,
            '!' | '&' | '^' if !in_brackets && !path => return at,
            _ if symbol.is_whitespace() && !in_brackets => return at,
            _ => {}
        }
    }
    text.len()
}
