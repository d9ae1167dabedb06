//! The fix: send the rest until there is none.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{TOTAL, small_pair, text};
use crate::flow::Flow;
use crate::sockets::{IO_TIMEOUT, joined};
use crate::stage::{LessonResult, Stage};

pub(super) fn run(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene(text::SEND_ALL)?;
    let (sender, receiver) = small_pair()?;
    sender.set_nonblocking(true)?;
    let flow = Flow::new(text::CAREFUL_FLOW);
    flow.message(text::LINES);
    // The first send before the receiver reads, so that it takes only a part.
    let taken = flow.writer(&sender).write(data)?;
    let mut waits = 0;
    let received = while_received(&sender, receiver, || {
        waits = send_all(&sender, &data[taken..], &flow)?;
        Ok(())
    })?;
    let calls = flow.record().steps.len();
    stage.say(text::sends_and_waits(calls, waits))?;
    stage.fact(calls > 1 && received == data, text::all_arrived(TOTAL))?;

    let (sender, receiver) = small_pair()?;
    let received = while_received(&sender, receiver, || (&sender).write_all(data))?;
    stage.fact(received == data, text::WRITE_ALL)
}

/// This loop is sendall; in Rust it is called write_all. Returns how often it waited.
fn send_all(sender: &TcpStream, mut rest: &[u8], flow: &Flow) -> io::Result<usize> {
    let mut waits = 0;
    while !rest.is_empty() {
        match flow.writer(sender).write(rest) {
            Ok(taken) => rest = &rest[taken..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                waits += 1;
                wait_for_room(sender)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(waits)
}

/// Sends while another thread receives; returns everything that it received.
fn while_received(
    sender: &TcpStream,
    mut receiver: TcpStream,
    send: impl FnOnce() -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let mut received = Vec::new();
            receiver.read_to_end(&mut received).map(|_| received)
        });
        let sent = send();
        sender.shutdown(Shutdown::Write)?; // The end of the stream, for the receiver.
        let received = joined(receiving.join())??;
        sent.map(|()| received)
    })
}

/// Waits until the send buffer has room (poll(2)).
pub(super) fn wait_for_room(socket: &TcpStream) -> io::Result<()> {
    let timeout = PollTimeout::try_from(IO_TIMEOUT).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], timeout)? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
