//! What happens inside the destination: every step of a path is one `openat` that follows no link
//! (openat(2)).

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{
    FileStat, Mode, UtimensatFlags, fstat, fstatat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::name::Below;
use crate::wire::Time;

/// A directory, of whatever rights: only to start other steps from.
const STEP: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A directory that nothing done here leaves, by way of names or of links.
#[derive(Debug)]
pub(crate) struct Folder {
    top: Rc<OwnedFd>,
    /// The directory of the last path: files come by directories.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

/// Something in a directory that is open.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: Rc<OwnedFd>,
    name: Vec<u8>,
}

impl Folder {
    /// Opens it; links on this path are the user's own, and are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let top = openat(AT_FDCWD, path, STEP.difference(OFlag::O_NOFOLLOW), Mode::empty())?;
        Ok(Self { top: Rc::new(top), last: None })
    }

    /// Opens the directory that a path is in; an empty path is no place.
    pub(crate) fn place(&mut self, path: &Below) -> io::Result<Place> {
        let (parent, name) = path.split().ok_or(Errno::EINVAL)?;
        let directory = match &self.last {
            Some((known, directory)) if known == parent => directory.clone(),
            _ => {
                let mut directory = self.top.clone();
                for step in parent.split(|byte| *byte == b'/').filter(|step| !step.is_empty()) {
                    directory =
                        Rc::new(openat(&*directory, OsStr::from_bytes(step), STEP, Mode::empty())?);
                }
                self.last = Some((parent.to_vec(), directory.clone()));
                directory
            }
        };
        Ok(Place { directory, name: name.as_bytes().to_vec() })
    }
}

impl Place {
    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// Another name in the same directory.
    pub(crate) fn beside(&self, name: Vec<u8>) -> Self {
        Self { directory: self.directory.clone(), name }
    }

    pub(crate) fn name_bytes(&self) -> &[u8] {
        &self.name
    }

    /// What is there, itself and not what a link points to.
    pub(crate) fn look(&self) -> io::Result<Option<FileStat>> {
        match fstatat(&*self.directory, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file there, without following a link or waiting for the other end of a pipe.
    pub(crate) fn file(&self, flags: OFlag) -> io::Result<File> {
        let flags =
            flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let opened = openat(&*self.directory, self.name(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        Ok(File::from(opened?))
    }

    /// Gives the file that was found there its rights and its time, and no other that has taken its
    /// place since.
    pub(crate) fn dress_file(&self, found: &FileStat, mode: u16, modified: Time) -> io::Result<()> {
        let file = self.file(OFlag::O_RDONLY)?;
        let opened = fstat(&file)?;
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino) {
            return Err(io::Error::other("another file took its place meanwhile; copy it again"));
        }
        dress(&file, mode, modified)
    }

    /// Makes a directory, for nobody else yet.
    pub(crate) fn make_directory(&self) -> io::Result<()> {
        Ok(mkdirat(&*self.directory, self.name(), Mode::S_IRWXU)?)
    }

    /// Gives a directory its rights and its time.
    pub(crate) fn dress_directory(&self, mode: u16, modified: Time) -> io::Result<()> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = File::from(openat(&*self.directory, self.name(), flags, Mode::empty())?);
        dress(&directory, mode, modified)
    }

    /// Where a link points.
    pub(crate) fn link_target(&self) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&*self.directory, self.name())?.into_encoded_bytes())
    }

    /// Makes a link with its time.
    pub(crate) fn make_link(&self, target: &[u8], modified: Time) -> io::Result<()> {
        symlinkat(OsStr::from_bytes(target), &*self.directory, self.name())?;
        let [accessed, modified] = times(modified);
        let flag = UtimensatFlags::NoFollowSymlink;
        Ok(utimensat(self.directory.as_fd(), self.name(), &accessed, &modified, flag)?)
    }

    /// Puts this in the place of that, in one step.
    pub(crate) fn rename(&self, to: &Place) -> io::Result<()> {
        Ok(renameat(&*self.directory, self.name(), &*to.directory, to.name())?)
    }

    /// Removes what is there, if it is no directory.
    pub(crate) fn remove(&self) -> io::Result<()> {
        Ok(unlinkat(&*self.directory, self.name(), UnlinkatFlags::NoRemoveDir)?)
    }
}

/// Gives a file or directory its rights and its time. Others than the nine for reading, writing and
/// executing do not exist here: no set-user-ID bit ever arrives.
pub(crate) fn dress(file: &File, mode: u16, modified: Time) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(u32::from(mode & 0o777)))?;
    let [accessed, modified] = times(modified);
    Ok(futimens(file, &accessed, &modified)?)
}

/// The time of access stays as it is.
fn times(modified: Time) -> [TimeSpec; 2] {
    [TimeSpec::UTIME_OMIT, TimeSpec::new(modified.seconds, modified.nanoseconds.into())]
}

/// When something was modified.
pub(crate) fn modified(stat: &FileStat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}
