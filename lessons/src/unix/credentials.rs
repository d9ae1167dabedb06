//! A shell at the other end of a socket, and the credentials that the kernel reports for it.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::cmsg_space;
use nix::sys::socket::sockopt::{PassCred, PeerCredentials};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, getsockopt, recvmsg, setsockopt,
};
use nix::unistd::geteuid;
use socket2::SockRef;

use super::text;
use crate::sockets::IO_TIMEOUT;
use crate::stage::{LessonResult, Stage};

/// A process that is killed and reaped, however the lesson ends.
pub(super) struct Reaped(pub(super) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill(); // An error means that it has ended by itself.
        let _ = self.0.wait();
    }
}

/// Starts `/bin/sh` with a script.
pub(super) fn shell(
    script: &str,
    stdin: impl Into<Stdio>,
    stdout: impl Into<Stdio>,
) -> io::Result<Reaped> {
    Ok(Reaped(Command::new("/bin/sh").args(["-c", script]).stdin(stdin).stdout(stdout).spawn()?))
}

/// Prepares a socket for [`receive`]: sets a time limit, and makes the kernel add the writer's
/// credentials to everything that arrives.
pub(super) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_read_timeout(Some(IO_TIMEOUT))?;
    Ok(setsockopt(socket, PassCred, &true)?)
}

/// Calls recvmsg() once; returns the bytes, and who wrote them. The kernel fills in the writer,
/// which cannot lie (SCM_CREDENTIALS, unix(7)).
pub(super) fn receive(socket: &impl AsFd) -> io::Result<(Vec<u8>, Option<UnixCredentials>)> {
    let mut buffer = [0; 256];
    let mut space = cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let writer = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(writer) => Some(writer),
        _ => None,
    });
    let count = message.bytes;
    Ok((buffer[..count].to_vec(), writer))
}

pub(super) fn is_process(credentials: Option<UnixCredentials>, id: u32) -> bool {
    credentials.is_some_and(|credentials| u32::try_from(credentials.pid()) == Ok(id))
}

/// Shows which process connected, and which one wrote: `shell` got its socket from this process.
pub(super) fn show(
    stage: &mut Stage,
    server: &UnixStream,
    writer: Option<UnixCredentials>,
    shell: u32,
) -> LessonResult {
    let connected = getsockopt(server, PeerCredentials)?;
    let own = std::process::id();
    stage.say(text::two_processes(own, shell))?;
    stage.fact(
        is_process(Some(connected), own) && connected.uid() == geteuid().as_raw(),
        text::peer_credentials(connected.pid(), connected.uid()),
    )?;
    stage.fact(is_process(writer, shell), text::writer_credentials(shell))
}
