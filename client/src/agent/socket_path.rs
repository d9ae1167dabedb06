//! The agent's socket: in a directory that only this user can enter, with a lock beside it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};

/// Why the agent's socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another user could write to the directory, or it is not a directory.
    #[error(
        "{} must be a directory of this user with mode 0700, not a link; remove it, or set \
         XDG_RUNTIME_DIR",
        .0.display()
    )]
    Unsafe(PathBuf),
    /// The socket is another user's.
    #[error("{} is served by user {owner}; remove it, or set XDG_RUNTIME_DIR", path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// The user id of the process that serves it.
        owner: u32,
    },
    /// A system call failed. This is also the error if no agent runs.
    #[error("{}: {cause}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
}

/// The environment variable with the directory that lasts as long as a user is logged in.
pub(super) const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

/// Whether this process belongs to a service of systemd (cgroups(7)). When the service stops,
/// systemd kills every process in it, and so would kill an agent that other processes use.
pub fn in_a_service() -> bool {
    fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| names_a_service(&groups))
}

fn names_a_service(groups: &str) -> bool {
    groups.lines().any(|line| line.ends_with(".service"))
}

/// The path of a user's agent's socket.
#[derive(Debug, Clone)]
pub struct SocketPath {
    directory: PathBuf,
}

impl SocketPath {
    /// Returns the path in `$XDG_RUNTIME_DIR/labsh`. A login session has this variable; cron(8), a
    /// service or a container does not. A directory of another user's, as su(1) can leave it in the
    /// environment, is ignored.
    pub fn of_login() -> Option<Self> {
        let runtime =
            std::env::var_os(RUNTIME_DIR).map(PathBuf::from).filter(|path| path.is_absolute())?;
        let metadata = fs::metadata(&runtime).ok()?;
        let is_private = metadata.is_dir()
            && metadata.uid() == Uid::effective().as_raw()
            && metadata.mode() & 0o022 == 0;
        is_private.then(|| Self { directory: runtime.join("labsh") })
    }

    /// Returns the path of [`Self::of_login`], or without a login session the path in
    /// `/tmp/labsh-UID`.
    pub fn of_user() -> Self {
        let in_tmp = || PathBuf::from(format!("/tmp/labsh-{}", Uid::effective()));
        Self::of_login().unwrap_or_else(|| Self { directory: in_tmp() })
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// Checks that no other user can create files in the directory.
    fn check_directory(&self) -> Result<(), SocketError> {
        let directory = &self.directory;
        let metadata = fs::symlink_metadata(directory).map_err(system(directory))?;
        let is_private =
            metadata.uid() == Uid::effective().as_raw() && metadata.mode() & 0o077 == 0;
        if metadata.is_dir() && is_private {
            Ok(())
        } else {
            Err(SocketError::Unsafe(directory.clone()))
        }
    }

    /// Connects to the agent.
    pub(super) async fn connect(&self) -> Result<UnixStream, SocketError> {
        self.check_directory()?;
        let path = self.socket();
        let stream = UnixStream::connect(&path).await.map_err(system(&path))?;
        let owner = stream.peer_cred().map_err(system(&path))?.uid();
        if owner != Uid::effective().as_raw() {
            return Err(SocketError::Stranger { path, owner });
        }
        Ok(stream)
    }

    /// Listens on the socket, or returns `None` if another agent does. A socket that a killed agent
    /// left behind is replaced.
    pub(super) fn listen(&self) -> Result<Option<(UnixListener, SocketLock)>, SocketError> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(system(&self.directory)(cause));
            }
            _ => self.check_directory()?,
        }
        let lock_path = self.directory.join("agent.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path);
        let lock =
            match Flock::lock(lock.map_err(system(&lock_path))?, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, cause)) => return Err(system(&lock_path)(cause.into())),
            };
        let path = self.socket();
        // While this process holds the lock, no other process serves the socket.
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(system(&path)(cause));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(system(&path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(system(&path))?;
        Ok(Some((listener, SocketLock { socket: path, lock_path, lock })))
    }
}

/// Holds the lock. Dropping it removes the socket, and then releases the lock.
#[derive(Debug)]
pub(super) struct SocketLock {
    socket: PathBuf,
    lock_path: PathBuf,
    lock: Flock<File>,
}

impl SocketLock {
    /// Whether the lock file in the directory is still the one that is locked. The directory may
    /// have been removed at the end of a login session, and created again by another agent.
    pub(super) fn is_current(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let locked = self.lock.metadata().map(identity);
        let current = fs::metadata(&self.lock_path).map(identity);
        matches!((locked, current), (Ok(locked), Ok(current)) if locked == current)
    }
}

impl Drop for SocketLock {
    fn drop(&mut self) {
        if self.is_current() {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

fn system(path: &Path) -> impl Fn(io::Error) -> SocketError + use<> {
    let path = path.to_owned();
    move |cause| SocketError::System { path: path.clone(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_distinguished_from_a_login_session() {
        for service in [
            "0::/system.slice/cron.service\n",
            "2:cpu:/\n1:name=systemd:/system.slice/job.service\n0::/\n",
        ] {
            assert!(names_a_service(service), "{service}");
        }
        for session in [
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n",
            "0::/\n",
            "",
        ] {
            assert!(!names_a_service(session), "{session}");
        }
    }
}
