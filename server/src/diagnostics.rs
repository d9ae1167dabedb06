//! An error in a file and its remedy, before the file and line are known.

use std::fmt;
use std::path::Path;

use labsh_diagnostics::{Diagnostic, Origin};

/// An error without its place; [`Problem::at`] makes a [`Diagnostic`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What is wrong.
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl Problem {
    /// Takes two texts that begin in lower case and end without a full stop.
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }

    /// Returns the diagnostic for a line of `file`, counted from 1, or for the file as a whole.
    pub(crate) fn at(self, file: &Path, line: Option<usize>) -> Diagnostic {
        Diagnostic { origin: Origin { path: file.into(), line }, reason: self.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; {}", self.reason, self.remedy)
    }
}

impl std::error::Error for Problem {}
