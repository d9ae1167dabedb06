//! Sets permissions and modification times, and reports which of them could not be set.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, fstat, futimens, utimensat};
use nix::sys::time::TimeSpec;

use crate::wire::Time;
use crate::{ReceiveOptions, os_error_text};

/// When a file or directory at the destination was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// Before this transfer.
    Before,
    /// By this transfer.
    Now,
}

/// What to set on a file or directory; `None` stays as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metadata {
    /// The nine permission bits.
    pub(crate) mode: Option<u16>,
    /// The modification time.
    pub(crate) modified: Option<Time>,
    /// Whether set-user-ID, set-group-ID and sticky bits stay; otherwise they are cleared with the
    /// mode.
    pub(crate) keep_special_bits: bool,
}

impl Metadata {
    /// Returns whether a file or directory has these metadata.
    pub(crate) fn are_those_of(&self, found: &FileStat) -> bool {
        let special_bits = if self.keep_special_bits { 0 } else { found.st_mode & 0o7000 };
        let same_mode = |mode| found.st_mode & 0o777 == u32::from(mode) && special_bits == 0;
        self.mode.is_none_or(same_mode) && self.modified.is_none_or(|time| time == modified(found))
    }

    /// Sets what differs.
    ///
    /// # Errors
    ///
    /// Errors of the disk. What this user or this file system may not set is returned instead.
    pub(crate) fn set(&self, file: BorrowedFd<'_>, access: Access) -> io::Result<NotSet> {
        let found = fstat(file)?;
        let mut not_set = NotSet::default();
        if let Some(mode) = self.mode {
            let special_bits = if self.keep_special_bits { found.st_mode & 0o7000 } else { 0 };
            let mode = special_bits | u32::from(mode & 0o777);
            if found.st_mode & 0o7777 != mode {
                not_set.permissions = denied(set_mode(file, access, mode))?;
            }
        }
        if let Some(time) = self.modified.filter(|time| modified(&found) != *time) {
            not_set.time = denied(set_modified(file, access, time))?;
        }
        Ok(not_set)
    }
}

/// Which metadata a transfer sets.
#[derive(Debug)]
pub(crate) struct MetadataPolicy {
    options: ReceiveOptions,
    /// The permissions that new files and directories do not get if permissions are not preserved.
    umask: u16,
}

impl MetadataPolicy {
    pub(crate) fn new(options: ReceiveOptions) -> Self {
        Self { options, umask: if options.no_permissions { umask() } else { 0 } }
    }

    /// Returns what is set on an unchanged file, or on a directory.
    pub(crate) fn metadata(&self, mode: u16, modified: Time, made: Made) -> Metadata {
        let mode = match (self.options.no_permissions, made) {
            (false, _) => Some(mode),
            (true, Made::Before) => None,
            (true, Made::Now) => Some(mode & !self.umask),
        };
        let keep_special_bits = made == Made::Before || self.options.no_permissions;
        Metadata { mode, modified: self.time(modified), keep_special_bits }
    }

    /// Returns what is set on a file that was received, and that takes the place of one with these
    /// permissions. It has no special bits.
    pub(crate) fn metadata_of_new_file(
        &self,
        mode: u16,
        modified: Time,
        replaced: Option<u16>,
    ) -> Metadata {
        let mode = match self.options.no_permissions {
            false => mode,
            true => replaced.unwrap_or(mode & !self.umask),
        };
        Metadata { mode: Some(mode), modified: self.time(modified), keep_special_bits: false }
    }

    /// Returns the modification time to set.
    pub(crate) fn time(&self, modified: Time) -> Option<Time> {
        (!self.options.no_times).then_some(modified)
    }
}

/// What could not be set, with the reason.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct NotSet {
    permissions: Option<io::Error>,
    time: Option<io::Error>,
}

impl NotSet {
    /// Returns a remark for the user; `None` if everything was set.
    pub(crate) fn remark(&self) -> Option<String> {
        let (what, error, option) = match (&self.permissions, &self.time) {
            (None, None) => return None,
            (Some(error), Some(_)) => ("permissions and time stay", error, "--no-perms --no-times"),
            (Some(error), None) => ("permissions stay", error, "--no-perms"),
            (None, Some(error)) => ("time stays", error, "--no-times"),
        };
        let it = if self.permissions.is_some() { "they are" } else { "it is" };
        Some(format!(
            "at the destination, its {what} as {it} ({}); this is reported once, and with {option} \
             not at all",
            os_error_text(error)
        ))
    }
}

/// Separates what may not be set here from other errors.
pub(crate) fn denied(outcome: io::Result<()>) -> io::Result<Option<io::Error>> {
    let Err(error) = outcome else { return Ok(None) };
    match error.raw_os_error().map(Errno::from_raw) {
        // Another user owns it, or the file system does not have such metadata.
        Some(Errno::EPERM | Errno::EACCES | Errno::EROFS | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            Ok(Some(error))
        }
        _ => Err(error),
    }
}

/// How a file was opened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// For reading or writing.
    Full,
    /// With O_PATH, because its permissions do not let it be read.
    PathOnly,
}

/// A file or directory whose metadata can be set.
#[derive(Debug)]
pub(crate) struct MetadataHandle {
    pub(crate) file: OwnedFd,
    pub(crate) access: Access,
}

impl MetadataHandle {
    pub(crate) fn stat(&self) -> io::Result<FileStat> {
        Ok(fstat(&self.file)?)
    }

    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        set_mode(self.file.as_fd(), self.access, mode)
    }

    /// Sets what differs; see [`Metadata::set`].
    pub(crate) fn set(&self, metadata: Metadata) -> io::Result<NotSet> {
        metadata.set(self.file.as_fd(), self.access)
    }
}

fn set_mode(file: BorrowedFd<'_>, access: Access, mode: u32) -> io::Result<()> {
    match access {
        Access::Full => Ok(fchmod(file, Mode::from_bits_truncate(mode))?),
        Access::PathOnly => fs::set_permissions(path_of(file), Permissions::from_mode(mode)),
    }
}

fn set_modified(file: BorrowedFd<'_>, access: Access, time: Time) -> io::Result<()> {
    let [accessed, modified] = times(time);
    match access {
        Access::Full => futimens(file, &accessed, &modified)?,
        Access::PathOnly => {
            let flag = UtimensatFlags::FollowSymlink;
            utimensat(AT_FDCWD, &path_of(file), &accessed, &modified, flag)?;
        }
    }
    Ok(())
}

/// Returns the path by which the kernel reaches an open file (proc_pid_fd(5)): fchmod(2) and
/// futimens(3) refuse one that was opened with O_PATH.
fn path_of(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Returns the times for utimensat(2), which leave the access time unchanged.
pub(crate) fn times(modified: Time) -> [TimeSpec; 2] {
    [TimeSpec::UTIME_OMIT, TimeSpec::new(modified.seconds, modified.nanoseconds.into())]
}

/// Returns the modification time.
pub(crate) fn modified(stat: &FileStat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// Returns the permissions that this process's umask removes from a new file (umask(2)). The call
/// of that name cannot only read it.
fn umask() -> u16 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let digits = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    digits.and_then(|digits| u16::from_str_radix(digits.trim(), 8).ok()).unwrap_or(0o077)
}
