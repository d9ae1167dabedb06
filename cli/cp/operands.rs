//! Parses the words of `labsh cp`: local paths, and paths on hosts.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use labsh_client::config::target::parse_port;
use labsh_copy::{Name, Placement, Source};

use crate::remote::words::Targets;

/// A copy to carry out.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) targets: Targets,
    /// The hosts as the user typed them.
    pub(super) target: String,
    pub(super) direction: Direction,
    /// The name of each source at its destination, in order.
    pub(super) names: Vec<Placement>,
}

/// The direction.
#[derive(Debug)]
pub(super) enum Direction {
    /// From the local machine to hosts.
    Put { sources: Vec<Source>, to: Vec<u8> },
    /// From hosts to the local machine.
    Get { from: Vec<Vec<u8>>, to: PathBuf },
}

/// A word of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    Local(OsString),
    Remote { target: String, path: Vec<u8> },
}

impl Job {
    pub(super) fn new(words: &[OsString]) -> anyhow::Result<Self> {
        let places =
            words.iter().map(|word| operand(word)).collect::<anyhow::Result<Vec<Operand>>>()?;
        let Some((to, from)) = places.split_last().filter(|(_, from)| !from.is_empty()) else {
            bail!("name what is to be copied, and where to: labsh cp FILE lab07:DIRECTORY/");
        };
        let job = match to {
            Operand::Remote { target, path } => put(from, target, path)?,
            Operand::Local(to) => get(from, to)?,
        };
        let mut taken = HashSet::new();
        for name in &job.names {
            if !taken.insert(name) {
                let both = match name {
                    Placement::Named(name) => {
                        format!("are called {}", String::from_utf8_lossy(name.as_bytes()))
                    }
                    Placement::Contents => "are the contents of a directory".to_owned(),
                };
                bail!(
                    "two of them {both}: one would replace the other; copy them one after the other"
                );
            }
        }
        Ok(job)
    }

    /// Returns the remote path, as the user typed it, of a file below the local destination.
    pub(super) fn there(&self, path: &[u8]) -> Option<String> {
        let Direction::Get { from, .. } = &self.direction else { return None };
        let mut steps = path.splitn(2, |byte| *byte == b'/');
        let (name, mut below) = (steps.next()?, steps.next());
        let named = self.names.iter().position(|known| known.as_bytes() == name);
        let index = match &from[..] {
            // It may have another name locally.
            [_] => 0,
            _ => named.or_else(|| self.names.iter().position(|n| *n == Placement::Contents))?,
        };
        if self.names[index] == Placement::Contents {
            below = Some(path).filter(|path| !path.is_empty());
        }
        let typed = &from[index];
        let typed = typed.strip_suffix(b"/").filter(|_| below.is_some()).unwrap_or(typed);
        let shown = [Some(typed), below].into_iter().flatten().map(String::from_utf8_lossy);
        Some(format!("{}:{}", self.target, shown.collect::<Vec<_>>().join("/")))
    }
}

fn put(from: &[Operand], target: &str, path: &[u8]) -> anyhow::Result<Job> {
    let (mut sources, mut names) = (Vec::new(), Vec::new());
    for operand in from {
        let Operand::Local(word) = operand else {
            bail!(
                "both sides are on other hosts; copy here first, or run it on the host: labsh run \
                 HOST labsh cp …"
            );
        };
        let path = PathBuf::from(word);
        names.push(placement(word.as_bytes()).with_context(|| {
            let shown = path.display();
            format!("{shown}: name something inside it, or {shown}. for all that is in it")
        })?);
        sources.push(Source { path, display_name: word.as_bytes().to_vec() });
    }
    let direction = Direction::Put { sources, to: path.to_vec() };
    Ok(Job { targets: targets(target)?, target: target.to_owned(), direction, names })
}

