//! Hosts that OpenSSH's configuration names, and what it says of their addresses and users:
//! `ssh_config(5)`.
//!
//! Every pattern of a `Host` line that has no wildcard and no `!` is a host. `HostName` and `User`
//! are taken as ssh takes them: of all blocks that match a host, those with wildcards included, the
//! first value counts. `Include` is followed. `Match` blocks are passed over, since what they ask
//! for is known only to ssh; so is everything else, `Port` first of all: it is sshd's.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glob::MatchOptions;
use labsh_diagnostics::{Diagnostic, Origin};
use labsh_nodeset::{MAX_HOSTS, NodeSet};

use crate::input_file::Place;
use crate::{Room, Settings, Source, names};

/// How deep files may include each other; ssh's own limit.
const DEEPEST: usize = 16;

/// How many files are read in all.
const MOST_FILES: usize = 1000;

/// How many signs of patterns with wildcards are compared with hosts in all.
const MOST_COMPARED: usize = 100_000_000;

/// Reads `path` and what it includes. Relative paths in it begin in `~/.ssh`, or in `/etc/ssh`
/// where the file is there.
///
/// # Errors
///
/// Where a file is there and cannot be read, and wherever [`parse`] finds a mistake.
pub fn read(path: &Path) -> Result<Source, Diagnostic> {
    read_with_home(path, env::home_dir().as_deref())
}

/// The same for somebody whose home directory is elsewhere.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_home(path: &Path, home: Option<&Path>) -> Result<Source, Diagnostic> {
    let place = Place::new(path);
    let text = place.read()?;
    let base = match path.starts_with("/etc/ssh") {
        true => Some(PathBuf::from("/etc/ssh")),
        false => home.map(|home| home.join(".ssh")),
    };
    let mut config =
        Config { including: true, home: home.map(Path::to_owned), base, ..Config::default() };
    config.file(&text, &place, None, 0)?;
    config.finish(&place)
}

/// Reads one file; what it includes is passed over. The path is for the origins.
///
/// # Errors
///
/// Quotes without an end, more than one value, `Host` without a pattern, more than
/// [`labsh_nodeset::MAX_HOSTS`] hosts.
pub fn parse(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    let place = Place::new(path);
    let mut config = Config::default();
    config.file(text, &place, None, 0)?;
    config.finish(&place)
}

#[derive(Debug, Default)]
struct Config {
    including: bool,
    home: Option<PathBuf>,
    /// Where relative paths begin.
    base: Option<PathBuf>,
    files: usize,
    blocks: Vec<Block>,
    hosts: BTreeMap<String, Origin>,
    values: Vec<(Keyword, String, usize, Origin)>,
}

