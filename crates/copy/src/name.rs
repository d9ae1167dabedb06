//! Names that a peer may say: one component each, and paths of such components.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The longest name that Linux has, in bytes (NAME_MAX).
const NAME: usize = 255;

/// The longest path that Linux takes, in bytes (PATH_MAX without the NUL at its end).
const PATH: usize = 4095;

/// Why bytes are no name of something inside a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing, or a component that is nothing: an absolute path, two slashes, a slash at the end.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("a name leads elsewhere")]
    Dots,
    /// A slash in a single name.
    #[error("a name holds a slash")]
    Slash,
    /// A NUL, which ends every path.
    #[error("a name holds a NUL")]
    Nul,
    /// More than Linux takes.
    #[error("a name is too long")]
    Long,
}

/// The name of something inside a directory: any bytes but NUL and `/`, and neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Takes bytes for a name.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        check(bytes).map(|()| Self(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A path that leads downwards only; empty for the place where it starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Below(Vec<u8>);

impl Below {
    /// Takes bytes for such a path.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        if bytes.len() > PATH {
            return Err(BadName::Long);
        }
        if !bytes.is_empty() {
            bytes.split(|byte| *byte == b'/').try_for_each(check)?;
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// One step further down.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadName> {
        check(name)?;
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if path.len() > PATH { Err(BadName::Long) } else { Ok(Self(path)) }
    }

    /// The same below a name.
    pub(crate) fn under(&self, name: &Name) -> Self {
        let mut path = name.0.clone();
        if !self.0.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&self.0);
        }
        Self(path)
    }

    /// The way to the directory that it is in, and its name there; nothing for the empty path.
    pub(crate) fn split(&self) -> Option<(&[u8], &OsStr)> {
        let (parent, name) = match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        (!name.is_empty()).then(|| (parent, OsStr::from_bytes(name)))
    }
}

fn check(name: &[u8]) -> Result<(), BadName> {
    match name {
        b"" => Err(BadName::Empty),
        b"." | b".." => Err(BadName::Dots),
        _ if name.contains(&b'/') => Err(BadName::Slash),
        _ if name.contains(&0) => Err(BadName::Nul),
        _ if name.len() > NAME => Err(BadName::Long),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_downwards_is_taken() {
        for good in [&b""[..], b"a", b"a/b", b"...", b"a\nb", b"\xff/\xfe", b" ", b"-rf"] {
            assert_eq!(Below::new(good).unwrap().as_bytes(), good);
        }
        for bad in [
            &b"/"[..],
            b"/etc",
            b"a/",
            b"a//b",
            b".",
            b"..",
            b"a/..",
            b"../a",
            b"a/../b",
            b"a/./b",
            b"a\0",
        ] {
            assert!(Below::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Below::new(&[b'a'; 256]), Err(BadName::Long));
        assert!(Below::new(&[b'a'; 255]).is_ok());
        assert_eq!(Below::new(b"a/".repeat(2048).trim_ascii_end()), Err(BadName::Long));
        assert_eq!(Name::new(b"a/b"), Err(BadName::Slash));
    }

    #[test]
    fn paths_are_put_together_and_taken_apart() {
        let path = Below::new(b"b/c").unwrap().under(&Name::new(b"a").unwrap());
        assert_eq!(path.as_bytes(), b"a/b/c");
        assert_eq!(path.split(), Some((&b"a/b"[..], OsStr::new("c"))));
        assert_eq!(Below::default().join(b"x").unwrap().split(), Some((&b""[..], OsStr::new("x"))));
        assert_eq!(Below::default().split(), None);
        assert!(path.join(b"..").is_err());
    }
}
