//! Parses YAML into a tree of nodes with their lines, bounded in depth and size.

use std::collections::HashMap;

use labsh_diagnostics::Diagnostic;
use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::input_file::InputFile;

/// How deeply lists and tables may be nested.
const MAX_DEPTH: usize = 64;

/// How many nodes a file may have. The content of an alias is counted every time, and a long text
/// as several nodes.
const MAX_NODES: usize = 1_000_000;

/// How many bytes of text count as one more node.
const BYTES_PER_NODE: usize = 64;

/// A node of a document.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The line where it begins, counted from 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// No value, `~` or `null`.
    Null,
    /// Any other scalar, as written; a quoted one without its quotes.
    Scalar(String),
    /// A value that Ansible Vault has encrypted.
    Encrypted,
    List(Vec<Node>),
    Table(Vec<(Node, Node)>),
}

impl Node {
    /// Returns the text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Converts the node to JSON; scalars become strings.
    pub(crate) fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Encrypted => serde_json::Value::Null,
            Value::Scalar(text) => serde_json::Value::String(text.clone()),
            Value::List(nodes) => nodes.iter().map(Self::json).collect(),
            Value::Table(pairs) => {
                let key =
                    |key: &Self| key.text().map_or_else(|| key.json().to_string(), str::to_owned);
                serde_json::Value::Object(
                    pairs.iter().map(|(name, value)| (key(name), value.json())).collect(),
                )
            }
        }
    }
}

/// A list or table that has not ended yet.
struct Open {
    node: Node,
    /// The number of its anchor; 0 without one.
    anchor: usize,
    /// The key of a table whose value comes next.
    key: Option<Node>,
}

/// Parses a text of one document; an empty text is [`Value::Null`].
pub(crate) fn parse(text: &str, file: &InputFile) -> Result<Node, Diagnostic> {
    let mut builder = Builder {
        file,
        open: Vec::new(),
        anchors: HashMap::new(),
        document: None,
        nodes_left: MAX_NODES,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            // The position of an unexpected end is after the last line.
            let line = error.marker().line().clamp(1, text.lines().count().max(1));
            file.diagnostic(line, format!("that is not YAML: {}; correct that line", error.info()))
        })?;
        builder.event(event, span.start.line().max(1))?;
    }
    Ok(builder.document.unwrap_or(Node { line: 1, value: Value::Null }))
}

