//! YAML as a tree whose every part knows its line, bounded in depth and in size.

use std::collections::HashMap;

use labsh_diagnostics::Diagnostic;
use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::input_file::Place;

/// How deep lists and tables may stand within each other.
const DEEPEST: usize = 64;

/// How many parts a file may have. What an alias stands for counts each time, and a long text as
/// several.
const MOST_NODES: usize = 1_000_000;

/// Every so many bytes of a text count as a part more.
const TEXT: usize = 64;

/// A part of a document.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it begins, from 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing at all, `~` or `null`.
    Null,
    /// Any other single value, as it is written; a quoted one without its quotes.
    Scalar(String),
    /// Something that another program has encrypted.
    Secret,
    List(Vec<Node>),
    Table(Vec<(Node, Node)>),
}

impl Node {
    /// A single value's text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// The same as JSON; single values become strings.
    pub(crate) fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Secret => serde_json::Value::Null,
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

/// Something that is not finished yet.
struct Open {
    node: Node,
    anchor: usize,
    /// Of a table: the key whose value comes next.
    key: Option<Node>,
}

/// The one document of a text; [`Value::Null`] where it is empty.
pub(crate) fn parse(text: &str, place: &Place) -> Result<Node, Diagnostic> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Node, Extent)> = HashMap::new();
    let mut document: Option<Node> = None;
    let mut left = MOST_NODES;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            // What is missing at the end is missed behind the last line.
            let line = error.marker().line().clamp(1, text.lines().count().max(1));
            place.diagnostic(line, format!("that is no YAML: {}; correct that line", error.info()))
        })?;
        let line = span.start.line().max(1);
        let mut size = 1;
        let (node, anchor) = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::DocumentStart(_) if document.is_some() => {
                return Err(
                    place.diagnostic(line, "a second document begins; leave one in the file")
                );
            }
            Event::DocumentStart(_) => continue,
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() == DEEPEST {
                    return Err(
                        place.diagnostic(line, format!("more than {DEEPEST} levels; flatten them"))
                    );
                }
                let value = match event {
                    Event::SequenceStart(..) => Value::List(Vec::new()),
                    _ => Value::Table(Vec::new()),
                };
                open.push(Open { node: Node { line, value }, anchor, key: None });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { mut node, anchor, .. }) = open.pop() else { continue };
                if let Value::Table(pairs) = &mut node.value {
                    finish(pairs, place)?;
                }
                (node, anchor)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ if tag.is_some_and(|tag| tag.suffix.starts_with("vault")) => Value::Secret,
                    _ => Value::Scalar(text.into_owned()),
                };
                let node = Node { line, value };
                size = extent(&node).size;
                (node, anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, extent)) = anchors.get(&anchor) else {
                    return Err(place.diagnostic(
                        line,
                        "this alias stands for what it is part of; write it out",
                    ));
                };
                // Aliases of what holds aliases can nest without any bracket that does.
                if open.len() + extent.depth > DEEPEST {
                    let reason =
                        format!("more than {DEEPEST} levels, aliases written out; flatten them");
                    return Err(place.diagnostic(line, reason));
                }
                size = extent.size;
                (node.clone(), 0)
            }
        };
        left = left.checked_sub(size).ok_or_else(|| {
            place.diagnostic(
                line,
                format!("more than {MOST_NODES} values, aliases written out; split the file"),
            )
        })?;
        if anchor > 0 {
            // Aliases of large parts are dear; what is kept for them is counted like an alias.
            let extent = extent(&node);
            left = left
                .checked_sub(extent.size)
                .ok_or_else(|| place.diagnostic(line, "too many anchors; split the file"))?;
            anchors.insert(anchor, (node.clone(), extent));
        }
        match open.last_mut() {
            None => document = Some(node),
            Some(Open { node: Node { value: Value::List(nodes), .. }, .. }) => nodes.push(node),
            Some(Open { node: Node { value: Value::Table(pairs), .. }, key, .. }) => {
                match key.take() {
                    None => *key = Some(node),
                    Some(name) => pairs.push((name, node)),
                }
            }
            Some(_) => {}
        }
    }
    Ok(document.unwrap_or(Node { line: 1, value: Value::Null }))
}

/// What a part costs wherever it stands.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// In parts, as [`MOST_NODES`] counts them.
    size: usize,
    /// Lists and tables within each other.
    depth: usize,
}

fn extent(node: &Node) -> Extent {
    let around = |inside: &mut dyn Iterator<Item = &Node>| {
        let whole = Extent { size: 1, depth: 0 };
        let whole = inside.map(extent).fold(whole, |whole, part| Extent {
            size: whole.size + part.size,
            depth: whole.depth.max(part.depth),
        });
        Extent { depth: whole.depth + 1, ..whole }
    };
    match &node.value {
        Value::List(nodes) => around(&mut nodes.iter()),
        Value::Table(pairs) => around(&mut pairs.iter().flat_map(|(key, value)| [key, value])),
        Value::Scalar(text) => Extent { size: 1 + text.len() / TEXT, depth: 0 },
        Value::Null | Value::Secret => Extent { size: 1, depth: 0 },
    }
}

/// Takes up what `<<` names, and finds keys that stand there twice.
fn finish(pairs: &mut Vec<(Node, Node)>, place: &Place) -> Result<(), Diagnostic> {
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
                    return Err(place
                        .diagnostic(key.line, "<< takes a table, or a list of tables; name one"));
                };
                merged.extend(inherited);
            }
            continue;
        }
        if let Some(first) = lines.insert(name.to_owned(), key.line) {
            let reason = format!("{name:?} is there in line {first} already; make one of the two");
            return Err(place.diagnostic(key.line, reason));
        }
        pairs.push((key, value));
    }
    // What stands there itself comes first, then the first table that is merged.
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

    fn refused(text: &str) -> String {
        parse(text, &Place::new(Path::new("i.yml"))).unwrap_err().reason
    }

    #[test]
    fn aliases_of_a_long_text_are_counted_by_its_length() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
        assert!(refused(&text).contains("aliases written out"), "{}", refused(&text));
    }

    #[test]
    fn aliases_nest_no_deeper_than_brackets() {
        let mut text = String::from("a0: &a0 x\n");
        for step in 1..10 {
            let (open, close) = ("[".repeat(20), "]".repeat(20));
            text += &format!("a{step}: &a{step} {open}*a{}{close}\n", step - 1);
        }
        assert!(refused(&text).contains("levels, aliases written out"), "{}", refused(&text));
    }
}
