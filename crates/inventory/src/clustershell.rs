//! Reads ClusterShell's groups: `groups.conf`, the YAML files in its `autodir`, and flat files with
//! lines of the form `group: nodes`.
//!
//! ClusterShell can also run programs to list groups ("upcalls": slurm, xcat, …). labsh runs none:
//! such a source is listed in [`ClusterShell::ignored`]. An upcall that is ClusterShell's own `sed`
//! command on a flat file is an exception: the file is read directly. See `groups.conf(5)` and
//! <https://clustershell.readthedocs.io/en/latest/config.html#node-groups>.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use labsh_diagnostics::{Diagnostic, Origin};
use labsh_nodeset::{Groups, NamedBy, NodeSet};

use crate::input_file::InputFile;
use crate::yaml::{self, Node, Value};
use crate::{Group, Source, names};

/// How many hosts the groups of a file may have in all, each counted in every line.
const MAX_HOST_MENTIONS: usize = 500_000;

/// The sources that a configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterShell {
    /// The source whose groups can be written as `@group` instead of `@source:group`.
    pub default: Option<String>,
    /// The sources that can be read, in ClusterShell's order. The group `all` of a source, if it
    /// exists, is its `@source:*`.
    pub sources: Vec<(String, Source)>,
    /// The sources that only a program could list, and where they are configured.
    pub ignored: Vec<(String, Origin)>,
}

/// Reads `groups.conf` and all files that it names, a directory that holds a `groups.conf`, or one
/// `.yaml` file. Any other file is a flat file, and its source is named `local`.
///
/// # Errors
///
/// A file that exists and cannot be read, two sources with one name, an unknown default source, and
/// the errors of [`parse_yaml`] and [`parse_flat`].
pub fn read(path: &Path) -> Result<ClusterShell, Diagnostic> {
    let path = if path.is_dir() { path.join("groups.conf") } else { path.to_owned() };
    let text = InputFile::new(&path).read()?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("conf") => configuration(&text, &path),
        Some("yaml" | "yml") => {
            let sources = parse_yaml(&text, &path)?;
            let default = sources.first().map(|(name, _)| name.clone());
            Ok(ClusterShell { default, sources, ignored: Vec::new() })
        }
        _ => {
            let sources = vec![("local".to_owned(), parse_flat(&text, &path)?)];
            Ok(ClusterShell { default: Some("local".to_owned()), sources, ignored: Vec::new() })
        }
    }
}

/// Parses the YAML file at `path`: a table of sources, each a table of groups, each a set of hosts
/// or a list of such sets.
///
/// # Errors
///
/// The first line that is not valid YAML, or not a set of hosts.
pub fn parse_yaml(text: &str, path: &Path) -> Result<Vec<(String, Source)>, Diagnostic> {
    let file = InputFile::new(path);
    let mut mentions = 0;
    let document = yaml::parse(text, &file)?;
    let mut sources = Vec::new();
    for (key, value) in table(&document, &file, "the file")? {
        let source_name = name(key, &file, "a source")?;
        let mut source = Source::default();
        for (key, value) in table(value, &file, "a source")? {
            let parts = match &value.value {
                Value::List(parts) => parts.iter().collect(),
                _ => vec![value],
            };
            let mut members = Vec::new();
            for part in parts {
                let text = part.text().ok_or_else(|| {
                    file.diagnostic(
                        part.line,
                        "a group is a set of hosts; write for example \"lab[01-40]\"",
                    )
                })?;
                check(text, &file, part.line, &mut mentions)?;
                members.push(text);
            }
            let group = Group { members: members.join("\n"), origin: file.origin(key.line) };
            source.groups.insert(name(key, &file, "a group")?.to_owned(), group);
        }
        sources.push((source_name.to_owned(), source));
    }
    Ok(sources)
}

