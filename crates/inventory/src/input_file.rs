//! Reads text files of bounded size, and makes diagnostics for their lines.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use labsh_diagnostics::{Diagnostic, LineIndex, Origin, text_file};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The path of a file that is read.
#[derive(Debug, Clone)]
pub(crate) struct InputFile(Arc<Path>);

impl InputFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self(Arc::from(path))
    }

    /// Returns the origin of a line, counted from 1, or of the file as a whole.
    pub(crate) fn origin(&self, line: impl Into<Option<usize>>) -> Origin {
        Origin { path: Arc::clone(&self.0), line: line.into() }
    }

    /// Returns an error in a line, or in the file as a whole.
    pub(crate) fn diagnostic(
        &self,
        line: impl Into<Option<usize>>,
        reason: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic { origin: self.origin(line), reason: reason.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the file.
    pub(crate) fn read(&self) -> Result<String, Diagnostic> {
        self.read_if_exists()?.ok_or_else(|| {
            self.diagnostic(
                None,
                "there is no such file; correct the path where this inventory is named",
            )
        })
    }

    /// Reads the file; returns `None` where it does not exist.
    pub(crate) fn read_if_exists(&self) -> Result<Option<String>, Diagnostic> {
        let mut bytes = Vec::new();
        let read = text_file::open_regular(&self.0)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
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
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let reason =
                format!("it is larger than {} MiB; is it an inventory?", MAX_FILE_BYTES >> 20);
            return Err(self.diagnostic(None, reason));
        }
        String::from_utf8(bytes).map(text_file::without_bom).map(Some).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            let line = LineIndex::new(error.as_bytes()).line(offset);
            self.diagnostic(line, "that is not UTF-8; save the file in this encoding")
        })
    }
}
