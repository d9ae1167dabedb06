//! Datagrams that are lost, and datagrams that arrive in another order.

use std::io::{self, ErrorKind};

use socket2::SockRef;

use super::{receive, send, text};
use crate::flow::{Carrier, Flow};
use crate::kernel::dropped;
use crate::sockets::{udp_socket, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};

/// How many datagrams are sent into a small receive buffer.
const DATAGRAMS: usize = 10;

pub(super) fn loss(stage: &mut Stage) -> LessonResult {
    stage.scene(text::LOSS)?;
    stage.say(text::FASTER_SENDER)?;
    let (sender, receiver) = (udp_socket()?, udp_socket()?);
    // Room for a few datagrams, whatever the default of this machine is.
    SockRef::from(&receiver).set_recv_buffer_size(4096)?;
    let flow = Flow::over(Carrier::Udp, text::SMALL_RECEIVE_BUFFER);
    for number in 1..=DATAGRAMS {
        let datagram = format!("{number:.<1000}"); // 1,000 bytes: the number, then dots.
        send(&sender, &receiver, &flow, number.to_string(), datagram.as_bytes())?;
    }
    receiver.set_nonblocking(true)?;
    let mut arrived = Vec::new();
    let mut lost = 0;
    wait_until(text::ARRIVED_OR_DROPPED, || {
        loop {
            match receive(&receiver, &flow, 1024, |bytes| Some(number_of(bytes)? - 1)) {
                Ok(datagram) => arrived.extend(number_of(&datagram)),
                Err(LessonError::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        lost = dropped(&receiver)? as usize;
        Ok(arrived.len() + lost == DATAGRAMS)
    })?;
    stage.draw(&flow)?;
    let numbers: Vec<String> = arrived.iter().map(usize::to_string).collect();
    stage.list(text::NUMBERS_ARRIVED, numbers.join(" "))?;
    stage.say(text::full_after(DATAGRAMS, arrived.len(), lost))?;
    stage.fact(lost > 0 && arrived.len() + lost == DATAGRAMS, text::SENDER_DOES_NOT_KNOW)
}

/// Returns the number of a datagram.
fn number_of(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    let number = text.trim_end_matches('.').parse().ok()?;
    (1..=DATAGRAMS).contains(&number).then_some(number)
}

pub(super) fn order(stage: &mut Stage) -> LessonResult {
    stage.scene(text::ORDER)?;
    stage.say(text::RELAY)?;
    let (sender, relay, receiver) = (udp_socket()?, udp_socket()?, udp_socket()?);
    let messages = ["1 rm -r build", "2 mkdir build"];
    let flow = Flow::over(Carrier::Udp, text::RELAY_FLOW);
    for message in messages {
        send(&sender, &relay, &flow, message, message.as_bytes())?;
    }
    let mut held = Vec::new();
    let mut buffer = [0; 1024];
    for _ in messages {
        let count = relay.recv(&mut buffer)?;
        held.push(buffer[..count].to_vec());
    }
    held.sort_by(|one, other| other.cmp(one)); // The later message first.
    let index_of = |bytes: &[u8]| messages.iter().position(|message| message.as_bytes() == bytes);
    let mut received = Vec::new();
    for datagram in &held {
        relay.send_to(datagram, receiver.local_addr()?)?;
        received.push(receive(&receiver, &flow, 1024, index_of)?);
    }
    stage.draw(&flow)?;
    stage.show(text::ORDER_OF_ARRIVAL, &received.join(&b'\n'))?;
    stage.fact(
        received[0] == messages[1].as_bytes() && received[1] == messages[0].as_bytes(),
        text::REORDERED,
    )?;
    received.sort();
    stage.fact(received.concat() == messages.concat().as_bytes(), text::NUMBERS_RESTORE_ORDER)
}
