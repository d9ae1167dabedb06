//! Reads hosts, with their addresses and users, from OpenSSH's configuration (`ssh_config(5)`).
//!
//! Every pattern of a `Host` line that has no wildcard and no `!` is a host. `HostName` and `User`
//! apply as in ssh: of all blocks that match a host, including those with wildcards, the first
//! value is used. `Include` is followed. `Match` blocks are skipped, since only ssh can evaluate
//! their conditions. All other keywords are skipped; in particular, `Port` is the port of sshd.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glob::MatchOptions;
use labsh_diagnostics::{Diagnostic, Origin};
use labsh_nodeset::{MAX_HOSTS, NodeSet};

use crate::input_file::InputFile;
use crate::{HostTable, Settings, Source, names};

/// How deeply files may include each other, as in ssh.
const MAX_INCLUDE_DEPTH: usize = 16;

/// How many files are read in all.
const MAX_FILES: usize = 1000;

/// How many bytes of patterns with wildcards are compared with hosts in all.
const MAX_COMPARED_BYTES: usize = 100_000_000;

/// Reads `path` and the files that it includes. Relative paths in them start at `~/.ssh`, or at
/// `/etc/ssh` for a file in that directory.
///
/// # Errors
///
/// A file that exists and cannot be read, and the errors of [`parse`].
pub fn read(path: &Path) -> Result<Source, Diagnostic> {
    read_with_home(path, env::home_dir().as_deref())
}

/// Reads the configuration as [`read`] does, with another home directory.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_home(path: &Path, home: Option<&Path>) -> Result<Source, Diagnostic> {
    let file = InputFile::new(path);
    let text = file.read()?;
    let base = match path.starts_with("/etc/ssh") {
        true => Some(PathBuf::from("/etc/ssh")),
        false => home.map(|home| home.join(".ssh")),
    };
    let mut config =
        Config { follow_includes: true, home: home.map(Path::to_owned), base, ..Config::default() };
    config.file(&text, &file, None, 0)?;
    config.finish(&file)
}

/// Parses the text of the file at `path` without the files that it includes.
///
/// # Errors
///
/// An unterminated quote, more than one value, `Host` without a pattern, or more than
/// [`labsh_nodeset::MAX_HOSTS`] hosts.
pub fn parse(text: &str, path: &Path) -> Result<Source, Diagnostic> {
    let file = InputFile::new(path);
    let mut config = Config::default();
    config.file(text, &file, None, 0)?;
    config.finish(&file)
}

#[derive(Debug, Default)]
struct Config {
    follow_includes: bool,
    home: Option<PathBuf>,
    /// The directory of relative paths.
    base: Option<PathBuf>,
    /// How many files have been read.
    files: usize,
    blocks: Vec<Block>,
    /// Each host, with its first `Host` line.
    hosts: BTreeMap<String, usize>,
    /// The `Host` lines.
    host_lines: Vec<Origin>,
    values: Vec<Assignment>,
}

/// A value in a line, and the index of its block.
#[derive(Debug)]
struct Assignment {
    keyword: Keyword,
    value: String,
    block: usize,
    origin: Origin,
}