/// Builds the tree from the parser's events.
struct Builder<'a> {
    file: &'a InputFile,
    /// The lists and tables around the next node, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Extent)>,
    document: Option<Node>,
    nodes_left: usize,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Diagnostic> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.document.is_some() => {
                Err(self.file.diagnostic(line, "a second document begins; leave one in the file"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::SequenceStart(anchor, _) => self.start(Value::List(Vec::new()), anchor, line),
            Event::MappingStart(anchor, _) => self.start(Value::Table(Vec::new()), anchor, line),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { mut node, anchor, .. }) = self.open.pop() else { return Ok(()) };
                if let Value::Table(pairs) = &mut node.value {
                    finish(pairs, self.file)?;
                }
                self.add(node, anchor, 1, line)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ if tag.is_some_and(|tag| tag.suffix.starts_with("vault")) => Value::Encrypted,
                    _ => Value::Scalar(text.into_owned()),
                };
                let node = Node { line, value };
                let size = extent(&node).size;
                self.add(node, anchor, size, line)
            }
            Event::Alias(anchor) => self.alias(anchor, line),
        }
    }

    /// Starts a list or table.
    fn start(&mut self, value: Value, anchor: usize, line: usize) -> Result<(), Diagnostic> {
        if self.open.len() == MAX_DEPTH {
            let reason = format!("more than {MAX_DEPTH} levels; flatten them");
            return Err(self.file.diagnostic(line, reason));
        }
        self.open.push(Open { node: Node { line, value }, anchor, key: None });
        Ok(())
    }

    /// Adds a copy of the node that an alias refers to.
    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), Diagnostic> {
        let Some((node, extent)) = self.anchors.get(&anchor) else {
            let reason = "this alias refers to a node that contains it; write it out";
            return Err(self.file.diagnostic(line, reason));
        };
        // Aliases of nodes that hold aliases can be nested deeper than the text itself.
        if self.open.len() + extent.depth > MAX_DEPTH {
            let reason = format!("more than {MAX_DEPTH} levels, aliases written out; flatten them");
            return Err(self.file.diagnostic(line, reason));
        }
        let (node, size) = (node.clone(), extent.size);
        self.add(node, 0, size, line)
    }

    /// Adds a complete node, which counts as `size` nodes, to the list or table around it.
    fn add(
        &mut self,
        node: Node,
        anchor: usize,
        size: usize,
        line: usize,
    ) -> Result<(), Diagnostic> {
        self.nodes_left = self.nodes_left.checked_sub(size).ok_or_else(|| {
            let reason =
                format!("more than {MAX_NODES} values, aliases written out; split the file");
            self.file.diagnostic(line, reason)
        })?;
        if anchor > 0 {
            // The copy that later aliases use is counted as well.
            let extent = extent(&node);
            self.nodes_left = self
                .nodes_left
                .checked_sub(extent.size)
                .ok_or_else(|| self.file.diagnostic(line, "too many anchors; split the file"))?;
            self.anchors.insert(anchor, (node.clone(), extent));
        }
        match self.open.last_mut() {
            None => self.document = Some(node),
            Some(Open { node: Node { value: Value::List(nodes), .. }, .. }) => nodes.push(node),
            Some(Open { node: Node { value: Value::Table(pairs), .. }, key, .. }) => {
                match key.take() {
                    None => *key = Some(node),
                    Some(name) => pairs.push((name, node)),
                }
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// The size of a node with all its children.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// The number of nodes, as [`MAX_NODES`] counts them.
    size: usize,
    /// How deeply lists and tables are nested.
    depth: usize,
}

/// Measures a node.
fn extent(node: &Node) -> Extent {
    fn collection<'a>(children: impl Iterator<Item = &'a Node>) -> Extent {
        children.map(extent).fold(Extent { size: 1, depth: 1 }, |whole, child| Extent {
            size: whole.size + child.size,
            depth: whole.depth.max(child.depth + 1),
        })
    }
    match &node.value {
        Value::List(nodes) => collection(nodes.iter()),
        Value::Table(pairs) => collection(pairs.iter().flat_map(|(key, value)| [key, value])),
        Value::Scalar(text) => Extent { size: 1 + text.len() / BYTES_PER_NODE, depth: 0 },
        Value::Null | Value::Encrypted => Extent { size: 1, depth: 0 },
    }
}

/// Completes a table: merges the tables that `<<` names, and refuses duplicate keys.
fn finish(pairs: &mut Vec<(Node, Node)>, file: &InputFile) -> Result<(), Diagnostic> {
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut merged = Vec::new();
    for (key, value) in std::mem::take(pairs) {
        let Some(name) = key.text() else {
            pairs.push((key, value));
            continue;
        };
        if name == "<<" {
            let parts = match value.value {
                Value::List(parts) => parts,
                _ => vec![value],
            };
            for part in parts {
                let Value::Table(inherited) = part.value else {
                    return Err(file
                        .diagnostic(key.line, "<< takes a table, or a list of tables; name one"));
                };
                merged.extend(inherited);
            }
            continue;
        }
        if let Some(first) = lines.insert(name.to_owned(), key.line) {
            let reason = format!("{name:?} is in line {first} already; make one of the two");
            return Err(file.diagnostic(key.line, reason));
        }
        pairs.push((key, value));
    }
    // The table's own keys take precedence, then those of the first merged table.
    for (key, value) in merged {
        let new = key.text().is_none_or(|name| !lines.contains_key(name));
        if new {
            lines.extend(key.text().map(|name| (name.to_owned(), key.line)));
            pairs.push((key, value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn error(text: &str) -> String {
        parse(text, &InputFile::new(Path::new("i.yml"))).unwrap_err().reason
    }

    #[test]
    fn an_alias_of_a_long_text_counts_by_its_length() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
        assert!(error(&text).contains("aliases written out"), "{}", error(&text));
    }

    #[test]
    fn the_depth_limit_includes_aliases() {
        let mut text = String::from("a0: &a0 x\n");
        for step in 1..10 {
            let (open, close) = ("[".repeat(20), "]".repeat(20));
            text += &format!("a{step}: &a{step} {open}*a{}{close}\n", step - 1);
        }
        assert!(error(&text).contains("levels, aliases written out"), "{}", error(&text));
    }
}
