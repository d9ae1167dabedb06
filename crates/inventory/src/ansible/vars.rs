//! Variables of Ansible's hosts and groups that stand in files of their own: `host_vars` and
//! `group_vars` beside an inventory.
//!
//! A file has the name of its host or group, alone or with `.yml`, `.yaml` or `.json` behind it; in
//! place of a file there may be a directory of such files. One that is encrypted as a whole is
//! passed over: what it says stays unknown.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use labsh_diagnostics::Diagnostic;

use crate::ansible::Inventory;
use crate::ansible::yaml::of;
use crate::input_file::Place;
use crate::yaml::{self, Value};

/// Endings of files of variables; the first that is there is the only one that is read.
const ENDINGS: [&str; 4] = ["", ".yml", ".yaml", ".json"];

/// How deep directories may stand within each other.
const DEEPEST: usize = 8;

/// The most bytes that are read in all.
const MOST_BYTES: usize = 64 << 20;

/// Adds what stands beside the file of an inventory that has been read.
pub(crate) fn read(inventory: &mut Inventory, path: &Path) -> Result<(), Diagnostic> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let mut bytes = 0;
    for (directory, host) in [("group_vars", false), ("host_vars", true)] {
        let directory = beside.join(directory);
        let entries = entries(&directory)?;
        // One name after the other, and of each name's files the first.
        let mut read: Option<&str> = None;
        let mut named: Vec<(&str, usize, &str)> = Vec::new();
        for entry in &entries {
            for (place, ending) in ENDINGS.iter().enumerate() {
                named.extend(entry.strip_suffix(ending).map(|name| (name, place, entry.as_str())));
            }
        }
        named.sort_unstable();
        for (name, _, entry) in named {
            if read == Some(name) || !inventory.has(host, name) {
                continue;
            }
            read = Some(name);
            for file in files(directory.join(entry), 0)? {
                variables(inventory, host, name, &file, &mut bytes)?;
            }
        }
    }
    Ok(())
}

/// The names in a directory in order; none where there is no directory.
fn entries(directory: &Path) -> Result<Vec<String>, Diagnostic> {
    let cannot = |error: io::Error| {
        Place::new(directory).diagnostic(None, format!("cannot read it: {error}"))
    };
    let mut names = Vec::new();
    match fs::read_dir(directory) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(cannot(error)),
        Ok(entries) => {
            for entry in entries {
                names.extend(entry.map_err(cannot)?.file_name().into_string());
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The file itself, or those that are in a directory: without hidden ones, backups and other kinds.
fn files(path: PathBuf, depth: usize) -> Result<Vec<PathBuf>, Diagnostic> {
    if path.is_file() {
        return Ok(vec![path]);
    }
    if depth == DEEPEST {
        return Err(Place::new(&path)
            .diagnostic(None, format!("more than {DEEPEST} directories deep; flatten them")));
    }
    let mut found = Vec::new();
    for name in entries(&path)? {
        let path = path.join(&name);
        let ending = path
            .extension()
            .map(|ending| format!(".{}", ending.to_string_lossy()))
            .unwrap_or_default();
        let directory = path.is_dir();
        let meant = if directory { ending.is_empty() } else { ENDINGS.contains(&ending.as_str()) };
        if meant && !name.starts_with('.') && !name.ends_with('~') {
            found.extend(files(path, depth + 1)?);
        }
    }
    Ok(found)
}

fn variables(
    inventory: &mut Inventory,
    host: bool,
    name: &str,
    path: &Path,
    bytes: &mut usize,
) -> Result<(), Diagnostic> {
    let place = Place::new(path);
    let text = place.read()?;
    *bytes += text.len();
    if *bytes > MOST_BYTES {
        let reason = format!("files of variables are larger than {} MiB in all", MOST_BYTES >> 20);
        return Err(place.diagnostic(None, reason));
    }
    if text.starts_with("$ANSIBLE_VAULT;") {
        return Ok(());
    }
    let document = yaml::parse(&text, &place)?;
    let table = match document.value {
        Value::Table(table) => table,
        Value::Null => return Ok(()),
        _ => {
            return Err(place.diagnostic(document.line, "variables are a table; write name: value"));
        }
    };
    inventory.begin_variables(place);
    for (variable, value) in table {
        let Some(variable_name) = variable.text() else {
            return Err(inventory
                .diagnostic(variable.line, "a variable needs a name; write one, and a colon"));
        };
        inventory.variable_of(host, name, variable_name, of(&value), variable.line);
    }
    Ok(())
}
