//! ClusterShell's groups: `groups.conf`, the YAML files of its `autodir`, and flat files of `group:
//! nodes`.
//!
//! ClusterShell can also ask programs for groups ("upcalls": slurm, xcat, …). Nothing is run here:
//! such a source is only named, among the [`ClusterShell::ignored`]. The one exception needs no
//! program: an upcall that is ClusterShell's own `sed` over a flat file is that file. See
//! `groups.conf(5)` and
//! <https://clustershell.readthedocs.io/en/latest/config.html#node-groups>.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use labsh_diagnostics::{Diagnostic, Origin};
use labsh_nodeset::{Groups, NodeSet};

use crate::input_file::Place;
use crate::yaml::{self, Node, Value};
use crate::{Group, Source, names};

/// The most that all groups of a file may come to, in hosts, each counted in each line.
const MOST_WORK: usize = 500_000;

/// What a configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterShell {
    /// The source whose groups need no source's name in front: `@group` instead of `@source:group`.
    pub default: Option<String>,
    /// The sources that can be read, in ClusterShell's order. A group `all`, where there is one, is
    /// what `@source:*` stands for.
    pub sources: Vec<(String, Source)>,
    /// The sources that only a program could tell of, and where they are configured.
    pub ignored: Vec<(String, Origin)>,
}

/// Reads `groups.conf` and all that it names, or a directory with such a file in it, or one `.yaml`
/// file; any other file is a flat one, and its source is called `local`.
///
/// # Errors
///
/// Where a file is there and cannot be read, where two sources have one name, where the default is
/// none of them, and wherever [`parse_yaml`] and [`parse_flat`] find a mistake.
pub fn read(path: &Path) -> Result<ClusterShell, Diagnostic> {
    let path = if path.is_dir() { path.join("groups.conf") } else { path.to_owned() };
    let text = Place::new(&path).read()?;
    match path.extension().and_then(|ending| ending.to_str()) {
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

/// Reads a file of sources: for each its groups, each a set of hosts or a list of such. The path is
/// for the origins.
///
/// # Errors
///
/// The first line that is no YAML, or no set of hosts.
pub fn parse_yaml(text: &str, path: &Path) -> Result<Vec<(String, Source)>, Diagnostic> {
    let place = Place::new(path);
    let mut work = 0;
    let document = yaml::parse(text, &place)?;
    let mut sources = Vec::new();
    for (key, value) in table(&document, &place, "the file")? {
        let source_name = name(key, &place, "a source")?;
        let mut source = Source::default();
        for (key, value) in table(value, &place, "a source")? {
            let parts = match &value.value {
                Value::List(parts) => parts.iter().collect(),
                _ => vec![value],
            };
            let mut members = Vec::new();
            for part in parts {
                let text = part.text().ok_or_else(|| {
                    place.diagnostic(
                        part.line,
                        "a group is a set of hosts; write for example \"lab[01-40]\"",
                    )
                })?;
                check(text, &place, part.line, &mut work)?;
                members.push(text);
            }
            let group = Group { members: members.join("\n"), origin: place.line(key.line) };
            source.groups.insert(name(key, &place, "a group")?.to_owned(), group);
        }
        sources.push((source_name.to_owned(), source));
    }
    Ok(sources)
}

/// Reads a flat file: in each line a group, a colon and a set of hosts; a group may have several
/// lines. The path is for the origins.
///
/// # Errors
///
/// The first line that is not like that.
pub fn parse_flat(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    let place = Place::new(path);
    let mut work = 0;
    let mut source = Source::default();
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() || content.trim_start().starts_with('#') {
            continue;
        }
        let Some((name, members)) = content.split_once(':') else {
            return Err(place.diagnostic(
                line,
                "there is no colon behind a group's name; write group: lab[01-40]",
            ));
        };
        names::group(name).map_err(|reason| place.diagnostic(line, reason))?;
        check(members, &place, line, &mut work)?;
        source
            .groups
            .entry(name.to_owned())
            .and_modify(|group| group.members = format!("{}\n{}", group.members, members.trim()))
            .or_insert_with(|| Group {
                members: members.trim().to_owned(),
                origin: place.line(line),
            });
    }
    Ok(source)
}

fn table<'a>(node: &'a Node, place: &Place, what: &str) -> Result<&'a [(Node, Node)], Diagnostic> {
    match &node.value {
        Value::Table(pairs) => Ok(pairs),
        _ => {
            let reason = format!(
                "{what} must be a table; write source:, and below it group: \"lab[01-40]\""
            );
            Err(place.diagnostic(node.line, reason))
        }
    }
}

