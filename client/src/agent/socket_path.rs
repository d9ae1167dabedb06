//! Where the agent is met: a directory that is this user's alone, with a socket and a lock.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};

/// Why the agent cannot be met there.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Somebody else may write there, or it is no directory.
    #[error(
        "{} must be a directory of this user with mode 0700, and no link; remove it, or set \
         XDG_RUNTIME_DIR",
        .0.display()
    )]
    Unsafe(PathBuf),
    /// The peer is somebody else.
    #[error("{} is served by user {owner}; remove it, or set XDG_RUNTIME_DIR", path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Who serves it.
        owner: u32,
    },
    /// The system does not let us; also where no agent runs.
    #[error("{}: {cause}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The variable that names what a login session may keep, and loses with its last process.
pub(super) const RUNTIME: &str = "XDG_RUNTIME_DIR";

/// Whether this process belongs to a service of systemd's (cgroups(7)): at its end everything in it
/// is killed, which a process that others use should not be.
pub fn in_a_service() -> bool {
    fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| names_a_service(&groups))
}

fn names_a_service(groups: &str) -> bool {
    groups.lines().any(|line| line.ends_with(".service"))
}

/// The directory of a user's agent.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// `$XDG_RUNTIME_DIR/labsh`: what a login session has, and cron(8), a service or a container
    /// has not. A directory that is somebody else's (su(1) can leave such a one set) does not
    /// count.
    pub fn of_login() -> Option<Self> {
        let runtime =
            std::env::var_os(RUNTIME).map(PathBuf::from).filter(|path| path.is_absolute())?;
        let about = fs::metadata(&runtime).ok()?;
        let ours =
            about.is_dir() && about.uid() == Uid::effective().as_raw() && about.mode() & 0o022 == 0;
        ours.then(|| Self(runtime.join("labsh")))
    }

    /// The same, or `/tmp/labsh-UID` without a login session.
    pub fn of_user() -> Self {
        Self::of_login()
            .unwrap_or_else(|| Self(PathBuf::from(format!("/tmp/labsh-{}", Uid::effective()))))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// The directory must be ours alone: what is in it can then be nobody else's.
    fn check(&self) -> Result<(), PlaceError> {
        let about = fs::symlink_metadata(&self.0).map_err(system(&self.0))?;
        let ours = about.uid() == Uid::effective().as_raw() && about.mode() & 0o077 == 0;
        if about.is_dir() && ours { Ok(()) } else { Err(PlaceError::Unsafe(self.0.clone())) }
    }

    /// Connects to the agent that runs there.
    pub(super) async fn connect(&self) -> Result<UnixStream, PlaceError> {
        self.check()?;
        let path = self.socket();
        let stream = UnixStream::connect(&path).await.map_err(system(&path))?;
        let owner = stream.peer_cred().map_err(system(&path))?.uid();
        if owner != Uid::effective().as_raw() {
            return Err(PlaceError::Stranger { path, owner });
        }
        Ok(stream)
    }

    /// Listens there; `None` where another agent does. A socket that a killed one left behind is
    /// replaced.
    pub(super) fn listen(&self) -> Result<Option<(UnixListener, Held)>, PlaceError> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                return Err(system(&self.0)(cause));
            }
            _ => self.check()?,
        }
        let lock_path = self.0.join("agent.lock");
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
        // The lock is ours, so nobody serves what lies there.
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(system(&path)(cause));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(system(&path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(system(&path))?;
        Ok(Some((listener, Held { socket: path, lock_path, lock })))
    }
}

/// Holds the place; the socket goes before the lock does.
#[derive(Debug)]
pub(super) struct Held {
    socket: PathBuf,
    lock_path: PathBuf,
    lock: Flock<File>,
}

impl Held {
    /// Whether what lies there is still ours: the directory may have been removed (with the login
    /// session), and another agent have made it anew.
    pub(super) fn is_ours(&self) -> bool {
        let identity = |about: fs::Metadata| (about.dev(), about.ino());
        let (held, there) =
            (self.lock.metadata().map(identity), fs::metadata(&self.lock_path).map(identity));
        matches!((held, there), (Ok(held), Ok(there)) if held == there)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Left behind, it would only be found dead and replaced.
        if self.is_ours() {
            let _ = fs::remove_file(&self.socket);
        }
    }
}

fn system(path: &Path) -> impl Fn(io::Error) -> PlaceError + use<> {
    let path = path.to_owned();
    move |cause| PlaceError::System { path: path.clone(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_from_a_login_session() {
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
