//! Ansible's inventories in their YAML form; JSON is YAML too.
//!
//! Read are groups with `hosts`, `children` and `vars`, anchors and merged tables included.
//! Templates are not filled in, and no plugin is run.

use std::path::Path;

use labsh_diagnostics::Diagnostic;

use crate::Source;
use crate::ansible::{self, Inventory, vars};
use crate::input_file::Place;
use crate::yaml::{self, Node, Value};

/// Reads an inventory from a file, and the variables in `group_vars` and `host_vars` beside it.
///
/// # Errors
///
/// Where a file cannot be read, and wherever [`parse`] finds a mistake.
pub fn read(path: &Path) -> Result<Source, Diagnostic> {
    let mut inventory = groups(&Place::new(path).read()?, path)?;
    vars::read(&mut inventory, path)?;
    inventory.finish()
}

/// Reads an inventory; the path is for the origins.
///
/// # Errors
///
/// The first line that makes no sense: where Ansible would warn and pass over a part, this is a
/// mistake.
pub fn parse(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    groups(text, path)?.finish()
}

fn groups(text: &str, path: &Path) -> Result<Inventory, Diagnostic> {
    let place = Place::new(path);
    let document = yaml::parse(text, &place)?;
    let mut inventory = Inventory::new(place);
    let groups = match document.value {
        Value::Table(groups) => groups,
        Value::Null => {
            return Err(inventory.diagnostic(
                None,
                "there is nothing in it; write for example all: {hosts: {lab1: }}",
            ));
        }
        _ => {
            let reason =
                "an inventory is a table of groups; write for example all: {hosts: {lab1: }}";
            return Err(inventory.diagnostic(document.line, reason));
        }
    };
    if let Some((key, _)) = groups.iter().find(|(key, _)| key.text() == Some("plugin")) {
        let reason = "this file asks a plugin for hosts, which only Ansible can; name the output \
            of ansible-inventory --list \
                      --yaml instead";
        return Err(inventory.diagnostic(key.line, reason));
    }
    for (key, value) in &groups {
        group(&mut inventory, key, value)?;
    }
    Ok(inventory)
}

/// A group, and what stands in it. The depth of this recursion is that of the document.
fn group(inventory: &mut Inventory, key: &Node, value: &Node) -> Result<usize, Diagnostic> {
    let group = inventory.group(name(inventory, key, "a group")?, key.line)?;
    for (part, content) in table(inventory, value, "a group")? {
        match part.text() {
            Some("hosts") => hosts(inventory, group, content)?,
            Some("children") => {
                for (key, value) in table_or_name(inventory, content, "children")? {
                    let child = self::group(inventory, &key, &value)?;
                    inventory.child(group, child, key.line);
                }
            }
            Some("vars") => {
                for (variable, value) in table(inventory, content, "vars")? {
                    let variable_name = name(inventory, variable, "a variable")?;
                    inventory.group_variable(group, variable_name, of(value), variable.line)?;
                }
            }
            _ => {
                let what = part.text().unwrap_or("what stands here");
                let reason =
                    format!("{what:?} is no part of a group; write hosts, children or vars");
                return Err(inventory.diagnostic(part.line, reason));
            }
        }
    }
    Ok(group)
}

fn hosts(inventory: &mut Inventory, group: usize, content: &Node) -> Result<(), Diagnostic> {
    for (pattern, variables) in table_or_name(inventory, content, "hosts")? {
        let hosts = inventory.hosts(group, name(inventory, &pattern, "a host")?, pattern.line)?;
        for (variable, value) in table(inventory, &variables, "a host's variables")? {
            let variable_name = name(inventory, variable, "a variable")?;
            inventory.host_variable(&hosts, variable_name, &of(value), variable.line)?;
        }
    }
    Ok(())
}

fn name<'a>(inventory: &Inventory, node: &'a Node, what: &str) -> Result<&'a str, Diagnostic> {
    node.text().ok_or_else(|| {
        inventory.diagnostic(node.line, format!("{what} needs a name; write one, and a colon"))
    })
}

/// The rows of a table; nothing is an empty one.
fn table<'a>(
    inventory: &Inventory,
    node: &'a Node,
    what: &str,
) -> Result<&'a [(Node, Node)], Diagnostic> {
    match &node.value {
        Value::Table(pairs) => Ok(pairs),
        Value::Null => Ok(&[]),
        _ => Err(inventory.diagnostic(
            node.line,
            format!("{what} must be a table; write a colon behind each name"),
        )),
    }
}

/// The same, where a name alone stands for a table of that name.
fn table_or_name(
    inventory: &Inventory,
    node: &Node,
    what: &str,
) -> Result<Vec<(Node, Node)>, Diagnostic> {
    match &node.value {
        Value::Scalar(_) => Ok(vec![(node.clone(), Node { line: node.line, value: Value::Null })]),
        _ => table(inventory, node, what).map(<[_]>::to_vec),
    }
}

/// A variable's value.
pub(crate) fn of(node: &Node) -> ansible::Value {
    match &node.value {
        Value::Null => ansible::Value::Nothing,
        Value::Scalar(text) => ansible::Value::Text(text.clone()),
        Value::Secret => ansible::Value::Secret,
        Value::List(_) | Value::Table(_) => ansible::Value::Structure(node.json().to_string()),
    }
}
