//! Resolves the path that files are copied to.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::confined_dir::ConfinedDir;
use crate::name::{Name, RelativePath};
use crate::{Error, os_error_text};

/// The directory that files are copied into, and their names there.
#[derive(Debug)]
pub struct Destination {
    pub(crate) directory: ConfinedDir,
    names: Vec<Name>,
}

impl Destination {
    /// Resolves a path as cp(1) does: into the directory if it exists, otherwise, for a single
    /// source, to a file or directory of that name.
    ///
    /// A path that ends in `/`, or that several sources are copied to, is created as a directory if
    /// it does not exist. Links in the path are followed: the user has named it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the path, if it cannot be opened or created.
    pub fn resolve(path: &[u8], names: Vec<Name>) -> Result<Self, Error> {
        let shown = String::from_utf8_lossy(path);
        let refused =
            |error: io::Error| Error::Refused(format!("{shown}: {}", os_error_text(&error)));
        let path = match path {
            b"" => PathBuf::from("."),
            path => PathBuf::from(OsStr::from_bytes(path)),
        };
        let open = |path: &Path| ConfinedDir::open(path).map_err(refused);
        if names.is_empty() {
            return Err(Error::Refused("there is nothing to copy".into()));
        }
        if path.is_dir() {
            return Ok(Self { directory: open(&path)?, names });
        }
        if names.len() != 1 || shown.ends_with('/') {
            match std::fs::create_dir(&path) {
                // Another copy may have created it since.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.is_dir() => {
                    return Err(Error::Refused(format!("{shown}: it is not a directory")));
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(refused(error));
                }
                _ => {}
            }
            return Ok(Self { directory: open(&path)?, names });
        }
        let name = path.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
        let name =
            name.ok_or_else(|| Error::Refused(format!("{shown}: there is no such directory")))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Self { directory: open(parent)?, names: vec![name] })
    }

    /// Returns the path, inside the directory, of a path below a source.
    pub(crate) fn path(&self, source: u32, below: &RelativePath) -> Result<RelativePath, Error> {
        let name = self.names.get(source as usize);
        name.map(|name| below.under(name))
            .ok_or(Error::Protocol("it sends something that was not named"))
    }
}