fn get(from: &[Operand], to: &OsStr) -> anyhow::Result<Job> {
    let (mut paths, mut names, mut of) = (Vec::new(), Vec::new(), None);
    for operand in from {
        let Operand::Remote { target, path } = operand else {
            bail!(
                "both sides are here; name a host on one of them, as in lab07:DIRECTORY/, or use \
                 cp(1)"
            );
        };
        if of.get_or_insert(target) != &target {
            bail!(
                "the files are on different hosts; name the hosts as one set (lab[01-02]:FILE), \
                 or copy them one by one"
            );
        }
        let shown = String::from_utf8_lossy(path);
        names.push(placement(path).with_context(|| {
            format!(
                "{target}:{shown}: name a file or directory there by its own name, or \
                 {target}:{shown}. for all that is in it"
            )
        })?);
        paths.push(path.clone());
    }
    let target = of.context("name what is to be copied")?;
    let direction = Direction::Get { from: paths, to: to.into() };
    Ok(Job { targets: targets(target)?, target: target.clone(), direction, names })
}

/// Returns where a source goes: as with cp(1), `.` and `..` are the contents of these directories.
/// `None` for the root directory, which has no name, and for an empty path.
fn placement(path: &[u8]) -> Option<Placement> {
    match path.split(|byte| *byte == b'/').rfind(|step| !step.is_empty())? {
        b"." | b".." => Some(Placement::Contents),
        name => Name::new(name).ok().map(Placement::Named),
    }
}

fn targets(target: &str) -> anyhow::Result<Targets> {
    Targets::from_str(target).with_context(|| format!("{target:?}"))
}

/// Returns the target and the path of a word, if it is a remote path.
pub(crate) fn remote_operand(word: &OsStr) -> Option<(String, Vec<u8>)> {
    match operand(word) {
        Ok(Operand::Remote { target, path }) => Some((target, path)),
        _ => None,
    }
}

/// Parses a word: it is a remote path if it has a colon before any slash, outside brackets. `./a:b`
/// is a local path.
fn operand(word: &OsStr) -> anyhow::Result<Operand> {
    let bytes = word.as_bytes();
    let colon = match bytes.strip_prefix(b"unix:/") {
        Some(rest) => match rest.iter().position(|byte| *byte == b':') {
            Some(at) => Some(at + b"unix:/".len()),
            None => bail!("{}: a path is missing; write unix:/SOCKET:PATH", word.display()),
        },
        // In ^rooms/hosts:PATH, a file with hosts, the colon follows a slash.
        None if bytes.starts_with(b"^") => bytes.iter().position(|byte| *byte == b':'),
        None => colon(bytes),
    };
    if open_bracket(bytes) {
        let shown = word.display();
        bail!(
            "{shown}: the bracket has no partner; write lab[01-40]:PATH, or ./{shown} for a file \
             here"
        );
    }
    let Some(mut at) = colon else {
        if word.is_empty() {
            bail!(
                "a path is empty; name a file or directory, or . for the directory that you are in"
            );
        }
        return Ok(Operand::Local(word.to_owned()));
    };
    // @last:failed and the groups of named sources contain a colon themselves.
    if bytes.starts_with(b"@") {
        at = self::colon(&bytes[at + 1..]).map_or(at, |second| at + 1 + second);
    }
    let target = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let path = &bytes[at + 1..];
    not_meant(&target, path)?;
    Ok(Operand::Remote { target, path: path.to_vec() })
}

/// Rejects paths that are probably a mistake, since a path is exact, and says how to write them.
fn not_meant(target: &str, path: &[u8]) -> anyhow::Result<()> {
    let shown = String::from_utf8_lossy(path);
    if let Some(rest) = shown.strip_prefix("~/").or((shown == "~").then_some("")) {
        bail!(
            "{target}:{shown}: a path begins in the home directory by itself; write \
             {target}:{rest} (a directory that is \
             called ~ is ./~)"
        );
    }
    // Names such as 12:30.log are common, directories such as 5300: are not.
    let port = shown.split_once(':').filter(|(port, _)| parse_port(port).is_ok());
    if let Some((port, rest)) = port.filter(|(_, rest)| rest.is_empty() || rest.starts_with('/')) {
        bail!(
            "{target}:{shown}: the port is said with -p {port}, and then {target}:{rest} (a file \
             that is called {port}:… \
             is ./{port}:…)"
        );
    }
    Ok(())
}