fn name<'a>(node: &'a Node, place: &Place, what: &str) -> Result<&'a str, Diagnostic> {
    let name = node
        .text()
        .ok_or_else(|| place.diagnostic(node.line, format!("{what} needs a name; write one")))?;
    names::group(name).map_err(|reason| place.diagnostic(node.line, reason))?;
    Ok(name)
}

/// Every group exists and is empty: only the notation is looked at.
struct AnyGroups;

impl Groups for AnyGroups {
    fn group(&self, _: &str) -> Result<Option<String>, String> {
        Ok(Some(String::new()))
    }

    fn all(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn check_wildcard(&self, name: &str) -> Result<(), String> {
        crate::names::check_wildcard(name)
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("^{path}: a group cannot name a file; write the hosts"))
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Finds what is wrong in a set of hosts where it is written, and not when it is used.
fn check(members: &str, place: &Place, line: usize, work: &mut usize) -> Result<(), Diagnostic> {
    for expression in members.lines() {
        let expression = expression.split('#').next().unwrap_or_default();
        if expression.trim().is_empty() {
            continue;
        }
        let set = NodeSet::parse(expression, &AnyGroups)
            .map_err(|wrong| place.diagnostic(line, wrong.to_string()))?;
        *work += set.len();
        if *work > MOST_WORK {
            return Err(
                place.diagnostic(line, "all groups together have too many hosts; split the file")
            );
        }
    }
    Ok(())
}

/// The options of a section, each with its line.
type Section = BTreeMap<String, (usize, String)>;

/// Sections in their order, as Python's configparser reads them.
fn sections(text: &str, place: &Place) -> Result<Vec<(usize, String, Section)>, Diagnostic> {
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
                return Err(place
                    .diagnostic(line, format!("[{name}] is there already; make one of the two")));
            }
            sections.push((line, name.to_owned(), Section::new()));
            continue;
        }
        let Some((_, _, section)) = sections.last_mut() else {
            return Err(place.diagnostic(line, "a section is missing in front; write [Main]"));
        };
        let Some((option, value)) = trimmed.split_once([':', '=']) else {
            return Err(place.diagnostic(line, "a value is missing; write name: value"));
        };
        let option = option.trim().to_lowercase();
        if section.insert(option.clone(), (line, value.trim().to_owned())).is_some() {
            return Err(
                place.diagnostic(line, format!("{option} is there already; make one of the two"))
            );
        }
        last = Some(option);
    }
    Ok(sections)
}

fn configuration(text: &str, path: &Path) -> Result<ClusterShell, Diagnostic> {
    let place = Place::new(path);
    let own = path.parent().unwrap_or(Path::new(""));
    let sections = sections(text, &place)?;
    let main = sections.iter().find(|(_, name, _)| name == "Main").map(|(_, _, main)| main);
    let option = |name: &str| main.and_then(|main| main.get(name));
    let mut found = ClusterShell::default();
    for directory in directories(option("groupsdir").or(option("confdir")), own, &place)? {
        for file in files(&directory, "conf", &place)? {
            let place = Place::new(&file);
            let text = place.read()?;
            found.sections(&self::sections(&text, &place)?, &directory, &place)?;
        }
    }
    for directory in directories(option("autodir"), own, &place)? {
        for file in files(&directory, "yaml", &place)? {
            let place = Place::new(&file);
            for (name, source) in parse_yaml(&place.read()?, &file)? {
                found.add(name, Some(source), &place, None)?;
            }
        }
    }
    found.sections(&sections, own, &place)?;
    found.default = found.sources.first().map(|(name, _)| name.clone());
    if let Some((line, default)) = option("default").filter(|(_, default)| !default.is_empty()) {
        if !found.knows(default) {
            let reason = format!(
                "there is no source {default:?}; write the name of one that there is, or nothing"
            );
            return Err(place.diagnostic(*line, reason));
        }
        found.default = Some(default.clone());
    }
    Ok(found)
}

impl ClusterShell {
    fn knows(&self, name: &str) -> bool {
        self.sources.iter().any(|(other, _)| other == name)
            || self.ignored.iter().any(|(other, _)| other == name)
    }

