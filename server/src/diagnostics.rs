//! What is wrong in a file and how to correct it, before the file and the line are known.

use std::fmt;
use std::path::Path;

use labsh_diagnostics::{Diagnostic, Origin};

/// An error without its place; [`Problem::at`] makes a [`Diagnostic`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// Both texts are in lower case and without a full stop.
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }

    /// Returns the diagnostic for a line of `file`, counted from 1, or for the file as a whole.
    pub fn at(self, file: &Path, line: Option<usize>) -> Diagnostic {
        Diagnostic { origin: Origin { path: file.into(), line }, reason: self.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.reason, self.remedy)
    }
}

impl std::error::Error for Problem {}
