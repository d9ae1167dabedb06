//! Reads variables of Ansible's hosts and groups from `host_vars` and `group_vars` beside an
//! inventory.
//!
//! A file has the name of its host or group, with or without `.yml`, `.yaml` or `.json`; instead of
//! a file there may be a directory of such files. A file that is encrypted as a whole is skipped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use labsh_diagnostics::Diagnostic;

use super::{Inventory, Owner};
use crate::input_file::InputFile;
use crate::yaml::{self, Value};

/// The extensions of files of variables; of a name's files only the first that exists is read.
const EXTENSIONS: [&str; 4] = ["", ".yml", ".yaml", ".json"];

/// How deeply directories of variables may be nested.
const MAX_DIRECTORY_DEPTH: usize = 8;

/// How many bytes of variables are read in all.
const MAX_TOTAL_BYTES: usize = 64 << 20;

/// Adds the variables beside the inventory at `path` to an inventory that has been read.
pub(crate) fn read(inventory: &mut Inventory, path: &Path) -> Result<(), Diagnostic> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let mut bytes = 0;
    for (directory, owner) in [("group_vars", Owner::Group), ("host_vars", Owner::Host)] {
        let directory = beside.join(directory);
        let entries = entries(&directory)?;
        // Sorted by name, then by the rank of the extension.
        let mut read: Option<&str> = None;
        let mut named: Vec<(&str, usize, &str)> = Vec::new();
        for entry in &entries {
            for (rank, extension) in EXTENSIONS.iter().enumerate() {
                let name = entry.strip_suffix(extension);
                named.extend(name.map(|name| (name, rank, entry.as_str())));
            }
        }
        named.sort_unstable();
        for (name, _, entry) in named {
            if read == Some(name) || !inventory.has(owner, name) {
                continue;
            }
            read = Some(name);
            for file in files(directory.join(entry), 0)? {
                variables(inventory, owner, name, &file, &mut bytes)?;
            }
        }
    }
    Ok(())
}

/// Returns the sorted names in a directory; none where it does not exist.
fn entries(directory: &Path) -> Result<Vec<String>, Diagnostic> {
    let unreadable = |error: io::Error| {
        InputFile::new(directory).diagnostic(None, format!("cannot read it: {error}"))
    };
    let mut names = Vec::new();
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let reason = "it is not a directory; make it one, or give it another name";
            return Err(InputFile::new(directory).diagnostic(None, reason));
        }
        Err(error) => return Err(unreadable(error)),
        Ok(entries) => {
            for entry in entries {
                names.extend(entry.map_err(unreadable)?.file_name().into_string());
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns the path itself, or, of a directory, the files in it except hidden files, backups and
/// files with other extensions. What is neither is refused when it is read.
fn files(path: PathBuf, depth: usize) -> Result<Vec<PathBuf>, Diagnostic> {
    if !path.is_dir() {
        return Ok(if path.exists() { vec![path] } else { Vec::new() });
    }
    if depth == MAX_DIRECTORY_DEPTH {
        return Err(InputFile::new(&path).diagnostic(
            None,
            format!("more than {MAX_DIRECTORY_DEPTH} directories deep; flatten them"),
        ));
    }
    let mut found = Vec::new();
    for name in entries(&path)? {
        let path = path.join(&name);
        let extension = path
            .extension()
            .map(|extension| format!(".{}", extension.to_string_lossy()))
            .unwrap_or_default();
        let included = if path.is_dir() {
            extension.is_empty()
        } else {
            EXTENSIONS.contains(&extension.as_str())
        };
        if included && !name.starts_with('.') && !name.ends_with('~') {
            found.extend(files(path, depth + 1)?);
        }
    }
    Ok(found)
}

/// Reads one file of variables. `bytes` counts the bytes of all of them.
fn variables(
    inventory: &mut Inventory,
    owner: Owner,
    name: &str,
    path: &Path,
    bytes: &mut usize,
) -> Result<(), Diagnostic> {
    let file = InputFile::new(path);
    let text = file.read()?;
    *bytes += text.len();
    if *bytes > MAX_TOTAL_BYTES {
        let reason =
            format!("files of variables are larger than {} MiB in all", MAX_TOTAL_BYTES >> 20);
        return Err(file.diagnostic(None, reason));
    }
    if text.starts_with("$ANSIBLE_VAULT;") {
        return Ok(());
    }
    let document = yaml::parse(&text, &file)?;
    let table = match document.value {
        Value::Table(table) => table,
        Value::Null => return Ok(()),
        _ => {
            return Err(file.diagnostic(document.line, "variables are a table; write name: value"));
        }
    };
    inventory.begin_variables(file);
    for (variable, value) in table {
        let Some(variable_name) = variable.text() else {
            return Err(inventory
                .diagnostic(variable.line, "a variable needs a name; write one, and a colon"));
        };
        inventory.variable_of(owner, name, variable_name, (&value).into(), variable.line);
    }
    Ok(())
}
