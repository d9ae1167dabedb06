//! Files of text, and the places in them that mistakes are found at.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use labsh_diagnostics::{Diagnostic, LineIndex, Origin};

/// The largest file that is read, in bytes.
pub(crate) const LARGEST: u64 = 16 << 20;

/// A file, for the origins of what stands in it.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Path>);

impl Place {
    pub(crate) fn new(path: &Path) -> Self {
        Self(Arc::from(path))
    }

    /// Returns a line of it, counted from 1, or the file as a whole.
    pub(crate) fn line(&self, line: impl Into<Option<usize>>) -> Origin {
        Origin { path: Arc::clone(&self.0), line: line.into() }
    }

    pub(crate) fn diagnostic(
        &self,
        line: impl Into<Option<usize>>,
        reason: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic { origin: self.line(line), reason: reason.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What the file holds.
    pub(crate) fn read(&self) -> Result<String, Diagnostic> {
        self.read_if_there()?.ok_or_else(|| {
            self.diagnostic(
                None,
                "there is no such file; correct the path where this inventory is named",
            )
        })
    }

    /// What the file holds; nothing where there is none.
    pub(crate) fn read_if_there(&self) -> Result<Option<String>, Diagnostic> {
        let mut bytes = Vec::new();
        let read =
            File::open(&self.0).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(self.diagnostic(
                    None,
                    format!("cannot read it: {error}; make it a file that can be read"),
                ));
            }
        }
        if bytes.len() as u64 > LARGEST {
            let reason = format!("it is larger than {} MiB; is it an inventory?", LARGEST >> 20);
            return Err(self.diagnostic(None, reason));
        }
        String::from_utf8(bytes).map(Some).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = LineIndex::new(good).line(good.len());
            self.diagnostic(line, "that is not UTF-8; save the file in this encoding")
        })
    }
}
