//! Resolves the path that files are copied to.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, fstat, lstat};

use crate::confined_dir::{ConfinedDir, DirEntry};
use crate::metadata::Made;
use crate::name::{Name, Placement, RelativePath};
use crate::{Error, os_error_text};

/// The directory that files are copied into, and their names there.
#[derive(Debug)]
pub struct Destination {
    pub(crate) directory: ConfinedDir,
    /// When the directory was created.
    pub(crate) made: Made,
    names: Vec<Placement>,
}

impl Destination {
    /// Resolves a path as cp(1) does: into the directory if it exists, otherwise, for a single
    /// source, to a file or directory of that name.
    ///
    /// A path that ends in `/`, or that several sources or the contents of a directory are copied
    /// to, is created as a directory if it does not exist. Links in the path are followed, the last
    /// one too: the user has named it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the path, if it cannot be opened or created.
    pub fn resolve(path: &[u8], names: Vec<Placement>) -> Result<Self, Error> {
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
            return Ok(Self { directory: open(&path)?, made: Made::Before, names });
        }
        let only_contents = names[..] == [Placement::Contents];
        if names.len() != 1 || only_contents || shown.ends_with('/') {
            let mut made = Made::Now;
            // As the copy of a directory, it gets its mode at the end.
            let mode = if only_contents { 0o700 } else { 0o777 };
            match DirBuilder::new().mode(mode).create(&path) {
                // Another copy may have created it since.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.is_dir() => {
                    return Err(Error::Refused(format!("{shown}: it is not a directory")));
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(refused(error));
                }
                Err(_) => made = Made::Before,
                Ok(()) => {}
            }
            return Ok(Self { directory: open(&path)?, made, names });
        }
        let path = match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => target_of_link(&path).map_err(refused)?,
            _ => path,
        };
        let name = path.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
        let name =
            name.ok_or_else(|| Error::Refused(format!("{shown}: there is no such directory")))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Self { directory: open(parent)?, made: Made::Before, names: vec![name.into()] })
    }

    /// Opens the parent directory of an announced path.
    ///
    /// # Errors
    ///
    /// If the path is in the contents of a directory, and another source goes there by its name:
    /// one would replace the other.
    pub(crate) fn entry(&mut self, source: u32, path: &RelativePath) -> io::Result<DirEntry> {
        let is_name = |name: &Placement| name.as_bytes() == path.as_bytes();
        let in_contents = self.names.get(source as usize) == Some(&Placement::Contents);
        if in_contents && self.names.iter().any(is_name) {
            return Err(io::Error::other(
                "another file of this copy has the same name; copy them one after the other",
            ));
        }
        self.directory.entry(path)
    }

    /// Returns the path, inside the directory, of a path below a source.
    pub(crate) fn path(&self, source: u32, below: &RelativePath) -> Result<RelativePath, Error> {
        let name = self.names.get(source as usize);
        match name.ok_or(Error::Protocol("it sends something that was not named"))? {
            Placement::Named(name) => Ok(below.under(name)),
            Placement::Contents => Ok(below.clone()),
        }
    }
}

/// Returns the path of the file that a link leads to: the file is replaced there, and the link
/// stays.
fn target_of_link(link: &Path) -> io::Result<PathBuf> {
    // The kernel follows the link, so that its protection of directories such as /tmp applies
    // (protected_symlinks in proc_sys_fs(5)).
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let file = openat(AT_FDCWD, link, flags, Mode::empty()).map_err(|error| match error {
        Errno::ENOENT => io::Error::other(
            "it is a symbolic link that leads nowhere; remove it, or name what it should lead to",
        ),
        error => error.into(),
    })?;
    let target = link.canonicalize()?;
    let (opened, found) = (fstat(&file)?, lstat(&target)?);
    let same = (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino);
    if same {
        Ok(target)
    } else {
        Err(io::Error::other("the link changes right now; copy it again"))
    }
}
