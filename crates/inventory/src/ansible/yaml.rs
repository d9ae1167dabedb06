//! Parses Ansible's inventories in YAML form, which includes JSON.
//!
//! Supported are groups with `hosts`, `children` and `vars`, anchors and merge keys. Templates are
//! not filled in, and plugins are not run.

use std::borrow::Cow;
use std::path::Path;

use labsh_diagnostics::Diagnostic;

use super::{Inventory, vars};
use crate::Source;
use crate::input_file::InputFile;
use crate::yaml::{self, Node, Value};

/// Reads an inventory file, and the variables in `group_vars` and `host_vars` beside it.
///
/// # Errors
///
/// A file that cannot be read, and the errors of [`parse`].
pub fn read(path: &Path) -> Result<Source, Diagnostic> {
    let mut inventory = groups(&InputFile::new(path).read()?, path)?;
    vars::read(&mut inventory, path)?;
    inventory.finish()
}

/// Parses the text of the inventory at `path`.
///
/// # Errors
///
/// The first error. What Ansible would skip with a warning is an error here.
pub fn parse(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    groups(text, path)?.finish()
}

fn groups(text: &str, path: &Path) -> Result<Inventory, Diagnostic> {
    let file = InputFile::new(path);
    let document = yaml::parse(text, &file)?;
    let mut inventory = Inventory::new(file);
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
        let reason = "this file gets its hosts from a plugin, which only Ansible can run; name \
                      the output of ansible-inventory --list --yaml instead";
        return Err(inventory.diagnostic(key.line, reason));
    }
    for (key, value) in &groups {
        group(&mut inventory, key, value)?;
    }
    Ok(inventory)
}

/// Reads a group and its children. The recursion is as deep as the document.
fn group(inventory: &mut Inventory, key: &Node, value: &Node) -> Result<usize, Diagnostic> {
    let group = inventory.group(name(inventory, key, "a group")?, key.line)?;
    for (part, content) in table(inventory, value, "a group")? {
        match part.text() {
            Some("hosts") => hosts(inventory, group, content)?,
            Some("children") => {
                for (key, value) in table_or_name(inventory, content, "children")?.iter() {
                    let child = self::group(inventory, key, value)?;
                    inventory.child(group, child, key.line);
                }
            }
            Some("vars") => {
                for (variable, value) in table(inventory, content, "vars")? {
                    let variable_name = name(inventory, variable, "a variable")?;
                    inventory.group_variable(group, variable_name, value.into(), variable.line)?;
                }
            }
            _ => {
                let what = part.text().unwrap_or("this key");
                let reason =
                    format!("{what:?} is not part of a group; write hosts, children or vars");
                return Err(inventory.diagnostic(part.line, reason));
            }
        }
    }
    Ok(group)
}

fn hosts(inventory: &mut Inventory, group: usize, content: &Node) -> Result<(), Diagnostic> {
    for (pattern, variables) in table_or_name(inventory, content, "hosts")?.iter() {
        let hosts = inventory.hosts(group, name(inventory, pattern, "a host")?, pattern.line)?;
        for (variable, value) in table(inventory, variables, "a host's variables")? {
            let variable_name = name(inventory, variable, "a variable")?;
            inventory.host_variable(&hosts, variable_name, &value.into(), variable.line)?;
        }
    }
    Ok(())
}

fn name<'a>(inventory: &Inventory, node: &'a Node, what: &str) -> Result<&'a str, Diagnostic> {
    node.text().ok_or_else(|| {
        inventory.diagnostic(node.line, format!("{what} needs a name; write one, and a colon"))
    })
}

/// Returns the entries of a table; null is an empty one.
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
            format!("{what} must be a table; write a colon after each name"),
        )),
    }
}

/// Returns the entries of a table; a name alone is a table with that key.
fn table_or_name<'a>(
    inventory: &Inventory,
    node: &'a Node,
    what: &str,
) -> Result<Cow<'a, [(Node, Node)]>, Diagnostic> {
    match &node.value {
        Value::Scalar(_) => {
            let nothing = Node { line: node.line, value: Value::Null };
            Ok(Cow::Owned(vec![(node.clone(), nothing)]))
        }
        _ => table(inventory, node, what).map(Cow::Borrowed),
    }
}
