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
        "{} must be a directory of this user with mode 0700, and no link; remove it, or set XDG_RUNTIME_DIR",
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

/// The directory of a user's agent.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// `$XDG_RUNTIME_DIR/labsh`, or `/tmp/labsh-UID` where that is not set.
    pub fn of_user() -> Self {
        let runtime =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let fallback = || PathBuf::from(format!("/tmp/labsh-{}", Uid::effective()));
        Self(runtime.map_or_else(fallback, |path| path.join("labsh")))
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

    /// Listens there; `None` where another agent does. A socket that a killed one left behind is replaced.
    pub(super) fn listen(&self) -> Result<Option<(UnixListener, Held)>, PlaceError> {
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(system(&self.0)(cause)),
            _ => self.check()?,
        }
        let path = self.0.join("agent.lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = match Flock::lock(lock.map_err(system(&path))?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, cause)) => return Err(system(&path)(cause.into())),
        };
        let path = self.socket();
        // The lock is ours, so nobody serves what lies there.
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(system(&path)(cause)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(system(&path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(system(&path))?;
        Ok(Some((listener, Held { socket: path, _lock: lock })))
    }
}

/// Holds the place; the socket goes before the lock does.
#[derive(Debug)]
pub(super) struct Held {
    socket: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Left behind, it would only be found dead and replaced.
        let _ = fs::remove_file(&self.socket);
    }
}

fn system(path: &Path) -> impl Fn(io::Error) -> PlaceError + use<> {
    let path = path.to_owned();
    move |cause| PlaceError::System { path: path.clone(), cause }
}