    /// A source's groups, or that they are not to be had.
    fn add(
        &mut self,
        name: String,
        source: Option<Source>,
        place: &Place,
        line: Option<usize>,
    ) -> Result<(), Diagnostic> {
        if self.knows(&name) {
            return Err(place.diagnostic(
                line,
                format!("there is a source {name:?} already; rename one of the two"),
            ));
        }
        match source {
            Some(source) => self.sources.push((name, source)),
            None => self.ignored.push((name, place.line(line))),
        }
        Ok(())
    }

    /// Takes up sources that are configured by upcalls; `directory` is where those would run.
    fn sections(
        &mut self,
        sections: &[(usize, String, Section)],
        directory: &Path,
        place: &Place,
    ) -> Result<(), Diagnostic> {
        for (line, sources, section) in sections {
            for name in sources.split(',').filter(|name| *name != "Main" && *name != "DEFAULT") {
                names::group(name).map_err(|reason| place.diagnostic(*line, reason))?;
                let Some((_, map)) = section.get("map") else {
                    let reason = format!(
                        "the source {name} has no map; write the command that lists a group's hosts"
                    );
                    return Err(place.diagnostic(*line, reason));
                };
                let source = match flat_files(map) {
                    None => None,
                    Some(files) => Some(first_there(&files, name, directory)?),
                };
                self.add(name.to_owned(), source, place, Some(*line))?;
            }
        }
        Ok(())
    }
}

/// What an upcall reads where it is ClusterShell's own for flat files: one file, or a second where
/// the first is not there.
fn flat_files(upcall: &str) -> Option<Vec<&str>> {
    let (before, file) = upcall.split_once(r"sed -n 's/^$GROUP:\(.*\)/\1/p' ")?;
    let file = file.trim();
    let is_path = |text: &str| {
        let rest = text.replace("$CFGDIR", "").replace("$SOURCE", "");
        !text.is_empty()
            && !rest
                .contains(|sign: char| sign.is_whitespace() || "$`\"'\\;&|<>*?(){}".contains(sign))
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

/// The first of these files that is there; none is a source without groups, as it is to `sed`.
fn first_there(files: &[&str], source: &str, directory: &Path) -> Result<Source, Diagnostic> {
    for file in files {
        let path = substituted(file, directory).replace("$SOURCE", source);
        let place = Place::new(&directory.join(path));
        if let Some(text) = place.read_if_there()? {
            return parse_flat(&text, place.path());
        }
    }
    Ok(Source::default())
}

fn substituted(text: &str, directory: &Path) -> String {
    let directory = directory.to_string_lossy();
    text.replace("${CFGDIR}", &directory).replace("$CFGDIR", &directory)
}

/// The directories of an option, each once, those that are there; quotes may be around them.
fn directories(
    option: Option<&(usize, String)>,
    own: &Path,
    place: &Place,
) -> Result<Vec<PathBuf>, Diagnostic> {
    let Some((line, value)) = option else { return Ok(Vec::new()) };
    let mut directories: Vec<PathBuf> = Vec::new();
    let mut seen = HashSet::new();
    let words = crate::shlex::split(value).map_err(|reason| place.diagnostic(*line, reason))?;
    for word in words {
        // Its parts in order, without `.` and doubled slashes.
        let directory: PathBuf = Path::new(&substituted(&word, own)).components().collect();
        match fs::metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(metadata) if metadata.is_dir() => {
                if seen.insert(directory.clone()) {
                    directories.push(directory);
                }
            }
            _ => {
                let reason =
                    format!("{} is no directory that can be read; correct it", directory.display());
                return Err(place.diagnostic(*line, reason));
            }
        }
    }
    Ok(directories)
}

/// The files of a directory with this ending, by name; those whose name begins with a dot are not
/// meant.
fn files(directory: &Path, ending: &str, place: &Place) -> Result<Vec<PathBuf>, Diagnostic> {
    let unreadable = |error: io::Error| {
        place.diagnostic(None, format!("cannot read {}: {error}", directory.display()))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|other| other == ending) && path.is_file() {
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
    fn work_is_bounded() {
        let place = Place::new(Path::new("local.cfg"));
        let mut work = MOST_WORK - 15;
        check("n[1-10]", &place, 1, &mut work).unwrap();
        let diagnostic = check("n[1-10]", &place, 2, &mut work).unwrap_err();
        assert_eq!(
            diagnostic.to_string(),
            "local.cfg:2: all groups together have too many hosts; split the file"
        );
    }
}