/// Parses the flat file at `path`: each line has a group, a colon and a set of hosts; a group may
/// have several lines.
///
/// # Errors
///
/// The first line that is not of this form.
pub fn parse_flat(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    let file = InputFile::new(path);
    let mut mentions = 0;
    let mut source = Source::default();
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() || content.trim_start().starts_with('#') {
            continue;
        }
        let Some((name, members)) = content.split_once(':') else {
            return Err(file.diagnostic(
                line,
                "there is no colon after the group's name; write group: lab[01-40]",
            ));
        };
        names::check_group(name).map_err(|reason| file.diagnostic(line, reason))?;
        check(members, &file, line, &mut mentions)?;
        source
            .groups
            .entry(name.to_owned())
            .and_modify(|group| {
                group.members.push('\n');
                group.members.push_str(members.trim());
            })
            .or_insert_with(|| Group {
                members: members.trim().to_owned(),
                origin: file.origin(line),
            });
    }
    Ok(source)
}

fn table<'a>(
    node: &'a Node,
    file: &InputFile,
    what: &str,
) -> Result<&'a [(Node, Node)], Diagnostic> {
    match &node.value {
        Value::Table(pairs) => Ok(pairs),
        _ => {
            let reason = format!(
                "{what} must be a table; write source:, and below it group: \"lab[01-40]\""
            );
            Err(file.diagnostic(node.line, reason))
        }
    }
}

fn name<'a>(node: &'a Node, file: &InputFile, what: &str) -> Result<&'a str, Diagnostic> {
    let name = node
        .text()
        .ok_or_else(|| file.diagnostic(node.line, format!("{what} needs a name; write one")))?;
    names::check_group(name).map_err(|reason| file.diagnostic(node.line, reason))?;
    Ok(name)
}

/// Groups that all exist and are empty, to check the syntax of an expression.
struct EmptyGroups;

impl Groups for EmptyGroups {
    fn group(&self, _: &str) -> Result<Option<String>, String> {
        Ok(Some(String::new()))
    }

