//! Parses Ansible's inventories in INI form.
//!
//! Supported are hosts with their variables, ranges and ports, `[group]`, `[group:children]` and
//! `[group:vars]`. Templates are not filled in.

use std::collections::HashSet;
use std::path::Path;

use labsh_diagnostics::Diagnostic;

use super::{Inventory, Value, vars};
use crate::input_file::InputFile;
use crate::{Source, shlex};

/// What the lines of a section are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Hosts,
    Children,
    Variables,
}

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
/// The first error: an invalid section, a group that is not declared, a cycle of groups, an
/// unterminated quote, more than [`labsh_nodeset::MAX_HOSTS`] hosts, or a name that labsh would
/// parse as a set of hosts.
pub fn parse(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    groups(text, path)?.finish()
}

fn groups(text: &str, path: &Path) -> Result<Inventory, Diagnostic> {
    let mut inventory = Inventory::new(InputFile::new(path));
    let (mut group, mut section) = (inventory.group("ungrouped", None)?, Section::Hosts);
    // Groups that are referred to, and have to be declared in some line.
    let mut referenced: Vec<(String, usize)> = Vec::new();
    let mut declared: HashSet<String> = ["all", "ungrouped"].map(str::to_owned).into();
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
                Section::Variables => referenced.push((name.to_owned(), line)),
                Section::Hosts | Section::Children => drop(declared.insert(name.to_owned())),
            }
            continue;
        }
        if content.starts_with('[') && content.ends_with(']') {
            let reason = format!(
                "{content} is not a section; write [group], [group:children] or [group:vars], \
                 without spaces"
            );
            return Err(inventory.diagnostic(line, reason));
        }
        match section {
            Section::Hosts => host(&mut inventory, group, content, line)?,
            Section::Children => {
                let name = without_comment(content);
                let child = inventory.group(name, line)?;
                inventory.child(group, child, line);
                referenced.push((name.to_owned(), line));
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
    match referenced.into_iter().find(|(name, _)| !declared.contains(name)) {
        Some((name, line)) => Err(inventory
            .diagnostic(line, format!("the group {name} is not declared; add a section [{name}]"))),
        None => Ok(inventory),
    }
}

/// Parses `[name:kind]`, which only a comment may follow.
fn header(line: &str) -> Option<(&str, Option<&str>)> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim_start();
    let (name, kind) = match inside.split_once(':') {
        Some((name, kind)) => (name, Some(kind)),
        None => (inside, None),
    };
    let is_kind =
        |kind: &str| !kind.is_empty() && kind.chars().all(|c| c.is_alphanumeric() || c == '_');
    let valid = !name.is_empty() && !name.contains(char::is_whitespace) && kind.is_none_or(is_kind);
    (valid && (rest.is_empty() || rest.starts_with('#'))).then_some((name, kind))
}

fn without_comment(line: &str) -> &str {
    line.split_once('#').map_or(line, |(before, _)| before).trim_end()
}

/// Parses a line of hosts: a name or a range, and variables.
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
            let reason =
                format!("{word:?} is not a variable; write name=value, and one host a line");
            return Err(inventory.diagnostic(line, reason));
        };
        inventory.host_variable(&hosts, variable, &value_of(value), line)?;
    }
    Ok(())
}

/// Parses a value as a Python literal: quotes are removed, `None` is null.
fn value_of(text: &str) -> Value {
    let before_comment = without_comment(text);
    if before_comment == "None" {
        return Value::Null;
    }
    let is_number =
        !before_comment.is_empty() && before_comment.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || matches!(before_comment, "True" | "False") {
        return Value::Text(before_comment.to_owned());
    }
    Value::Text(quoted(text).unwrap_or_else(|| text.to_owned()))
}

/// Returns the content of a Python string literal with the common escapes, if `text` is one.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut inside = String::new();
    let mut chars = text[1..].chars();
    loop {
        match chars.next()? {
            end if end == quote => break,
            '\\' => inside.push(match chars.next()? {
                escaped @ ('\\' | '\'' | '"') => escaped,
                'n' => '\n',
                't' => '\t',
                _ => return None,
            }),
            other => inside.push(other),
        }
    }
    let rest = chars.as_str().trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(inside)
}