/// Lines that count for the same hosts.
#[derive(Debug)]
struct Block {
    /// The block in which this one's file is included: what does not match there matches nowhere
    /// inside.
    outer: Option<usize>,
    /// `None` for the lines before the first `Host`: they are for every host.
    patterns: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyword {
    HostName,
    User,
}

impl Config {
    fn file(
        &mut self,
        text: &str,
        place: &Place,
        outer: Option<usize>,
        depth: usize,
    ) -> Result<(), Diagnostic> {
        self.files += 1;
        // Where nothing counts, behind `Match`, there is no block.
        let mut block = Some(self.block(outer, None));
        for (line, content) in (1..).zip(text.lines()) {
            let Some((keyword, rest)) = keyword(content) else { continue };
            let wrong = |reason: &str| place.diagnostic(line, format!("{keyword}: {reason}"));
            let arguments = || words(rest).map_err(wrong);
            match keyword.to_ascii_lowercase().as_str() {
                "host" => {
                    let patterns = arguments()?;
                    if patterns.is_empty() || patterns.iter().any(String::is_empty) {
                        return Err(wrong("a pattern is missing; write the name of a host"));
                    }
                    self.take_hosts(&patterns, &place.line(line))?;
                    block = Some(self.block(outer, Some(patterns)));
                }
                "match" => block = None,
                "include" => {
                    if let Some(block) = block.filter(|_| self.including) {
                        for path in arguments()? {
                            self.include(&path, place, line, block, depth)?;
                        }
                    }
                }
                other => {
                    let keyword = match other {
                        "hostname" => Keyword::HostName,
                        "user" => Keyword::User,
                        _ => continue,
                    };
                    let mut values = arguments()?.into_iter();
                    let (Some(value), None) =
                        (values.next().filter(|value| !value.is_empty()), values.next())
                    else {
                        return Err(wrong(
                            "one value belongs here; write it, in quotes if there are blanks in it",
                        ));
                    };
                    if let Some(block) = block {
                        self.values.push((keyword, value, block, place.line(line)));
                    }
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, outer: Option<usize>, patterns: Option<Vec<String>>) -> usize {
        self.blocks.push(Block { outer, patterns });
        self.blocks.len() - 1
    }

    fn take_hosts(&mut self, patterns: &[String], origin: &Origin) -> Result<(), Diagnostic> {
        // ssh's configuration is for more than hosts with labshd: what could not be named is left
        // out.
        for name in patterns
            .iter()
            .filter(|pattern| !pattern.starts_with('!') && names::host(pattern).is_ok())
        {
            self.hosts.entry(name.clone()).or_insert_with(|| origin.clone());
        }
        if self.hosts.len() <= MAX_HOSTS {
            return Ok(());
        }
        Err(Diagnostic {
            origin: origin.clone(),
            reason: format!("there are more than {MAX_HOSTS} hosts; split the file"),
        })
    }

    fn include(
        &mut self,
        path: &str,
        place: &Place,
        line: usize,
        block: usize,
        depth: usize,
    ) -> Result<(), Diagnostic> {
        let anchored = match path.strip_prefix("~/") {
            Some(inside) => self.home.as_ref().map(|home| home.join(inside)),
            None if path.starts_with('/') => Some(PathBuf::from(path)),
            None if path.starts_with('~') => {
                return Err(place.diagnostic(
                    line,
                    format!("Include {path}: write somebody else's home as a whole path"),
                ));
            }
            None => self.base.as_ref().map(|base| base.join(path)),
        };
        let anchored = anchored.as_deref().and_then(Path::to_str).ok_or_else(|| {
            place.diagnostic(
                line,
                format!("Include {path}: there is no home directory; write the whole path"),
            )
        })?;
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        // Two stars in a row are one to ssh, and to the library a walk through everything.
        let mut pattern = anchored.to_owned();
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        let paths = glob::glob_with(&pattern, options).map_err(|error| {
            place.diagnostic(line, format!("Include {path}: {}; correct the pattern", error.msg))
        })?;
        for found in paths.flatten().filter(|found| found.is_file()) {
            if depth == DEEPEST || self.files >= MOST_FILES {
                let limit =
                    if depth == DEEPEST { "more than 16 deep" } else { "more than 1000 of them" };
                let reason = format!("Include {path}: {limit}; does a file include itself?");
                return Err(place.diagnostic(line, reason));
            }
            let included = Place::new(&found);
            if let Some(text) = included.read_if_there()? {
                self.file(&text, &included, Some(block), depth + 1)?;
            }
        }
        Ok(())
    }

    /// For each host the first value, each value with just those hosts for which it is the first.
    fn finish(self, place: &Place) -> Result<Source, Diagnostic> {
        let names: Vec<&str> = self.hosts.keys().map(String::as_str).collect();
        let matching = self.matching(&names, place)?;
        // Behind a `!` that takes it back, a name is no host.
        let mut known = vec![false; names.len()];
        for (block, hosts) in self.blocks.iter().zip(&matching) {
            let places = block
                .patterns
                .iter()
                .flatten()
                .filter_map(|name| names.binary_search(&name.as_str()).ok());
            places
                .filter(|host| hosts.binary_search(host).is_ok())
                .for_each(|host| known[host] = true);
        }
        let mut lines: BTreeMap<&Origin, Vec<&str>> = BTreeMap::new();
        for (host, origin) in self.hosts.values().enumerate().filter(|(host, _)| known[*host]) {
            lines.entry(origin).or_default().push(names[host]);
        }
        let mut rooms: Vec<Room> = lines
            .into_iter()
            .map(|(origin, hosts)| Room {
                hosts: NodeSet::of(hosts),
                settings: Settings::default(),
                origin: origin.clone(),
            })
            .collect();
        for keyword in [Keyword::HostName, Keyword::User] {
            let mut open = known.clone();
            for (_, value, block, origin) in
                self.values.iter().filter(|(other, ..)| *other == keyword)
            {
                let first = matching[*block]
                    .iter()
                    .filter(|host| std::mem::replace(&mut open[**host], false));
                let hosts = NodeSet::of(first.map(|host| names[*host]));
                if hosts.is_empty() {
                    continue;
                }
                let mut settings = Settings::default();
                match keyword {
                    Keyword::HostName => settings.address = Some(with_host(value)),
                    Keyword::User => settings.user = Some(value.clone()),
                }
                rooms.push(Room { hosts, settings, origin: origin.clone() });
            }
        }
        Ok(Source { rooms, ..Source::default() })
    }

    /// Which of the hosts, by their places in the order, each block matches.
    fn matching(&self, names: &[&str], place: &Place) -> Result<Vec<Rc<[usize]>>, Diagnostic> {
        let all: Rc<[usize]> = (0..names.len()).collect();
        let mut matching: Vec<Rc<[usize]>> = Vec::with_capacity(self.blocks.len());
        let mut compared = 0;
        for block in &self.blocks {
            let outer = block.outer.map_or(&all, |outer| &matching[outer]);
            let Some(patterns) = &block.patterns else {
                matching.push(Rc::clone(outer));
                continue;
            };
            let (negated, wanted): (Vec<&str>, Vec<&str>) =
                patterns.iter().map(String::as_str).partition(|pattern| pattern.starts_with('!'));
            let mut hosts = Vec::new();
            for pattern in wanted {
                if pattern.contains(['*', '?']) {
                    compared += pattern.len() * outer.len();
                    hosts.extend(
                        outer.iter().copied().filter(|host| matches(pattern, names[*host])),
                    );
                } else if let Ok(host) = names.binary_search(&pattern) {
                    hosts.extend(outer.binary_search(&host).is_ok().then_some(host));
                }
                if compared > MOST_COMPARED {
                    return Err(place.diagnostic(
                        None,
                        "there are too many patterns for so many hosts; split the file",
                    ));
                }
            }
            hosts.sort_unstable();
            hosts.dedup();
            compared += hosts.len() * negated.iter().map(|pattern| pattern.len()).sum::<usize>();
            if compared > MOST_COMPARED {
                return Err(place.diagnostic(
                    None,
                    "there are too many patterns for so many hosts; split the file",
                ));
            }
            hosts
                .retain(|host| !negated.iter().any(|pattern| matches(&pattern[1..], names[*host])));
            matching.push(hosts.into());
        }
        Ok(matching)
    }
}

/// `%h` in a `HostName` stands for the name that was asked for, `%%` for a percent sign.
fn with_host(text: &str) -> String {
    let mut address = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        address.push_str(before);
        rest = match behind.chars().next() {
            Some('h') => {
                address.push_str("{host}");
                &behind[1..]
            }
            Some('%') => {
                address.push('%');
                &behind[1..]
            }
            _ => {
                address.push('%');
                behind
            }
        };
    }
    address + rest
}

/// A line's first word, and what stands behind blanks or one `=`.
fn keyword(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_matches([' ', '\t', '\r', '\x0c']);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (keyword, rest) = line.split_at(line.find([' ', '\t', '=']).unwrap_or(line.len()));
    let rest = rest.trim_start_matches([' ', '\t']);
    Some((keyword, rest.strip_prefix('=').unwrap_or(rest).trim_start_matches([' ', '\t'])))
}

/// The arguments of a line: in quotes or not, up to a comment.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            ' ' | '\t' if quote.is_none() => words.extend(word.take()),
            '#' if quote.is_none() && word.is_none() => break,
            '\\' if signs.peek().is_some_and(|next| {
                matches!(next, '\'' | '"' | '\\') || (*next == ' ' && quote.is_none())
            }) =>
            {
                word.get_or_insert_default().extend(signs.next());
            }
            '\'' | '"' if quote.is_none() => {
                quote = Some(sign);
                word.get_or_insert_default();
            }
            _ if quote == Some(sign) => quote = None,
            _ => word.get_or_insert_default().push(sign),
        }
    }
    if quote.is_some() {
        return Err("a quote has no end; write a second one");
    }
    words.extend(word);
    Ok(words)
}

/// Whether a name is what a pattern says: `*` is any number of signs, `?` is one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut next) = (0, 0);
    // Behind the last star, and how much of the name it stands for so far.
    let mut star = None;
    while next < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, next));
                at += 1;
            }
            Some(sign) if *sign == b'?' || *sign == name[next] => (at, next) = (at + 1, next + 1),
            _ => {
                let Some((behind, until)) = star else { return false };
                star = Some((behind, until + 1));
                (at, next) = (behind, until + 1);
            }
        }
    }
    pattern[at..].iter().all(|sign| *sign == b'*')
}