    fn all(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn check_wildcard(&self, name: &str) -> Result<(), String> {
        crate::names::check_wildcard(name)
    }

    fn file(&self, path: &str, _: NamedBy) -> Result<String, String> {
        Err(format!("^{path}: a group cannot name a file; write the hosts"))
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Checks a set of hosts, so that an error has the line where the set is written. `mentions` counts
/// the hosts of all groups of the file.
fn check(
    members: &str,
    file: &InputFile,
    line: usize,
    mentions: &mut usize,
) -> Result<(), Diagnostic> {
    for expression in members.lines() {
        let expression = expression.split('#').next().unwrap_or_default();
        if expression.trim().is_empty() {
            continue;
        }
        let set = NodeSet::parse(expression, &EmptyGroups)
            .map_err(|error| file.diagnostic(line, error.to_string()))?;
        *mentions += set.len();
        if *mentions > MAX_HOST_MENTIONS {
            return Err(
                file.diagnostic(line, "all groups together have too many hosts; split the file")
            );
        }
    }
    Ok(())
}

/// The options of a section, each with its line.
type Section = BTreeMap<String, (usize, String)>;

/// Parses a configuration as Python's configparser does. Returns the line, name and options of each
/// section, in order.
fn sections(text: &str, file: &InputFile) -> Result<Vec<(usize, String, Section)>, Diagnostic> {
    let mut sections: Vec<(usize, String, Section)> = Vec::new();
    let mut last: Option<String> = None;
    for (line, content) in (1..).zip(text.lines()) {
        let trimmed = content.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let (true, Some(option)) = (content.starts_with([' ', '\t']), &last) {
            let value = sections.last_mut().and_then(|(_, _, section)| section.get_mut(option));
            if let Some((_, value)) = value {
                value.push('\n');
                value.push_str(trimmed);
            }
            continue;
        }
        last = None;
        if let Some((name, _)) = trimmed.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) {
            if sections.iter().any(|(_, other, _)| other == name) {
                return Err(file.diagnostic(
                    line,
                    format!("there is a section [{name}] already; make one of the two"),
                ));
            }
            sections.push((line, name.to_owned(), Section::new()));
            continue;
        }
        let Some((_, _, section)) = sections.last_mut() else {
            return Err(
                file.diagnostic(line, "a section is missing before this line; write [Main]")
            );
        };
        let Some((option, value)) = trimmed.split_once([':', '=']) else {
            return Err(file.diagnostic(line, "a value is missing; write name: value"));
        };
        let option = option.trim().to_lowercase();
        if section.insert(option.clone(), (line, value.trim().to_owned())).is_some() {
            return Err(
                file.diagnostic(line, format!("{option} is set already; make one of the two"))
            );
        }
        last = Some(option);
    }
    Ok(sections)
}

/// Reads `groups.conf` and the files that it names.
fn configuration(text: &str, path: &Path) -> Result<ClusterShell, Diagnostic> {
    let file = InputFile::new(path);
    let directory = path.parent().unwrap_or(Path::new(""));
    let sections = sections(text, &file)?;
    let main = sections.iter().find(|(_, name, _)| name == "Main").map(|(_, _, main)| main);
    let option = |name: &str| main.and_then(|main| main.get(name));
    let mut found = ClusterShell::default();
    for groups_directory in
        directories(option("groupsdir").or(option("confdir")), directory, &file)?
    {
        for path in files(&groups_directory, "conf", &file)? {
            let file = InputFile::new(&path);
            let text = file.read()?;
            found.sections(&self::sections(&text, &file)?, &groups_directory, &file)?;
        }
    }
    for auto_directory in directories(option("autodir"), directory, &file)? {
        for path in files(&auto_directory, "yaml", &file)? {
            let file = InputFile::new(&path);
            for (name, source) in parse_yaml(&file.read()?, &path)? {
                found.add(name, Some(source), &file, None)?;
            }
        }
    }
    found.sections(&sections, directory, &file)?;
    found.default = found.sources.first().map(|(name, _)| name.clone());
    if let Some((line, default)) = option("default").filter(|(_, default)| !default.is_empty()) {
        if !found.has(default) {
            let reason = format!(
                "there is no source {default:?}; write the name of an existing source, or nothing"
            );
            return Err(file.diagnostic(*line, reason));
        }
        found.default = Some(default.clone());
    }
    Ok(found)
}

impl ClusterShell {
    /// Returns whether a source of this name has been added.
    fn has(&self, name: &str) -> bool {
        self.sources.iter().any(|(other, _)| other == name)
            || self.ignored.iter().any(|(other, _)| other == name)
    }

    /// Adds a source; `None` is one that only a program could list.
    fn add(
        &mut self,
        name: String,
        source: Option<Source>,
        file: &InputFile,
        line: Option<usize>,
    ) -> Result<(), Diagnostic> {
        if self.has(&name) {
            return Err(file.diagnostic(
                line,
                format!("there is a source {name:?} already; rename one of the two"),
            ));
        }
        match source {
            Some(source) => self.sources.push((name, source)),
            None => self.ignored.push((name, file.origin(line))),
        }
        Ok(())
    }

    /// Adds the sources that are configured as upcalls, which ClusterShell runs in `directory`.
    fn sections(
        &mut self,
        sections: &[(usize, String, Section)],
        directory: &Path,
        file: &InputFile,
    ) -> Result<(), Diagnostic> {
        for (line, sources, section) in sections {
            for name in sources.split(',').filter(|name| *name != "Main" && *name != "DEFAULT") {
                names::check_group(name).map_err(|reason| file.diagnostic(*line, reason))?;
                let Some((_, map)) = section.get("map") else {
                    let reason = format!(
                        "the source {name} has no map; write the command that lists a group's hosts"
                    );
                    return Err(file.diagnostic(*line, reason));
                };
                let source = match flat_files(map) {
                    None => None,
                    Some(files) => Some(first_existing(&files, name, directory)?),
                };
                self.add(name.to_owned(), source, file, Some(*line))?;
            }
        }
        Ok(())
    }
}

/// Returns the files that an upcall reads if it is ClusterShell's own for flat files: one file, or
/// two of which the first that exists is read.
fn flat_files(upcall: &str) -> Option<Vec<&str>> {
    let (before, file) = upcall.split_once(r"sed -n 's/^$GROUP:\(.*\)/\1/p' ")?;
    let file = file.trim();
    let is_path = |text: &str| {
        let rest = text.replace("$CFGDIR", "").replace("$SOURCE", "");
        !text.is_empty()
            && !rest.contains(|c: char| c.is_whitespace() || "$`\"'\\;&|<>*?(){}".contains(c))
    };
    if before.trim().is_empty() && is_path(file) {
        return Some(vec![file]);
    }
    // [ -f FIRST ] && f=FIRST || f=SECOND; sed … $f
    let (first, rest) = before.trim().strip_prefix("[ -f ")?.split_once(" ] && f=")?;
    let (same, second) = rest.strip_suffix(';')?.split_once(" || f=")?;
    (file == "$f" && first == same && is_path(first) && is_path(second))
        .then(|| vec![first, second])
}

/// Reads the first of these files that exists. Without any, the source has no groups, as with
/// `sed`.
fn first_existing(files: &[&str], source: &str, directory: &Path) -> Result<Source, Diagnostic> {
    for file in files {
        let path = substituted(file, directory).replace("$SOURCE", source);
        let file = InputFile::new(&directory.join(path));
        if let Some(text) = file.read_if_exists()? {
            return parse_flat(&text, file.path());
        }
    }
    Ok(Source::default())
}

/// Refiles `$CFGDIR` by the directory of the configuration.
fn substituted(text: &str, directory: &Path) -> String {
    let directory = directory.to_string_lossy();
    text.replace("${CFGDIR}", &directory).replace("$CFGDIR", &directory)
}

/// Returns the directories that an option lists and that exist, each once.
fn directories(
    option: Option<&(usize, String)>,
    config_directory: &Path,
    file: &InputFile,
) -> Result<Vec<PathBuf>, Diagnostic> {
    let Some((line, value)) = option else { return Ok(Vec::new()) };
    let mut directories: Vec<PathBuf> = Vec::new();
    let mut seen = HashSet::new();
    let words = crate::shlex::split(value).map_err(|reason| file.diagnostic(*line, reason))?;
    for word in words {
        // Normalized: without `.` and doubled slashes.
        let directory: PathBuf =
            Path::new(&substituted(&word, config_directory)).components().collect();
        match fs::metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(metadata) if metadata.is_dir() => {
                if seen.insert(directory.clone()) {
                    directories.push(directory);
                }
            }
            _ => {
                let reason =
                    format!("{} is not a readable directory; correct it", directory.display());
                return Err(file.diagnostic(*line, reason));
            }
        }
    }
    Ok(directories)
}

/// Returns what a directory has with this extension, sorted, except hidden files. What is not a
/// regular file is refused when it is read.
fn files(directory: &Path, extension: &str, file: &InputFile) -> Result<Vec<PathBuf>, Diagnostic> {
    let unreadable = |error: io::Error| {
        file.diagnostic(None, format!("cannot read {}: {error}", directory.display()))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|other| other == extension) && path.exists() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_hosts_in_a_file_is_bounded() {
        let file = InputFile::new(Path::new("local.cfg"));
        let mut mentions = MAX_HOST_MENTIONS - 15;
        check("n[1-10]", &file, 1, &mut mentions).unwrap();
        let diagnostic = check("n[1-10]", &file, 2, &mut mentions).unwrap_err();
        assert_eq!(
            diagnostic.to_string(),
            "local.cfg:2: all groups together have too many hosts; split the file"
        );
    }
}
