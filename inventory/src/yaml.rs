//! YAML as a tree whose every part knows its line, bounded in depth and in size.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::Mistake;
use crate::text::Place;

/// How deep lists and tables may stand within each other.
const DEEPEST: usize = 64;

/// How many parts a file may have. What an alias stands for counts each time.
const MOST_NODES: usize = 1_000_000;

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
                let key = |key: &Self| key.text().map_or_else(|| key.json().to_string(), str::to_owned);
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
pub(crate) fn parse(text: &str, place: &Place) -> Result<Node, Mistake> {
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Node, usize)> = HashMap::new();
    let mut document: Option<Node> = None;
    let mut left = MOST_NODES;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            // What is missing at the end is missed behind the last line.
            let line = error.marker().line().clamp(1, text.lines().count().max(1));
            place.mistake(line, format!("that is no YAML: {}; correct that line", error.info()))
        })?;
        let line = span.start.line().max(1);
        let mut size = 1;
        let (node, anchor) = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
            Event::DocumentStart(_) if document.is_some() => {
                return Err(place.mistake(line, "a second document begins; leave one in the file"));
            }
            Event::DocumentStart(_) => continue,
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() == DEEPEST {
                    return Err(place.mistake(line, format!("more than {DEEPEST} levels; flatten them")));
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
                (Node { line, value }, anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, nodes)) = anchors.get(&anchor) else {
                    return Err(place.mistake(line, "this alias stands for what it is part of; write it out"));
                };
                size = *nodes;
                (node.clone(), 0)
            }
        };
        left = left.checked_sub(size).ok_or_else(|| {
            place.mistake(line, format!("more than {MOST_NODES} values, aliases written out; split the file"))
        })?;
        if anchor > 0 {
            // Aliases of large parts are dear; what is kept for them is counted like an alias.
            let nodes = count(&node);
            left = left
                .checked_sub(nodes)
                .ok_or_else(|| place.mistake(line, "too many anchors; split the file"))?;
            anchors.insert(anchor, (node.clone(), nodes));
        }
        match open.last_mut() {
            None => document = Some(node),
            Some(Open { node: Node { value: Value::List(nodes), .. }, .. }) => nodes.push(node),
            Some(Open { node: Node { value: Value::Table(pairs), .. }, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(name) => pairs.push((name, node)),
            },
            Some(_) => {}
        }
    }
    Ok(document.unwrap_or(Node { line: 1, value: Value::Null }))
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::List(nodes) => 1 + nodes.iter().map(count).sum::<usize>(),
        Value::Table(pairs) => 1 + pairs.iter().map(|(key, value)| count(key) + count(value)).sum::<usize>(),
        Value::Null | Value::Scalar(_) | Value::Secret => 1,
    }
}

/// Takes up what `<<` names, and finds keys that stand there twice.
fn finish(pairs: &mut Vec<(Node, Node)>, place: &Place) -> Result<(), Mistake> {
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
                    return Err(place.mistake(key.line, "<< takes a table, or a list of tables; name one"));
                };
                merged.extend(inherited);
            }
            continue;
        }
        if let Some(first) = lines.insert(name.to_owned(), key.line) {
            let reason = format!("{name:?} is there in line {first} already; make one of the two");
            return Err(place.mistake(key.line, reason));
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
