//! Errors in files that people write: which file, which line, what is wrong and how to correct it.

pub mod characters;
pub mod text_file;
pub mod wording;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The place in a file that a value or a [`Diagnostic`] comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file or directory.
    pub path: Arc<Path>,
    /// The line, counted from 1; `None` for the file as a whole.
    pub line: Option<usize>,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            None => write!(formatter, "{}", self.path.display()),
            Some(line) => write!(formatter, "{}:{line}", self.path.display()),
        }
    }
}

/// An error in a file; shown as `file:line: reason`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct Diagnostic {
    /// Where the error is.
    pub origin: Origin,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

/// All errors that were found, at least one; shown as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            diagnostic.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Converts byte offsets in a text, such as the spans of a parser, to line numbers.
#[derive(Debug, Clone)]
pub struct LineIndex {
    newlines: Vec<usize>,
}

impl LineIndex {
    /// Indexes the lines of `text`.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let bytes = text.as_ref().iter().enumerate();
        let newlines = bytes.filter(|(_, byte)| **byte == b'\n').map(|(offset, _)| offset);
        Self { newlines: newlines.collect() }
    }

    /// Returns the line, counted from 1, of the byte at `offset`; the last line for any offset past
    /// the end. A newline belongs to the line that it ends.
    pub fn line(&self, offset: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: Option<usize>) -> Diagnostic {
        let origin = Origin { path: Path::new("/etc/f.toml").into(), line };
        Diagnostic { origin, reason: "it is empty".to_owned() }
    }

    #[test]
    fn a_diagnostic_shows_the_file_and_the_line_where_there_is_one() {
        assert_eq!(diagnostic(None).to_string(), "/etc/f.toml: it is empty");
        let both = Diagnostics(vec![diagnostic(None), diagnostic(Some(7))]);
        assert_eq!(both.to_string(), "/etc/f.toml: it is empty\n/etc/f.toml:7: it is empty");
    }

    #[test]
    fn an_offset_is_in_the_line_of_its_byte() {
        let lines = LineIndex::new("ab\n\nc\n");
        let offsets = [0, 2, 3, 4, 5, 6, 100];
        assert_eq!(offsets.map(|offset| lines.line(offset)), [1, 1, 2, 3, 3, 4, 4]);
        assert_eq!(LineIndex::new("").line(0), 1);
    }
}
