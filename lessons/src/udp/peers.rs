//! Who sent a datagram: recvfrom() says it, and connect() admits only one peer.

use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;

use nix::sys::socket::{SockaddrIn, recvfrom};

use super::text;
use crate::sockets::{pair, udp_socket};
use crate::stage::{LessonResult, Stage};

pub(super) fn recv_and_recvfrom(stage: &mut Stage) -> LessonResult {
    stage.scene(text::RECV_AND_RECVFROM)?;
    stage.say(text::ONE_SOCKET)?;
    let (server, friend, stranger) = (udp_socket()?, udp_socket()?, udp_socket()?);
    let mut buffer = [0; 1024];
    friend.send_to(b"hello", server.local_addr()?)?;
    let (_, from) = server.recv_from(&mut buffer)?;
    stage.fact(from == friend.local_addr()?, text::recvfrom_names_sender(from))?;

    // On a UDP socket connect() sends nothing: the kernel only notes the peer and refuses others.
    server.connect(from)?;
    stranger.connect(server.local_addr()?)?;
    stranger.send(b"let me in")?;
    let refused = stranger.recv(&mut buffer);
    stage.fact(
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
        text::STRANGER_REFUSED,
    )?;
    stage.notice(text::ERROR_COMES_LATER)?;

    friend.send_to(b"it is me", server.local_addr()?)?;
    let count = server.recv(&mut buffer)?;
    let greeting = buffer[..count].to_vec();
    server.send(b"welcome")?;
    let count = friend.recv(&mut buffer)?;
    stage.fact(
        greeting == b"it is me" && &buffer[..count] == b"welcome",
        text::SEND_AND_RECV_SUFFICE,
    )?;

    let (mut client, accepted) = pair()?;
    client.write_all(b"hello")?;
    let (_, from) = recvfrom::<SockaddrIn>(accepted.as_raw_fd(), &mut buffer)?;
    stage.fact(from.is_none(), text::RECVFROM_ON_TCP)
}
