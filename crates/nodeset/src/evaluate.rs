//! Expressions: patterns, groups and files, joined by operators.

use std::collections::HashMap;

use crate::{DEEPEST, MOST, NodeSet, NodeSetError, pattern};

/// Where groups and files come from. Everything that is returned is an expression again.
pub trait Groups {
    /// What stands for a group; `None` where there is no such group. The name is what follows the
    /// `@`, with its source where one was written: `racks:r1`.
    fn group(&self, name: &str) -> Result<Option<String>, String>;

    /// What `@*` stands for: every host that is known.
    fn all(&self) -> Result<String, String>;

    /// Refuses names with wildcards where they are not to be looked for among all hosts.
    fn check_wildcard(&self, _name: &str) -> Result<(), String> {
        Ok(())
    }

    /// The content of a file of hosts.
    fn file(&self, path: &str) -> Result<String, String>;

    /// The names of all groups, for the message that one is not among them.
    fn names(&self) -> Vec<String>;
}

/// For expressions without groups and files.
#[derive(Debug, Clone, Copy)]
pub struct NoGroups;

impl Groups for NoGroups {
    fn group(&self, _: &str) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn all(&self) -> Result<String, String> {
        Err("@*: no hosts are configured".to_owned())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("^{path}: files cannot be read here"))
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) fn evaluate(expression: &str, groups: &dyn Groups) -> Result<NodeSet, NodeSetError> {
    Evaluation { groups, inside: Vec::new(), known: HashMap::new() }.evaluate(expression)
}

struct Evaluation<'a> {
    groups: &'a dyn Groups,
    /// The groups and files that are being looked up, each inside the one before it.
    inside: Vec<String>,
    /// What has been looked up: groups that many others share are evaluated once.
    known: HashMap<String, NodeSet>,
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
            let (operand, behind) = rest.split_at(operand_end(rest));
            if operand.is_empty() {
                let place = match rest.chars().next() {
                    Some(sign) => format!("in front of {:?}", sign.to_string()),
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
            if set.len() > MOST {
                return Err(NodeSetError::TooMany { expression: expression.to_owned() });
            }
            let trimmed = behind.trim_start();
            if trimmed.is_empty() {
                return Ok(set);
            }
            let sign = trimmed.chars().next().filter(|sign| ",!&^".contains(*sign));
            // Behind a blank, `^` begins the name of a file.
            let sign = sign.filter(|sign| *sign != '^' || trimmed.len() == behind.len());
            (operator, rest) = match sign {
                Some('!') => (Operator::Difference, &trimmed[1..]),
                Some('&') => (Operator::Intersection, &trimmed[1..]),
                Some('^') => (Operator::SymmetricDifference, &trimmed[1..]),
                Some(_) => (Operator::Union, &trimmed[1..]),
                None => (Operator::Union, trimmed),
            };
            rest = rest.trim_start();
        }
    }

    fn operand(&mut self, operand: &str) -> Result<NodeSet, NodeSetError> {
        if let Some(path) = operand.strip_prefix('^') {
            let text = self.groups.file(path).map_err(NodeSetError::Source)?;
            return self.within(operand, |inner| inner.lines(&text, Some(path)));
        }
        let Some(groups) = operand.strip_prefix('@') else {
            let names = pattern::expand(operand)?;
            if !pattern::has_wildcard(operand) {
                return Ok(NodeSet::of(names));
            }
            self.groups.check_wildcard(operand).map_err(NodeSetError::Source)?;
            let all = self.all()?;
            let meant = |host: &&str| names.iter().any(|name| pattern::matches(name, host));
            return Ok(all.iter().filter(meant).collect());
        };
        if groups == "*" {
            return self.all();
        }
        let mut set = NodeSet::default();
        for group in pattern::expand(groups)? {
            if let Some(known) = self.known.get(&format!("@{group}")) {
                set = set.union(known.clone());
                continue;
            }
            let Some(content) = self.groups.group(&group).map_err(NodeSetError::Source)? else {
                return Err(NodeSetError::UnknownGroup { group, known: self.groups.names() });
            };
            set =
                set.union(self.within(&format!("@{group}"), |inner| inner.lines(&content, None))?);
        }
        Ok(set)
    }

    /// Every host that is known.
    fn all(&mut self) -> Result<NodeSet, NodeSetError> {
        if let Some(known) = self.known.get("@*") {
            return Ok(known.clone());
        }
        let all = self.groups.all().map_err(NodeSetError::Source)?;
        self.within("@*", |inner| inner.lines(&all, None))
    }

    /// Each line is an expression; an empty group or file is an empty set. Of a file, mistakes are
    /// told with their place.
    fn lines(&mut self, text: &str, file: Option<&str>) -> Result<NodeSet, NodeSetError> {
        let mut set = NodeSet::default();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default();
            if !line.trim().is_empty() {
                set = set.union(self.evaluate(line).map_err(|error| in_file(error, file, number))?);
            }
        }
        Ok(set)
    }

    fn within(
        &mut self,
        name: &str,
        look_up: impl FnOnce(&mut Self) -> Result<NodeSet, NodeSetError>,
    ) -> Result<NodeSet, NodeSetError> {
        if let Some(at) = self.inside.iter().position(|outer| outer == name) {
            let mut circle = self.inside.split_off(at);
            circle.push(name.to_owned());
            return Err(NodeSetError::Circle { circle });
        }
        if self.inside.len() == DEEPEST {
            return Err(NodeSetError::TooDeep { group: name.to_owned() });
        }
        self.inside.push(name.to_owned());
        let set = look_up(self);
        self.inside.pop();
        if let Ok(set) = &set {
            self.known.insert(name.to_owned(), set.clone());
        }
        set
    }
}

/// With the file and the line, where none are told yet.
fn in_file(error: NodeSetError, file: Option<&str>, line: usize) -> NodeSetError {
    match (file, &error) {
        (
            Some(path),
            NodeSetError::Missing { .. }
            | NodeSetError::Bracket { .. }
            | NodeSetError::Range { .. },
        )
        | (Some(path), NodeSetError::TooMany { .. } | NodeSetError::UnknownGroup { .. }) => {
            NodeSetError::InFile { path: path.to_owned(), line, error: Box::new(error) }
        }
        _ => error,
    }
}

/// Where an operand ends: at an operator or a blank outside of brackets. The path of a file or of a
/// unix socket ends only at a comma or a blank.
fn operand_end(text: &str) -> usize {
    let path = text.starts_with('^') || text.starts_with("unix:");
    let mut inside = false;
    for (at, sign) in text.char_indices() {
        match sign {
            '[' if !path => inside = true,
            ']' => inside = false,
            ',' if !inside => return at,
            '!' | '&' | '^' if !inside && !path => return at,
            _ if sign.is_whitespace() && !inside => return at,
            _ => {}
        }
    }
    text.len()
}
