//! Parses labsh's own inventory, `hosts.toml`: groups, and tables for sets of hosts.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use labsh_diagnostics::{Diagnostic, LineIndex, Origin, text_file, wording};
use labsh_nodeset::{Groups, NamedBy, NodeSet};
use serde::Deserialize;
use toml::Spanned;

use crate::external::SourcesConfig;
use crate::{Group, HostTable, Settings};

/// The contents of one `hosts.toml`.
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
    /// The tables under `[hosts]`. Each value is a [`HostTable`] with its own line; the values of
    /// one table follow each other.
    pub tables: Vec<HostTable>,
    /// The `groups` of tables: the name of a group, and hosts that belong to it.
    pub memberships: Vec<(String, Group)>,
    /// Other tools' inventories to read.
    pub sources: SourcesConfig,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Tables {
    groups: BTreeMap<Spanned<String>, Spanned<String>>,
    hosts: BTreeMap<Spanned<String>, Table>,
    sources: SourcesConfig,
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

/// Reads a file; one that does not exist is empty.
///
/// # Errors
///
/// A file that cannot be read, and the errors of [`parse`].
pub fn read(path: &Path) -> Result<HostsToml, Diagnostic> {
    match text_file::read_text(path) {
        Ok(text) => parse(&text, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HostsToml::default()),
        Err(error) => Err(Diagnostic {
            origin: Origin { path: path.into(), line: None },
            reason: format!("it cannot be read: {error}; check the file and its permissions"),
        }),
    }
}

/// Parses the text of the file at `path`.
///
/// # Errors
///
/// The first error that is found, with its line.
pub fn parse(text: &str, path: &Path) -> Result<HostsToml, Diagnostic> {
    let parser = Parser { lines: LineIndex::new(text), path: path.into() };
    let tables: Tables = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let reason = format!("{}; correct that line", wording::reword(error.message()));
        parser.diagnostic(offset, &reason)
    })?;
    let mut contents = HostsToml { sources: tables.sources, ..HostsToml::default() };
    for (name, members) in tables.groups {
        parser.check_group(&name)?;
        parser.check_members(&members)?;
        let origin = parser.origin(name.span().start);
        contents.groups.insert(name.into_inner(), Group { members: members.into_inner(), origin });
    }
    let mut tables: Vec<(Spanned<String>, Table)> = tables.hosts.into_iter().collect();
    // In the order of the file, which decides between tables for equally many hosts.
    tables.sort_by_key(|(hosts, _)| hosts.span().start);
    for (hosts, table) in tables {
        parser.table(&hosts, table, &mut contents)?;
    }
    Ok(contents)
}

/// Converts the parsed tables of the file at `path`.
struct Parser {
    lines: LineIndex,
    path: Arc<Path>,
}

impl Parser {
    /// Returns the line of the byte at `offset`.
    fn origin(&self, offset: usize) -> Origin {
        Origin { path: self.path.clone(), line: Some(self.lines.line(offset)) }
    }

    /// Returns an error in the line of the byte at `offset`.
    fn diagnostic(&self, offset: usize, reason: &str) -> Diagnostic {
        Diagnostic { origin: self.origin(offset), reason: reason.to_owned() }
    }

    /// Refuses names that cannot be written after an `@`.
    fn check_group(&self, name: &Spanned<String>) -> Result<(), Diagnostic> {
        let (offset, name) = (name.span().start, name.get_ref());
        let forbidden = |c: &char| c.is_whitespace() || c.is_control() || ",!&^@*:[]".contains(*c);
        let reason = match name.chars().find(forbidden) {
            Some(c) => format!("a group's name cannot hold {c:?}; choose another"),
            None if name.is_empty() => "a group needs a name; write one".to_owned(),
            None if name == "last" => {
                "@last is the set of hosts of the last run; choose another name".to_owned()
            }
            None => return Ok(()),
        };
        Err(self.diagnostic(offset, &reason))
    }