/// Lines that apply to the same hosts.
#[derive(Debug)]
struct Block {
    /// The block that includes this one's file. A host that does not match there does not match
    /// here.
    outer: Option<usize>,
    /// `None` for the lines before the first `Host`, which apply to every host.
    patterns: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyword {
    HostName,
    User,
}

impl Config {
    /// Reads the lines of one file.
    fn file(
        &mut self,
        text: &str,
        file: &InputFile,
        outer: Option<usize>,
        depth: usize,
    ) -> Result<(), Diagnostic> {
        self.files += 1;
        // After `Match`, until the next `Host`, no line applies.
        let mut block = Some(self.block(outer, None));
        for (line, content) in (1..).zip(text.lines()) {
            let Some((keyword, rest)) = keyword(content) else { continue };
            let error = |reason: &str| file.diagnostic(line, format!("{keyword}: {reason}"));
            let arguments = || words(rest).map_err(error);
            match keyword.to_ascii_lowercase().as_str() {
                "host" => {
                    let patterns = arguments()?;
                    if patterns.is_empty() || patterns.iter().any(String::is_empty) {
                        return Err(error("a pattern is missing; write the name of a host"));
                    }
                    self.add_hosts(&patterns, file.origin(line))?;
                    block = Some(self.block(outer, Some(patterns)));
                }
                "match" => block = None,
                "include" => {
                    if let Some(block) = block.filter(|_| self.follow_includes) {
                        for path in arguments()? {
                            self.include(&path, file, line, block, depth)?;
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
                        return Err(error(
                            "one value belongs here; write it, in quotes if it has spaces",
                        ));
                    };
                    if let Some(block) = block {
                        let origin = file.origin(line);
                        self.values.push(Assignment { keyword, value, block, origin });
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a block and returns its index.
    fn block(&mut self, outer: Option<usize>, patterns: Option<Vec<String>>) -> usize {
        self.blocks.push(Block { outer, patterns });
        self.blocks.len() - 1
    }

    fn add_hosts(&mut self, patterns: &[String], origin: Origin) -> Result<(), Diagnostic> {
        let line = self.host_lines.len();
        // Names that labsh cannot use are skipped: not every host of ssh has to be one of labsh.
        for name in patterns
            .iter()
            .filter(|pattern| !pattern.starts_with('!') && names::check_host(pattern).is_ok())
        {
            self.hosts.entry(name.clone()).or_insert(line);
        }
        if self.hosts.len() <= MAX_HOSTS {
            self.host_lines.push(origin);
            return Ok(());
        }
        let reason = format!("there are more than {MAX_HOSTS} hosts; split the file");
        Err(Diagnostic { origin, reason })
    }

    /// Reads the files that an `Include` line names.
    fn include(
        &mut self,
        path: &str,
        file: &InputFile,
        line: usize,
        block: usize,
        depth: usize,
    ) -> Result<(), Diagnostic> {
        let anchored = match path.strip_prefix("~/") {
            Some(inside) => self.home.as_ref().map(|home| home.join(inside)),
            None if path.starts_with('/') => Some(PathBuf::from(path)),
            None if path.starts_with('~') => {
                return Err(file.diagnostic(
                    line,
                    format!("Include {path}: write another user's home as an absolute path"),
                ));
            }
            None => self.base.as_ref().map(|base| base.join(path)),
        };
        let anchored = anchored.as_deref().and_then(Path::to_str).ok_or_else(|| {
            file.diagnostic(
                line,
                format!("Include {path}: there is no home directory; write an absolute path"),
            )
        })?;
        let options = MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        // In ssh `**` is the same as `*`; in the glob library it matches any number of directories.
        let mut pattern = anchored.to_owned();
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        let paths = glob::glob_with(&pattern, options).map_err(|error| {
            file.diagnostic(line, format!("Include {path}: {}; correct the pattern", error.msg))
        })?;
        // As in ssh, a pattern does not mean the directories that it matches.
        let is_pattern = path.contains(['*', '?', '[']);
        let is_included =
            |found: &PathBuf| if is_pattern { !found.is_dir() } else { found.exists() };
        for found in paths.flatten().filter(is_included) {
            if depth == MAX_INCLUDE_DEPTH || self.files >= MAX_FILES {
                let limit = if depth == MAX_INCLUDE_DEPTH {
                    format!("files are nested more than {MAX_INCLUDE_DEPTH} deep")
                } else {
                    format!("there are more than {MAX_FILES} files")
                };
                let reason = format!("Include {path}: {limit}; does a file include itself?");
                return Err(file.diagnostic(line, reason));
            }
            let included = InputFile::new(&found);
            if let Some(text) = included.read_if_exists()? {
                self.file(&text, &included, Some(block), depth + 1)?;
            }
        }
        Ok(())
    }

    /// Returns the hosts, and each value with the hosts that it is the first value for.
    fn finish(self, file: &InputFile) -> Result<Source, Diagnostic> {
        let names: Vec<&str> = self.hosts.keys().map(String::as_str).collect();
        let matching = self.matching(&names, file)?;
        // A name that its own line negates is not a host.
        let mut known = vec![false; names.len()];
        for (block, hosts) in self.blocks.iter().zip(&matching) {
            let patterns = block.patterns.iter().flatten();
            let named = patterns.filter_map(|name| names.binary_search(&name.as_str()).ok());
            for host in named.filter(|host| hosts.binary_search(host).is_ok()) {
                known[host] = true;
            }
        }
        let mut lines: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (host, line) in self.hosts.values().enumerate().filter(|(host, _)| known[*host]) {
            lines.entry(*line).or_default().push(names[host]);
        }
        let mut tables: Vec<HostTable> = lines
            .into_iter()
            .map(|(line, hosts)| HostTable {
                hosts: NodeSet::of(hosts),
                settings: Settings::default(),
                origin: self.host_lines[line].clone(),
            })
            .collect();
        for keyword in [Keyword::HostName, Keyword::User] {
            let mut unset = known.clone();
            let assignments = self.values.iter().filter(|value| value.keyword == keyword);
            for Assignment { value, block, origin, .. } in assignments {
                let first = matching[*block]
                    .iter()
                    .filter(|host| std::mem::replace(&mut unset[**host], false));
                let hosts = NodeSet::of(first.map(|host| names[*host]));
                if hosts.is_empty() {
                    continue;
                }
                let mut settings = Settings::default();
                match keyword {
                    Keyword::HostName => settings.address = Some(with_host(value)),
                    Keyword::User => settings.user = Some(value.clone()),
                }
                tables.push(HostTable { hosts, settings, origin: origin.clone() });
            }
        }
        Ok(Source { tables, ..Source::default() })
    }

    /// Returns the hosts, as sorted indices in `names`, that each block matches.
    fn matching(&self, names: &[&str], file: &InputFile) -> Result<Vec<Rc<[usize]>>, Diagnostic> {
        let all: Rc<[usize]> = (0..names.len()).collect();
        let mut matching: Vec<Rc<[usize]>> = Vec::with_capacity(self.blocks.len());
        let mut compared = 0;
        for block in &self.blocks {
            let outer = block.outer.map_or(&all, |outer| &matching[outer]);
            let Some(patterns) = &block.patterns else {
                matching.push(Rc::clone(outer));
                continue;
            };
            let (negated, positive): (Vec<&str>, Vec<&str>) =
                patterns.iter().map(String::as_str).partition(|pattern| pattern.starts_with('!'));
            let mut hosts = Vec::new();
            for pattern in positive {
                if pattern.contains(['*', '?']) {
                    compared += pattern.len() * outer.len();
                    hosts.extend(
                        outer.iter().copied().filter(|host| matches(pattern, names[*host])),
                    );
                } else if let Ok(host) = names.binary_search(&pattern) {
                    hosts.extend(outer.binary_search(&host).is_ok().then_some(host));
                }
                if compared > MAX_COMPARED_BYTES {
                    return Err(file.diagnostic(
                        None,
                        "there are too many patterns for so many hosts; split the file",
                    ));
                }
            }
            hosts.sort_unstable();
            hosts.dedup();
            compared += hosts.len() * negated.iter().map(|pattern| pattern.len()).sum::<usize>();
            if compared > MAX_COMPARED_BYTES {
                return Err(file.diagnostic(
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

/// Replaces `%h` in a `HostName` by `{host}`, and `%%` by a percent sign.
fn with_host(text: &str) -> String {
    let mut address = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        address.push_str(before);
        rest = match after.chars().next() {
            Some('h') => {
                address.push_str("{host}");
                &after[1..]
            }
            Some('%') => {
                address.push('%');
                &after[1..]
            }
            _ => {
                address.push('%');
                after
            }
        };
    }
    address + rest
}

/// Splits a line into its keyword and its arguments, after spaces or one `=`.
fn keyword(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_matches([' ', '\t', '\r', '\x0c']);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (keyword, rest) = line.split_at(line.find([' ', '\t', '=']).unwrap_or(line.len()));
    let rest = rest.trim_start_matches([' ', '\t']);
    Some((keyword, rest.strip_prefix('=').unwrap_or(rest).trim_start_matches([' ', '\t'])))
}

/// Splits the arguments of a line, with quotes and backslashes, up to a comment.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' if quote.is_none() => words.extend(word.take()),
            '#' if quote.is_none() && word.is_none() => break,
            '\\' if chars.peek().is_some_and(|next| {
                matches!(next, '\'' | '"' | '\\') || (*next == ' ' && quote.is_none())
            }) =>
            {
                word.get_or_insert_default().extend(chars.next());
            }
            '\'' | '"' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            _ if quote == Some(c) => quote = None,
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote has no end; write a second one");
    }
    words.extend(word);
    Ok(words)
}

/// Returns whether a name matches a pattern: `*` stands for any text, `?` for one byte.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut next) = (0, 0);
    // The position after the last `*`, and the end of the text that it matches so far.
    let mut star = None;
    while next < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, next));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[next] => (at, next) = (at + 1, next + 1),
            _ => {
                let Some((after, end)) = star else { return false };
                star = Some((after, end + 1));
                (at, next) = (after, end + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}
