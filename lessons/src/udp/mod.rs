//! UDP: datagrams keep their boundaries, but may be truncated, lost and reordered.

mod delivery;
mod peers;
mod text;

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};

use crate::flow::{Carrier, Flow};
use crate::language::Text;
use crate::sockets::{pair, queued, udp_socket, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    boundaries(stage)?;
    truncation(stage)?;
    peers::recv_and_recvfrom(stage)?;
    delivery::loss(stage)?;
    delivery::order(stage)
}

fn send(
    socket: &UdpSocket,
    to: &UdpSocket,
    flow: &Flow,
    label: impl Into<Text>,
    bytes: &[u8],
) -> LessonResult {
    flow.message(label);
    socket.send_to(bytes, to.local_addr()?)?;
    flow.wrote(bytes);
    Ok(())
}

/// Calls recvfrom() once. `index_of` returns which message of the flow the bytes are, or begin.
fn receive(
    socket: &UdpSocket,
    flow: &Flow,
    buffer_size: usize,
    index_of: impl Fn(&[u8]) -> Option<usize>,
) -> Result<Vec<u8>, LessonError> {
    let mut buffer = vec![0; buffer_size];
    let (count, _from) = socket.recv_from(&mut buffer)?;
    buffer.truncate(count);
    let index = index_of(&buffer).ok_or_else(|| LessonError::NotShown(text::ONLY_SENT.into()))?;
    flow.received(index, &buffer);
    Ok(buffer)
}

fn boundaries(stage: &mut Stage) -> LessonResult {
    stage.scene(text::BOUNDARIES)?;
    stage.say(text::THREE_MESSAGES)?;
    let messages = ["PING", "a longer message", "BYE"];
    let (sender, receiver) = (udp_socket()?, udp_socket()?);
    let flow = Flow::over(Carrier::Udp, "UDP");
    for message in messages {
        send(&sender, &receiver, &flow, message, message.as_bytes())?;
    }
    let index_of = |bytes: &[u8]| messages.iter().position(|message| message.as_bytes() == bytes);
    let mut received = Vec::new();
    for _ in messages {
        received.push(receive(&receiver, &flow, 1024, index_of)?);
    }
    stage.draw(&flow)?;
    stage.notice(text::ONE_DATAGRAM_PER_CALL)?;
    let arrived = |message: &&str| received.iter().any(|bytes| bytes == message.as_bytes());
    stage.fact(received.len() == 3 && messages.iter().all(arrived), text::UDP_HAS_BOUNDARIES)?;

    stage.say(text::SAME_OVER_TCP)?;
    let (client, server) = pair()?;
    let flow = Flow::new("TCP");
    for message in messages {
        flow.message(message);
        flow.writer(&client).write_all(message.as_bytes())?;
    }
    let total = messages.concat().len();
    wait_until(text::ALL_ARRIVED, || Ok(queued(&server)? == total))?;
    let count = flow.reader(&server).read(&mut [0; 1024])?;
    stage.draw(&flow)?;
    stage.fact(count == total, text::tcp_is_a_stream(total))?;

    sender.send_to(b"", receiver.local_addr()?)?;
    let (count, _from) = receiver.recv_from(&mut [0; 1024])?;
    stage.fact(count == 0, text::EMPTY_DATAGRAM)
}

fn truncation(stage: &mut Stage) -> LessonResult {
    stage.scene(text::SMALL_BUFFER)?;
    stage.say(text::TWO_DATAGRAMS)?;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let (sender, receiver) = (udp_socket()?, udp_socket()?);
    let flow = Flow::over(Carrier::Udp, "UDP, recvfrom(10)");
    send(&sender, &receiver, &flow, text::ALPHABET, alphabet)?;
    wait_until(text::FIRST_ARRIVED, || Ok(queued(&receiver)? == alphabet.len()))?;
    send(&sender, &receiver, &flow, "next", b"next")?;
    let index_of = |bytes: &[u8]| match bytes {
        b"next" => Some(1),
        _ => alphabet.starts_with(bytes).then_some(0),
    };
    let first = receive(&receiver, &flow, 10, index_of)?;
    let second = receive(&receiver, &flow, 10, index_of)?;
    stage.draw(&flow)?;
    stage.show(text::FIRST_CALL, &first)?;
    stage.show(text::SECOND_CALL, &second)?;
    stage.notice(text::REST_IS_LOST)?;
    stage.fact(first == alphabet[..10] && second == b"next", text::TRUNCATED)?;

    sender.send_to(alphabet, receiver.local_addr()?)?;
    wait_until(text::ARRIVED, || Ok(queued(&receiver)? == alphabet.len()))?;
    // MSG_PEEK leaves the datagram in the queue; MSG_TRUNC returns its size instead of what fitted.
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    let size = recv(receiver.as_raw_fd(), &mut [0; 10], peek)?;
    let mut large_enough = vec![0; size];
    receiver.recv_from(&mut large_enough)?;
    stage.fact(size == alphabet.len() && large_enough == alphabet, text::real_size(size))
}
