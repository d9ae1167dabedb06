//! How mistakes in files are told: where, what is wrong, what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// Something wrong whose place is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl Wrong {
    /// Both texts are for people, in lower case and without a full stop.
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }

    /// The same, with its place.
    pub fn at(self, file: &Path, line: Option<usize>) -> Mistake {
        Mistake { file: file.to_owned(), line, problem: self.problem, remedy: self.remedy }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.problem, self.remedy)
    }
}

impl std::error::Error for Wrong {}

/// One mistake in one file; its text is `file:line: problem (remedy)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file or directory.
    pub file: PathBuf,
    /// The line, counted from 1, where there is one to point at.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, "{line}:")?;
        }
        write!(formatter, " {} ({})", self.problem, self.remedy)
    }
}

/// All mistakes that were found, at least one; its text has a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            mistake.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
