//! Ansible's inventories in their INI form.
//!
//! Read are hosts with their variables, ranges and ports, `[group]`, `[group:children]` and
//! `[group:vars]`. Templates are not filled in.

use std::collections::HashMap;
use std::path::Path;

use labsh_diagnostics::Diagnostic;

use crate::ansible::vars;
use crate::ansible::{Inventory, Value};
use crate::input_file::Place;
use crate::{Source, shlex};

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Hosts,
    Children,
    Variables,
}

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
/// The first error: an invalid section, a group that is not declared, a cycle of groups, an
/// unterminated quote, more than [`labsh_nodeset::MAX_HOSTS`] hosts, or a name that labsh would
/// parse as a set of hosts.
pub fn parse(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    groups(text, path)?.finish()
}

fn groups(text: &str, path: &Path) -> Result<Inventory, Diagnostic> {
    let mut inventory = Inventory::new(Place::new(path));
    let (mut group, mut section) = (inventory.group("ungrouped", None)?, Section::Hosts);
    // Groups that are spoken of; they have to be declared somewhere.
    let mut awaited: Vec<(String, usize)> = Vec::new();
    let mut declared: HashMap<String, ()> =
        ["all", "ungrouped"].map(|name| (name.to_owned(), ())).into();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some((name, kind)) = header(content) {
            section = match kind {
                None | Some("hosts") => Section::Hosts,
                Some("children") => Section::Children,
                Some("vars") => Section::Variables,
                Some(kind) => {
                    let reason = format!(
                        "a section's kind is children, vars or hosts, not {kind}; write [{name}]"
                    );
                    return Err(inventory.diagnostic(line, reason));
                }
            };
            group = inventory.group(name, line)?;
            match section {
                Section::Variables => awaited.push((name.to_owned(), line)),
                Section::Hosts | Section::Children => drop(declared.insert(name.to_owned(), ())),
            }
            continue;
        }
        if content.starts_with('[') && content.ends_with(']') {
            let reason = format!(
                "{content} is no section; write [group], [group:children] or [group:vars], no \
                 blanks"
            );
            return Err(inventory.diagnostic(line, reason));
        }
        match section {
            Section::Hosts => host(&mut inventory, group, content, line)?,
            Section::Children => {
                let name = without_comment(content);
                let child = inventory.group(name, line)?;
                inventory.child(group, child, line);
                awaited.push((name.to_owned(), line));
            }
            Section::Variables => {
                let Some((variable, value)) = content.split_once('=') else {
                    return Err(
                        inventory.diagnostic(line, "a variable is missing; write name=value")
                    );
                };
                inventory.group_variable(group, variable.trim(), value_of(value.trim()), line)?;
            }
        }
    }
    match awaited.into_iter().find(|(name, _)| !declared.contains_key(name)) {
        Some((name, line)) => Err(inventory
            .diagnostic(line, format!("nobody declares the group {name}; add a section [{name}]"))),
        None => Ok(inventory),
    }
}

/// `[name:kind]`, with nothing but a comment behind it.
fn header(line: &str) -> Option<(&str, Option<&str>)> {
    let (inside, behind) = line.strip_prefix('[')?.split_once(']')?;
    let behind = behind.trim_start();
    let (name, kind) = match inside.split_once(':') {
        Some((name, kind)) => (name, Some(kind)),
        None => (inside, None),
    };
    let is_kind = |kind: &str| {
        !kind.is_empty() && kind.chars().all(|sign| sign.is_alphanumeric() || sign == '_')
    };
    let sound = !name.is_empty() && !name.contains(char::is_whitespace) && kind.is_none_or(is_kind);
    (sound && (behind.is_empty() || behind.starts_with('#'))).then_some((name, kind))
}

fn without_comment(line: &str) -> &str {
    line.split_once('#').map_or(line, |(before, _)| before).trim_end()
}

/// A host or a range of them, and variables.
fn host(
    inventory: &mut Inventory,
    group: usize,
    content: &str,
    line: usize,
) -> Result<(), Diagnostic> {
    let words = shlex::split(content).map_err(|reason| inventory.diagnostic(line, reason))?;
    let Some((pattern, variables)) = words.split_first() else { return Ok(()) };
    let hosts = inventory.hosts(group, pattern, line)?;
    for word in variables {
        let Some((variable, value)) = word.split_once('=') else {
            let reason = format!("{word:?} is no variable; write name=value, and one host a line");
            return Err(inventory.diagnostic(line, reason));
        };
        inventory.host_variable(&hosts, variable, &value_of(value), line)?;
    }
    Ok(())
}

/// What Python makes of a value: a quoted text is what is between the quotes, `None` is nothing.
fn value_of(text: &str) -> Value {
    let before_comment = without_comment(text);
    if before_comment == "None" {
        return Value::Nothing;
    }
    let is_number =
        !before_comment.is_empty() && before_comment.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || matches!(before_comment, "True" | "False") {
        return Value::Text(before_comment.to_owned());
    }
    Value::Text(quoted(text).unwrap_or_else(|| text.to_owned()))
}

/// What is in quotes, where the whole text is one quoted word of Python with the usual escapes.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut inside = String::new();
    let mut signs = text[1..].chars();
    loop {
        match signs.next()? {
            end if end == quote => break,
            '\\' => inside.push(match signs.next()? {
                escaped @ ('\\' | '\'' | '"') => escaped,
                'n' => '\n',
                't' => '\t',
                _ => return None,
            }),
            other => inside.push(other),
        }
    }
    let behind = signs.as_str().trim_start();
    (behind.is_empty() || behind.starts_with('#')).then_some(inside)
}