/// Whether a word looks like a set of hosts without its last bracket: no slash, and a colon after
/// the bracket.
fn open_bracket(bytes: &[u8]) -> bool {
    let first = bytes.split(|byte| *byte == b'/').next().unwrap_or_default();
    let opened = first.iter().rposition(|byte| *byte == b'[').map(|at| &first[at..]);
    opened.is_some_and(|rest| rest.contains(&b':') && !rest.contains(&b']'))
}

/// Returns the position of the first colon outside brackets and before any slash.
fn colon(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => return Some(index),
            b'/' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_before_any_slash_makes_it_a_place_over_there() {
        for (word, target, path) in [
            ("lab07:x", "lab07", "x"),
            ("lab07:", "lab07", ""),
            ("lab07:/srv/a:b", "lab07", "/srv/a:b"),
            ("lab07:5300:x", "lab07", "5300:x"),
            ("lab07:12:30.log", "lab07", "12:30.log"),
            ("lab07:./~/x", "lab07", "./~/x"),
            ("[::1]:x", "[::1]", "x"),
            ("lab[01-40,50]:x", "lab[01-40,50]", "x"),
            ("@lab-a!lab07:x", "@lab-a!lab07", "x"),
            ("@last:failed:x/y", "@last:failed", "x/y"),
            ("^rooms/hosts:/srv/x", "^rooms/hosts", "/srv/x"),
            ("@last:x/y:z", "@last", "x/y:z"),
            ("unix:/run/labshd.sock:x:y", "unix:/run/labshd.sock", "x:y"),
        ] {
            let there = Operand::Remote { target: target.into(), path: path.into() };
            assert_eq!(operand(OsStr::new(word)).unwrap(), there, "{word}");
        }
        for word in ["x", "./a:b", "/a:b", "a/b:c", ".", "[a:b]", "^x/y", "./lab[1:x", "a[b"] {
            assert_eq!(operand(OsStr::new(word)).unwrap(), Operand::Local(word.into()), "{word}");
        }
        for word in ["", "unix:/run/labshd.sock", "lab[01-40:x", "lab[01-40:/srv/x"] {
            assert!(operand(OsStr::new(word)).is_err(), "{word}");
        }
    }

    fn job(words: &[&str]) -> anyhow::Result<Job> {
        Job::new(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_remedy() {
        for (words, said) in [
            (&["a", "b"][..], "both sides are here"),
            (&["lab01:a", "lab02:b"], "both sides are on other hosts"),
            (&["lab01:a", "lab02:b", "x"], "on different hosts"),
            (&["lab01:a", "b", "x"], "both sides are here"),
            (&["a", "lab01:b", "lab01:c"], "both sides are on other hosts"),
            (&["lab01:", "x"], "by its own name"),
            (&["lab01:/", "x"], "or lab01:/. for all that is in it"),
            (&["a/.", "b/..", "lab01:x"], "two of them are the contents of a directory"),
            (&["/", "lab01:x"], "inside it"),
            (&["x/a", "y/a", "lab01:x"], "two of them are called a"),
            (&["a", ":x"], "empty"),
            (&["a", "-lab:x"], "'-'"),
            (&["a", "lab01:~/x"], "write lab01:x (a directory that is called ~ is ./~)"),
            (&["lab01:~", "x"], "write lab01: "),
            (&["a", "lab01:5300:"], "with -p 5300, and then lab01: "),
            (&["lab[01-02]:5300:/srv/x", "x"], "with -p 5300, and then lab[01-02]:/srv/x "),
        ] {
            let error = format!("{:#}", job(words).unwrap_err());
            assert!(error.contains(said), "{words:?}: {error}");
        }
    }

    #[test]
    fn names_are_the_last_steps_of_paths() {
        let named = |words: &[&str]| {
            let names = job(words).unwrap().names;
            names
                .iter()
                .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(named(&["a/b", "c/", "/d//", "lab01:x"]), ["b", "c", "d"]);
        assert_eq!(named(&["lab01:a/b", "lab01:/c//", "x"]), ["b", "c"]);
        // The contents of a directory have no name of their own.
        for path in [".", "./", "..", "a/.", "a/..", "a/.//", "/."] {
            assert_eq!(named(&[path, "lab01:x"]), [""], "{path}");
            assert_eq!(named(&["b", &format!("lab01:{path}"), "x"][1..]), [""], "{path}");
        }
    }
}
