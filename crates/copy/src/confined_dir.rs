//! Operations on files inside a directory. Every component of a path is opened by openat(2) without
//! following links, so that no path can lead out of the directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fstatat, mkdirat, utimensat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, symlinkat, unlinkat};

use crate::metadata::{Access, MetadataHandle, denied, times};
use crate::name::RelativePath;
use crate::wire::Time;

/// The flags for a directory in a path: O_PATH needs no permission to read it.
const DIRECTORY_FLAGS: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A directory that no operation leaves.
#[derive(Debug)]
pub(crate) struct ConfinedDir {
    top: Rc<OwnedFd>,
    /// The parent directory of the last path; the next path often has the same one.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

/// A name in an open directory; the file need not exist.
#[derive(Debug, Clone)]
pub(crate) struct DirEntry {
    directory: Rc<OwnedFd>,
    name: Vec<u8>,
}

impl ConfinedDir {
    /// Opens a directory. Links in this path are followed: the user has named it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let top =
            openat(AT_FDCWD, path, DIRECTORY_FLAGS.difference(OFlag::O_NOFOLLOW), Mode::empty())?;
        Ok(Self { top: Rc::new(top), last: None })
    }

    /// Opens the directory itself, to set its metadata.
    pub(crate) fn metadata_handle(&self) -> io::Result<MetadataHandle> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let file = openat(&*self.top, ".", flags, Mode::empty())?;
        Ok(MetadataHandle { file, access: Access::Full })
    }

    /// Opens the parent directory of a path. The empty path has none.
    pub(crate) fn entry(&mut self, path: &RelativePath) -> io::Result<DirEntry> {
        let (parent, name) = path.split().ok_or(Errno::EINVAL)?;
        let directory = match &self.last {
            Some((known, directory)) if known == parent => directory.clone(),
            _ => {
                let mut directory = self.top.clone();
                for component in parent.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
                {
                    directory = Rc::new(openat(
                        &*directory,
                        OsStr::from_bytes(component),
                        DIRECTORY_FLAGS,
                        Mode::empty(),
                    )?);
                }
                self.last = Some((parent.to_vec(), directory.clone()));
                directory
            }
        };
        Ok(DirEntry { directory, name: name.as_bytes().to_vec() })
    }
}

impl DirEntry {
    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// Returns another name in the same directory.
    pub(crate) fn sibling(&self, name: Vec<u8>) -> Self {
        Self { directory: self.directory.clone(), name }
    }

    pub(crate) fn name_bytes(&self) -> &[u8] {
        &self.name
    }

    /// Returns the metadata of the file, or of the link itself; `None` if it does not exist.
    pub(crate) fn stat(&self) -> io::Result<Option<FileStat>> {
        match fstatat(&*self.directory, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the file without following a link, and without waiting for the other end of a pipe.
    pub(crate) fn open(&self, flags: OFlag) -> io::Result<File> {
        let flags =
            flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let opened = openat(&*self.directory, self.name(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        Ok(File::from(opened?))
    }

    /// Opens the file that `found` describes, to set its metadata.
    ///
    /// # Errors
    ///
    /// If another file has replaced it since.
    pub(crate) fn metadata_handle(&self, found: &FileStat) -> io::Result<MetadataHandle> {
        let handle = self.open_for_metadata(OFlag::empty())?;
        let opened = handle.stat()?;
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino) {
            return Err(io::Error::other("another file has replaced it meanwhile; copy it again"));
        }
        Ok(handle)
    }

    /// Opens a directory, to set its metadata.
    pub(crate) fn directory_metadata_handle(&self) -> io::Result<MetadataHandle> {
        self.open_for_metadata(OFlag::O_DIRECTORY)
    }

    fn open_for_metadata(&self, flags: OFlag) -> io::Result<MetadataHandle> {
        match self.open(flags | OFlag::O_RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let flags = flags | OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let opened = openat(&*self.directory, self.name(), flags, Mode::empty());
                Ok(MetadataHandle { file: opened?, access: Access::PathOnly })
            }
            opened => Ok(MetadataHandle { file: opened?.into(), access: Access::Full }),
        }
    }

    /// Returns whether this process may create files in the directory of this name.
    pub(crate) fn is_writable_directory(&self) -> bool {
        let access = AccessFlags::W_OK | AccessFlags::X_OK;
        faccessat(&*self.directory, self.name(), access, AtFlags::AT_EACCESS).is_ok()
    }

    /// Creates a directory that only its owner can access.
    pub(crate) fn make_directory(&self) -> io::Result<()> {
        Ok(mkdirat(&*self.directory, self.name(), Mode::S_IRWXU)?)
    }

    /// Returns the target of a symbolic link.
    pub(crate) fn link_target(&self) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&*self.directory, self.name())?.into_encoded_bytes())
    }

    /// Creates a symbolic link and sets its time, if the file system has times of links.
    pub(crate) fn make_link(&self, target: &[u8], modified: Option<Time>) -> io::Result<()> {
        symlinkat(OsStr::from_bytes(target), &*self.directory, self.name())?;
        let Some(modified) = modified else { return Ok(()) };
        let [accessed, modified] = times(modified);
        let flag = UtimensatFlags::NoFollowSymlink;
        let set = utimensat(self.directory.as_fd(), self.name(), &accessed, &modified, flag);
        denied(set.map_err(io::Error::from)).map(drop)
    }

    /// Renames the file, which atomically replaces `to`.
    pub(crate) fn rename(&self, to: &DirEntry) -> io::Result<()> {
        Ok(renameat(&*self.directory, self.name(), &*to.directory, to.name())?)
    }

    /// Removes a file that is not a directory.
    pub(crate) fn remove(&self) -> io::Result<()> {
        Ok(unlinkat(&*self.directory, self.name(), UnlinkatFlags::NoRemoveDir)?)
    }
}