    /// Checks the syntax of the members, so that an error has its line. The groups that they name
    /// may be defined in other files.
    fn check_members(&self, members: &Spanned<String>) -> Result<(), Diagnostic> {
        for line in members.get_ref().lines().map(str::trim).filter(|line| !line.is_empty()) {
            NodeSet::parse(line, &EmptyGroups)
                .map_err(|error| self.diagnostic(members.span().start, &error.to_string()))?;
        }
        Ok(())
    }

    fn table(
        &self,
        hosts: &Spanned<String>,
        table: Table,
        contents: &mut HostsToml,
    ) -> Result<(), Diagnostic> {
        let at = hosts.span().start;
        let set = NodeSet::parse(hosts.get_ref(), &OwnGroups(&contents.groups))
            .map_err(|error| self.diagnostic(at, &error.to_string()))?;
        if set.is_empty() {
            let reason = format!("{:?} is an empty set; name at least one host", hosts.get_ref());
            return Err(self.diagnostic(at, &reason));
        }
        let mut add = |offset: usize, settings: Settings| {
            let origin = self.origin(offset);
            contents.tables.push(HostTable { hosts: set.clone(), settings, origin });
        };
        // The table itself makes its hosts known, even without a value.
        add(at, Settings::default());
        let unset = Settings::default;
        // The port comes first and so takes precedence over a port in the address.
        if let Some(port) = table.port {
            add(port.span().start, Settings { port: Some(port.into_inner().get()), ..unset() });
        }
        if let Some(address) = table.address {
            add(address.span().start, Settings { address: Some(address.into_inner()), ..unset() });
        }
        if let Some(host_id) = table.host_id {
            add(host_id.span().start, Settings { host_id: Some(host_id.into_inner()), ..unset() });
        }
        if let Some(key) = table.key {
            add(key.span().start, Settings { key: Some(key.into_inner()), ..unset() });
        }
        if let Some(user) = table.user {
            add(user.span().start, Settings { user: Some(user.into_inner()), ..unset() });
        }
        if let Some(plain) = table.plain {
            add(plain.span().start, Settings { plain: Some(plain.into_inner()), ..unset() });
        }
        for (name, value) in table.variables {
            let at = value.span().start;
            let value = scalar(value.into_inner()).ok_or_else(|| {
                let reason =
                    format!("the variable {name:?} is not a string, number or boolean; write one");
                self.diagnostic(at, &reason)
            })?;
            add(at, Settings { variables: [(name, value)].into(), ..unset() });
        }
        for name in table.groups {
            self.check_group(&name)?;
            let origin = self.origin(name.span().start);
            contents
                .memberships
                .push((name.into_inner(), Group { members: set.to_string(), origin }));
        }
        Ok(())
    }
}

/// Returns the text of a scalar.
fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(boolean) => Some(boolean.to_string()),
        toml::Value::Datetime(time) => Some(time.to_string()),
        toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
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

    fn file(&self, _: &str, _: NamedBy) -> Result<String, String> {
        Ok(String::new())
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The groups of the file itself: the hosts of a table must not depend on other files.
struct OwnGroups<'a>(&'a BTreeMap<String, Group>);

