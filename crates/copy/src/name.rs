//! Names from a peer: single components, and relative paths that do not lead upwards.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The longest name on Linux, in bytes (NAME_MAX).
const MAX_NAME_BYTES: usize = 255;

/// The longest path on Linux, in bytes (PATH_MAX without the terminating NUL).
pub(crate) const MAX_PATH_BYTES: usize = 4095;

/// Why bytes are not a name or relative path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// A component is empty, as in an absolute path, after a doubled slash, or at the end.
    #[error("a name is empty")]
    Empty,
    /// A component is `.` or `..`.
    #[error("a name is . or ..")]
    Dots,
    /// A single name holds a slash.
    #[error("a name holds a slash")]
    Slash,
    /// A NUL, which no path can hold.
    #[error("a name holds a NUL")]
    Nul,
    /// The name or path is longer than Linux allows.
    #[error("a name is too long")]
    Long,
}

/// The name of an entry of a directory: any bytes but NUL and `/`, and neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Checks and copies the bytes of a name.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        check(bytes).map(|()| Self(bytes.to_vec()))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where a source goes in the destination directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Under this name.
    Named(Name),
    /// The source is a directory, and the destination itself gets its entries.
    Contents,
}

impl Placement {
    /// Returns the bytes of the name; none for contents.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Named(name) => name.as_bytes(),
            Self::Contents => b"",
        }
    }
}

impl From<Name> for Placement {
    fn from(name: Name) -> Self {
        Self::Named(name)
    }
}

/// A path without `.` and `..` components, a `below` in docs/COPY.md; empty for the starting point
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RelativePath(Vec<u8>);

impl RelativePath {
    /// Checks and copies the bytes of a path.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        if bytes.len() > MAX_PATH_BYTES {
            return Err(BadName::Long);
        }
        if !bytes.is_empty() {
            bytes.split(|byte| *byte == b'/').try_for_each(check)?;
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends a component.
    pub fn join(&self, name: &[u8]) -> Result<Self, BadName> {
        check(name)?;
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if path.len() > MAX_PATH_BYTES { Err(BadName::Long) } else { Ok(Self(path)) }
    }

    /// Returns the path below a name.
    pub(crate) fn under(&self, name: &Name) -> Self {
        let mut path = name.0.clone();
        if !self.0.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&self.0);
        }
        Self(path)
    }

    /// Splits the path into its parent and its last component; `None` for the empty path.
    pub(crate) fn split(&self) -> Option<(&[u8], &OsStr)> {
        let (parent, name) = match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        (!name.is_empty()).then(|| (parent, OsStr::from_bytes(name)))
    }
}

/// Checks a single component.
fn check(name: &[u8]) -> Result<(), BadName> {
    match name {
        b"" => Err(BadName::Empty),
        b"." | b".." => Err(BadName::Dots),
        _ if name.contains(&b'/') => Err(BadName::Slash),
        _ if name.contains(&0) => Err(BadName::Nul),
        _ if name.len() > MAX_NAME_BYTES => Err(BadName::Long),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_upwards_are_refused() {
        for valid in [&b""[..], b"a", b"a/b", b"...", b"a\nb", b"\xff/\xfe", b" ", b"-rf"] {
            assert_eq!(RelativePath::new(valid).unwrap().as_bytes(), valid);
        }
        for invalid in [
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
            assert!(RelativePath::new(invalid).is_err(), "{invalid:?}");
        }
        assert_eq!(RelativePath::new(&[b'a'; 256]), Err(BadName::Long));
        assert!(RelativePath::new(&[b'a'; 255]).is_ok());
        assert_eq!(RelativePath::new(b"a/".repeat(2048).trim_ascii_end()), Err(BadName::Long));
        assert_eq!(Name::new(b"a/b"), Err(BadName::Slash));
    }

    #[test]
    fn paths_can_be_joined_and_split() {
        let path = RelativePath::new(b"b/c").unwrap().under(&Name::new(b"a").unwrap());
        assert_eq!(path.as_bytes(), b"a/b/c");
        assert_eq!(path.split(), Some((&b"a/b"[..], OsStr::new("c"))));
        assert_eq!(
            RelativePath::default().join(b"x").unwrap().split(),
            Some((&b""[..], OsStr::new("x")))
        );
        assert_eq!(RelativePath::default().split(), None);
        assert!(path.join(b"..").is_err());
    }
}
