//! The permissions of a socket's file decide who may connect.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use nix::unistd::{Uid, geteuid, setfsuid};

use super::text;
use crate::sockets::joined;
use crate::stage::{LessonResult, Stage};

/// The user that owns no files.
const UNPRIVILEGED: u32 = 65534;

pub(super) fn run(stage: &mut Stage, path: &Path) -> LessonResult {
    stage.scene(text::PERMISSIONS)?;
    // Permissions do not bind root: its client accesses files as an unprivileged user.
    let root = geteuid().is_root();
    if root && !thread::scope(|scope| scope.spawn(drop_file_privileges).join().unwrap_or(false)) {
        return stage.say(text::ROOT_ONLY);
    }
    let (closed, open) = if root { (0o600, 0o666) } else { (0o000, 0o600) };
    stage.say(text::chmod_between(root))?;
    fs::set_permissions(path, Permissions::from_mode(closed))?;
    let refused = connect(path, root);
    fs::set_permissions(path, Permissions::from_mode(open))?;
    let admitted = connect(path, root);
    stage.fact(
        refused.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied),
        text::refused(closed, root),
    )?;
    stage.fact(admitted.is_ok(), text::admitted(open))
}

/// Connects in a thread of its own, as an unprivileged user if this is root.
fn connect(path: &Path, root: bool) -> io::Result<UnixStream> {
    thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            if root && !drop_file_privileges() {
                return Err(io::Error::other("this thread cannot drop root's privileges"));
            }
            UnixStream::connect(path)
        });
        joined(connecting.join())?
    })
}

/// Lets this thread access files as an unprivileged user (setfsuid(2)); returns whether it does.
fn drop_file_privileges() -> bool {
    let user = Uid::from_raw(UNPRIVILEGED);
    setfsuid(user);
    // With an invalid user setfsuid() changes nothing and returns the current one.
    setfsuid(Uid::from_raw(u32::MAX)) == user
}
