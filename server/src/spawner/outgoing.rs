//! A reply of the spawner on its way to labshd, with the descriptors that accompany it.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// A reply that is not fully sent. The descriptors accompany its first byte.
pub(super) struct OutgoingReply {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl OutgoingReply {
    /// Sends as much as the socket accepts.
    pub(super) fn send(&mut self, socket: &OwnedFd) -> nix::Result<()> {
        let numbers: Vec<_> = self.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = (!numbers.is_empty()).then_some(ControlMessage::ScmRights(&numbers));
        let bytes = [IoSlice::new(&self.bytes[self.sent..])];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        self.sent += sendmsg::<()>(socket.as_raw_fd(), &bytes, rights.as_slice(), flags, None)?;
        self.descriptors.clear();
        Ok(())
    }
}