impl Groups for OwnGroups<'_> {
    fn group(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.0.get(name).map(|group| group.members.clone()))
    }

    fn all(&self) -> Result<String, String> {
        Err("@* consists of the tables, so a table cannot be for it; name the hosts".to_owned())
    }

    fn check_wildcard(&self, name: &str) -> Result<(), String> {
        crate::names::check_wildcard(name)
    }

    fn file(&self, path: &str, _: NamedBy) -> Result<String, String> {
        Err(format!("^{path}: a table cannot be for the hosts in another file; name the hosts"))
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
        let contents = parsed(
            "[groups]\nlab-a = \"lab[01-02]\"\n\n[hosts.\"@lab-a,x\"]\naddress = \
             \"{host}.example\"\nport = 7\n\
             host_id = \"i\"\nkey = \"k\"\nuser = \"u\"\nplain = true\ngroups = [\n  \
             \"teaching\",\n]\n\
             [hosts.\"@lab-a,x\".variables]\nfloor = 2\ndoor = \"left\"\n",
        );
        assert_eq!(contents.groups["lab-a"].origin.to_string(), "h.toml:2");
        let (name, members) = &contents.memberships[0];
        assert_eq!((name.as_str(), members.members.as_str()), ("teaching", "lab[01-02],x"));
        assert_eq!(members.origin.line, Some(12));
        assert!(contents.tables.iter().all(|table| table.hosts.to_string() == "lab[01-02],x"));
        let line = |find: fn(&Settings) -> bool| {
            contents
                .tables
                .iter()
                .find(|table| find(&table.settings))
                .and_then(|table| table.origin.line)
        };
        assert_eq!(contents.tables[0].origin.line, Some(4));
        assert_eq!(line(|settings| settings.address.as_deref() == Some("{host}.example")), Some(5));
        assert_eq!(line(|settings| settings.port == Some(7)), Some(6));
        assert_eq!(line(|settings| settings.host_id.is_some()), Some(7));
        assert_eq!(line(|settings| settings.key.is_some()), Some(8));
        assert_eq!(line(|settings| settings.user.is_some()), Some(9));
        assert_eq!(line(|settings| settings.plain == Some(true)), Some(10));
        assert_eq!(
            line(|settings| settings.variables.get("floor").is_some_and(|floor| floor == "2")),
            Some(15)
        );
        assert_eq!(line(|settings| settings.variables.contains_key("door")), Some(16));
    }

    #[test]
    fn tables_keep_the_order_of_the_file() {
        let contents = parsed("[hosts.b]\n[hosts.a]\n[hosts.\"c[1-2]\"]\n");
        let order: Vec<String> =
            contents.tables.iter().map(|table| table.hosts.to_string()).collect();
        assert_eq!(order, ["b", "a", "c[1-2]"]);
        assert_eq!(parsed(""), HostsToml::default());
    }

    #[test]
    fn an_error_has_its_line_and_a_remedy() {
        for (text, line, reason) in [
            ("[rooms]\n", 1, "unknown field `rooms`"),
            ("[groups]\na = 1\n", 2, "1 instead of a text in quotes"),
            ("[groups]\na = [\"lab01\"]\n", 2, "a list instead of a text in quotes"),
            ("\n[groups]\na = \"lab[01-\"\n", 3, "is unmatched; write for example lab[01-40]"),
            ("[groups]\na = \"lab[0-999999999]\"\n", 2, "more than 100000 hosts"),
            ("[groups]\n\"a:b\" = \"x\"\n", 2, "cannot hold ':'"),
            ("[groups]\nlast = \"x\"\n", 2, "choose another name"),
            ("[hosts.\"lab[1-2\"]\n", 1, "is unmatched"),
            ("\n[hosts.\"lab1!lab1\"]\n", 2, "is an empty set"),
            ("[hosts.\"\"]\n", 1, "a host is missing"),
            ("[hosts.\"lab[0-999999999]\"]\n", 1, "is there a digit too many?"),
            ("[hosts.\"@elsewhere\"]\n", 1, "there is no group \"elsewhere\""),
            ("[hosts.\"@*\"]\n", 1, "name the hosts"),
            ("[hosts.\"^/etc/hosts\"]\n", 1, "name the hosts"),
            ("[hosts.a]\nprot = 1\n", 2, "unknown field `prot`, expected one of `address`, `port`"),
            ("[hosts.a]\nport = 0\n", 2, "0 instead of a whole number from 1 to 65535"),
            ("[hosts.a]\ngroups = [\"b c\"]\n", 2, "cannot hold ' '"),
            ("[hosts.a]\nvariables = { x = [] }\n", 2, "\"x\" is not a string"),
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
    fn a_missing_file_is_empty_and_an_unreadable_one_is_an_error() {
        assert_eq!(read(Path::new("/nowhere/hosts.toml")).unwrap(), HostsToml::default());
        let diagnostic = read(Path::new("/")).unwrap_err().to_string();
        assert!(diagnostic.starts_with("/: it cannot be read: "), "{diagnostic}");
    }
}
