//! labsh's own inventory, `hosts.toml`: groups, and tables for single hosts and whole rooms.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use labsh_diagnostics::{Diagnostic, LineIndex, Origin};
use labsh_nodeset::{Groups, NodeSet};
use serde::Deserialize;
use toml::Spanned;

use crate::external::Wanted;
use crate::{Group, Room, Settings};

/// What one `hosts.toml` says.
///
/// ```toml
/// [groups]
/// lab-a = "lab[01-40]"
///
/// [hosts."@lab-a"]
/// address = "{host}.cs.example"
/// groups = ["teaching"]
/// variables = { floor = 2 }
///
/// [hosts.lab07]
/// port = 5300
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsToml {
    /// The groups under `[groups]`, each with its line.
    pub groups: BTreeMap<String, Group>,
    /// Every value of a table as a room of its own, so that it has its own line; a table's values
    /// stand together.
    pub rooms: Vec<Room>,
    /// What tables say with `groups`: a group's name, and hosts that belong to it.
    pub memberships: Vec<(String, Group)>,
    /// Other tools' files that are to be read too.
    pub sources: Wanted,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    groups: BTreeMap<Spanned<String>, Spanned<String>>,
    hosts: BTreeMap<Spanned<String>, Table>,
    sources: Wanted,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Table {
    address: Option<Spanned<String>>,
    port: Option<Spanned<NonZeroU16>>,
    host_id: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    plain: Option<Spanned<bool>>,
    groups: Vec<Spanned<String>>,
    variables: BTreeMap<String, Spanned<toml::Value>>,
}

/// Reads a file; one that is not there says nothing.
///
/// # Errors
///
/// Where it cannot be read, or holds a mistake; of several, the first that is found.
pub fn read(path: &Path) -> Result<HostsToml, Diagnostic> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HostsToml::default()),
        Err(error) => Err(Diagnostic {
            origin: Origin { path: path.into(), line: None },
            reason: format!("it cannot be read: {error}; check the file and its permissions"),
        }),
    }
}

/// Reads the text of a file; the path is for what is said of it.
///
/// # Errors
///
/// The first mistake that is found, with its line.
pub fn parse(text: &str, path: &Path) -> Result<HostsToml, Diagnostic> {
    let page = Page { lines: LineIndex::new(text), path: path.into() };
    let tables: Tables = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        page.diagnostic(at, &format!("{}; correct that line", error.message().replace('\n', ", ")))
    })?;
    let mut said = HostsToml { sources: tables.sources, ..HostsToml::default() };
    for (name, members) in tables.groups {
        page.check_group(&name)?;
        page.check_members(&members)?;
        let origin = page.origin(name.span().start);
        said.groups.insert(name.into_inner(), Group { members: members.into_inner(), origin });
    }
    let mut tables: Vec<(Spanned<String>, Table)> = tables.hosts.into_iter().collect();
    // In the order of the file: of two tables that say equally exactly what is meant, it decides.
    tables.sort_by_key(|(hosts, _)| hosts.span().start);
    for (hosts, table) in tables {
        page.table(&hosts, table, &mut said)?;
    }
    Ok(said)
}

/// A file's text, and where in it things are.
struct Page {
    lines: LineIndex,
    path: Arc<Path>,
}

impl Page {
    fn origin(&self, at: usize) -> Origin {
        Origin { path: self.path.clone(), line: Some(self.lines.line(at)) }
    }

    fn diagnostic(&self, at: usize, reason: &str) -> Diagnostic {
        Diagnostic { origin: self.origin(at), reason: reason.to_owned() }
    }

    /// Refuses names that nobody could write behind an `@`.
    fn check_group(&self, name: &Spanned<String>) -> Result<(), Diagnostic> {
        let (at, name) = (name.span().start, name.get_ref());
        let sign = |c: &char| c.is_whitespace() || c.is_control() || ",!&^@*:[]".contains(*c);
        match name.chars().find(sign) {
            Some(sign) => Err(self
                .diagnostic(at, &format!("a group's name cannot hold {sign:?}; choose another"))),
            None if name.is_empty() => Err(self.diagnostic(at, "a group needs a name; write one")),
            None if name == "last" => Err(self
                .diagnostic(at, "@last stands for the hosts of the last run; choose another name")),
            None => Ok(()),
        }
    }

