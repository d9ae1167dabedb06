//! Files of text, and the places in them that mistakes are found at.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::{Mistake, Origin};

/// The largest file that is read, in bytes.
pub(crate) const LARGEST: u64 = 16 << 20;

/// A file, for the origins of what stands in it.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Path>);

impl Place {
    pub(crate) fn new(path: &Path) -> Self {
        Self(Arc::from(path))
    }

    /// A line of it, from 1; 0 means the file as a whole.
    pub(crate) fn line(&self, line: usize) -> Origin {
        Origin { path: Arc::clone(&self.0), line }
    }

    pub(crate) fn mistake(&self, line: usize, reason: impl Into<String>) -> Mistake {
        Mistake { origin: self.line(line), reason: reason.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What the file holds.
    pub(crate) fn read(&self) -> Result<String, Mistake> {
        self.read_if_there()?.ok_or_else(|| {
            self.mistake(0, "there is no such file; correct the path where this inventory is named")
        })
    }

    /// What the file holds; nothing where there is none.
    pub(crate) fn read_if_there(&self) -> Result<Option<String>, Mistake> {
        let mut bytes = Vec::new();
        let read =
            File::open(&self.0).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(self.mistake(
                    0,
                    format!("cannot read it: {error}; make it a file that can be read"),
                ));
            }
        }
        if bytes.len() as u64 > LARGEST {
            let reason = format!("it is larger than {} MiB; is it an inventory?", LARGEST >> 20);
            return Err(self.mistake(0, reason));
        }
        String::from_utf8(bytes).map(Some).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            self.mistake(line, "that is not UTF-8; save the file in this encoding")
        })
    }
}