    /// Finds what is wrong with the notation here, where its line is known. Groups may be defined
    /// elsewhere.
    fn check_members(&self, members: &Spanned<String>) -> Result<(), Diagnostic> {
        for line in members.get_ref().lines().map(str::trim).filter(|line| !line.is_empty()) {
            NodeSet::parse(line, &AnyGroup).map_err(|diagnostic| {
                self.diagnostic(members.span().start, &diagnostic.to_string())
            })?;
        }
        Ok(())
    }

    fn table(
        &self,
        hosts: &Spanned<String>,
        table: Table,
        said: &mut HostsToml,
    ) -> Result<(), Diagnostic> {
        let at = hosts.span().start;
        let set = NodeSet::parse(hosts.get_ref(), &InFile(&said.groups))
            .map_err(|diagnostic| self.diagnostic(at, &diagnostic.to_string()))?;
        if set.is_empty() {
            let reason = format!("{:?} is no host at all; name at least one", hosts.get_ref());
            return Err(self.diagnostic(at, &reason));
        }
        let mut say = |at: usize, settings: Settings| {
            said.rooms.push(Room { hosts: set.clone(), settings, origin: self.origin(at) });
        };
        // The table itself: its hosts are known even if it says nothing of them.
        say(at, Settings::default());
        let nothing = Settings::default;
        // The port comes first: an address may hold one as well, and this one is said more plainly.
        if let Some(port) = table.port {
            say(port.span().start, Settings { port: Some(port.into_inner().get()), ..nothing() });
        }
        if let Some(address) = table.address {
            say(
                address.span().start,
                Settings { address: Some(address.into_inner()), ..nothing() },
            );
        }
        if let Some(host_id) = table.host_id {
            say(
                host_id.span().start,
                Settings { host_id: Some(host_id.into_inner()), ..nothing() },
            );
        }
        if let Some(key) = table.key {
            say(key.span().start, Settings { key: Some(key.into_inner()), ..nothing() });
        }
        if let Some(user) = table.user {
            say(user.span().start, Settings { user: Some(user.into_inner()), ..nothing() });
        }
        if let Some(plain) = table.plain {
            say(plain.span().start, Settings { plain: Some(plain.into_inner()), ..nothing() });
        }
        for (name, value) in table.variables {
            let at = value.span().start;
            let value = scalar(value.into_inner()).ok_or_else(|| {
                let reason =
                    format!("the variable {name:?} is no text, number, true or false; write one");
                self.diagnostic(at, &reason)
            })?;
            say(at, Settings { variables: [(name, value)].into(), ..nothing() });
        }
        for name in table.groups {
            self.check_group(&name)?;
            let origin = self.origin(name.span().start);
            said.memberships.push((name.into_inner(), Group { members: set.to_string(), origin }));
        }
        Ok(())
    }
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(whether) => Some(whether.to_string()),
        toml::Value::Datetime(when) => Some(when.to_string()),
        toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// Knows every group, and nothing of any.
struct AnyGroup;

impl Groups for AnyGroup {
    fn group(&self, _: &str) -> Result<Option<String>, String> {
        Ok(Some(String::new()))
    }

    fn all(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn check_wildcard(&self, name: &str) -> Result<(), String> {
        crate::names::check_wildcard(name)
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Ok(String::new())
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The groups of the file itself: what a table is for must not depend on other files.
struct InFile<'a>(&'a BTreeMap<String, Group>);

impl Groups for InFile<'_> {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.0.get(name).map(|group| group.members.clone()))
    }

    fn all(&self) -> Result<String, String> {
        Err("@* is made of the tables, so none can be for it; name the hosts".to_owned())
    }

    fn check_wildcard(&self, name: &str) -> Result<(), String> {
        crate::names::check_wildcard(name)
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("^{path}: a table cannot be for what another file holds; name the hosts"))
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> HostsToml {
        parse(text, Path::new("h.toml")).unwrap()
    }

    #[test]
    fn every_value_has_its_own_line() {
        let said = parsed(
            "[groups]\nlab-a = \"lab[01-02]\"\n\n[hosts.\"@lab-a,x\"]\naddress = \
             \"{host}.example\"\nport = 7\n\
             host_id = \"i\"\nkey = \"k\"\nuser = \"u\"\nplain = true\ngroups = [\n  \
             \"teaching\",\n]\n\
             [hosts.\"@lab-a,x\".variables]\nfloor = 2\ndoor = \"left\"\n",
        );
        assert_eq!(said.groups["lab-a"].origin.to_string(), "h.toml:2");
        let (name, members) = &said.memberships[0];
        assert_eq!((name.as_str(), members.members.as_str()), ("teaching", "lab[01-02],x"));
        assert_eq!(members.origin.line, Some(12));
        assert!(said.rooms.iter().all(|room| room.hosts.to_string() == "lab[01-02],x"));
        let line = |find: fn(&Settings) -> bool| {
            said.rooms.iter().find(|room| find(&room.settings)).and_then(|room| room.origin.line)
        };
        assert_eq!(said.rooms[0].origin.line, Some(4));
        assert_eq!(line(|said| said.address.as_deref() == Some("{host}.example")), Some(5));
        assert_eq!(line(|said| said.port == Some(7)), Some(6));
        assert_eq!(line(|said| said.host_id.is_some()), Some(7));
        assert_eq!(line(|said| said.key.is_some()), Some(8));
        assert_eq!(line(|said| said.user.is_some()), Some(9));
        assert_eq!(line(|said| said.plain == Some(true)), Some(10));
        assert_eq!(
            line(|said| said.variables.get("floor").is_some_and(|floor| floor == "2")),
            Some(15)
        );
        assert_eq!(line(|said| said.variables.contains_key("door")), Some(16));
    }

    #[test]
    fn tables_keep_the_order_of_the_file() {
        let said = parsed("[hosts.b]\n[hosts.a]\n[hosts.\"c[1-2]\"]\n");
        let order: Vec<String> = said.rooms.iter().map(|room| room.hosts.to_string()).collect();
        assert_eq!(order, ["b", "a", "c[1-2]"]);
        assert_eq!(parsed(""), HostsToml::default());
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_its_remedy() {
        for (text, line, reason) in [
            ("[rooms]\n", 1, "unknown field `rooms`"),
            ("[groups]\na = 1\n", 2, "invalid type"),
            ("\n[groups]\na = \"lab[01-\"\n", 3, "is unmatched; write for example lab[01-40]"),
            ("[groups]\na = \"lab[0-999999999]\"\n", 2, "more than 100000 hosts"),
            ("[groups]\n\"a:b\" = \"x\"\n", 2, "cannot hold ':'"),
            ("[groups]\nlast = \"x\"\n", 2, "choose another name"),
            ("[hosts.\"lab[1-2\"]\n", 1, "is unmatched"),
            ("\n[hosts.\"lab1!lab1\"]\n", 2, "is no host at all"),
            ("[hosts.\"\"]\n", 1, "a host is missing"),
            ("[hosts.\"lab[0-999999999]\"]\n", 1, "is there a digit too many?"),
            ("[hosts.\"@elsewhere\"]\n", 1, "there is no group \"elsewhere\""),
            ("[hosts.\"@*\"]\n", 1, "name the hosts"),
            ("[hosts.\"^/etc/hosts\"]\n", 1, "name the hosts"),
            ("[hosts.a]\nprot = 1\n", 2, "unknown field `prot`, expected one of `address`, `port`"),
            ("[hosts.a]\nport = 0\n", 2, "nonzero"),
            ("[hosts.a]\ngroups = [\"b c\"]\n", 2, "cannot hold ' '"),
            ("[hosts.a]\nvariables = { x = [] }\n", 2, "\"x\" is no text"),
            ("[groups]\na = \"@b\"\nb = \"@a\"\n[hosts.\"@a\"]\n", 4, "@a → @b → @a"),
        ] {
            let diagnostic = parse(text, Path::new("/etc/h.toml")).unwrap_err();
            assert_eq!(diagnostic.origin.line, Some(line), "{text:?}: {diagnostic}");
            assert!(
                diagnostic.to_string().starts_with(&format!("/etc/h.toml:{line}: ")),
                "{diagnostic}"
            );
            assert!(diagnostic.reason.contains(reason), "{text:?}: {diagnostic}");
            assert!(!diagnostic.reason.contains('\n'), "{diagnostic}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing_and_one_that_cannot_be_read_is_told() {
        assert_eq!(read(Path::new("/nowhere/hosts.toml")).unwrap(), HostsToml::default());
        let diagnostic = read(Path::new("/")).unwrap_err().to_string();
        assert!(diagnostic.starts_with("/: it cannot be read: "), "{diagnostic}");
    }
}
