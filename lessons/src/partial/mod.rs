//! `send` and `sendall`: a full send buffer takes only a part, and a program that ignores the
//! return value loses the rest.

mod send_all;
mod text;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::flow::Flow;
use crate::sockets::{pair, queued, unacknowledged, wait_until};
use crate::stage::{LessonResult, Stage};

/// How many bytes the program wants to send: far more than both buffers hold.
const TOTAL: usize = 1 << 20;

/// The requested size of each buffer, in bytes; Linux doubles it for its own bookkeeping
/// (socket(7)).
const BUFFER_SIZE: usize = 16 << 10;

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    // Numbered lines of eight bytes: they show which ones are missing.
    let lines = (1..=TOTAL / 8).flat_map(|number| format!("{number:07}\n").into_bytes());
    let data: Vec<u8> = lines.collect();
    naive_program(stage, &data)?;
    full_buffer(stage, &data)?;
    send_timeout(stage, &data)?;
    send_all::run(stage, &data)
}

/// Returns a sender and a receiver with small buffers, whatever the defaults of this machine are.
fn small_pair() -> io::Result<(TcpStream, TcpStream)> {
    let (sender, receiver) = pair()?;
    SockRef::from(&sender).set_send_buffer_size(BUFFER_SIZE)?;
    SockRef::from(&receiver).set_recv_buffer_size(BUFFER_SIZE)?;
    Ok((sender, receiver))
}

fn naive_program(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene(text::NAIVE_PROGRAM)?;
    let (sender, receiver) = small_pair()?;
    sender.set_nonblocking(true)?;
    let flow = Flow::new(text::NAIVE_FLOW);
    let (mut out, mut input) = (flow.writer(&sender), flow.reader(&receiver));
    flow.message(text::LINES);
    let taken = out.write(data)?; // send(): returns how many bytes it took.
    stage.say(text::one_send(TOTAL, taken))?;
    stage.fact(taken < data.len(), text::ONLY_A_PART)?;

    // The receiver reads everything: there is room again, and the program sends its next message.
    let mut received = Vec::new();
    while received.len() < taken {
        let mut buffer = [0; 8192];
        let count = input.read(&mut buffer)?;
        received.extend_from_slice(&buffer[..count]);
    }
    wait_until(text::BUFFER_EMPTY, || Ok(unacknowledged(&sender)? == 0))?;
    flow.message("END");
    let end = out.write(b"END\n")?;
    drop(out);
    drop(sender);
    input.read_to_end(&mut received)?;

    stage.draw(&flow)?;
    stage.show(text::LAST_BYTES, &received[received.len().saturating_sub(36)..])?;
    stage.notice(text::NO_ERROR)?;
    let lost = data.len() - taken;
    let expected = [&data[..taken], b"END\n"].concat();
    stage.fact(end == 4 && received == expected && lost > 0, text::never_sent(lost, TOTAL))
}

fn full_buffer(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene(text::FULL_BUFFER)?;
    let (mut sender, mut receiver) = small_pair()?;
    sender.set_nonblocking(true)?;
    let mut taken = Vec::new();
    let error = loop {
        match sender.write(data) {
            Ok(count) => taken.push(count),
            Err(error) => break error,
        }
    };
    stage.list(text::SEND_RETURNED, text::calls(&taken, &error))?;
    stage.fact(error.kind() == ErrorKind::WouldBlock, text::NOT_NOW)?;
    // When the kernel has finished, every byte is in exactly one of the two buffers.
    let total: usize = taken.iter().sum();
    let (mut sent, mut arrived) = (0, 0);
    wait_until(text::BUFFERS_HOLD_ALL, || {
        (sent, arrived) = (unacknowledged(&sender)?, queued(&receiver)?);
        Ok(sent + arrived == total)
    })?;
    stage.say(text::where_bytes_are(total, sent, arrived))?;
    // A slow receiver slows the sender down: flow control reaches up to the program.
    receiver.read_exact(&mut vec![0; total])?;
    send_all::wait_for_room(&sender)?;
    let more = sender.write(data)?;
    stage.fact(more > 0, text::room_again(more))
}

fn send_timeout(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene(text::SEND_TIMEOUT)?;
    stage.say(text::BLOCKING_SEND)?;
    let (mut sender, _receiver) = small_pair()?;
    sender.set_write_timeout(Some(Duration::from_millis(100)))?;
    let taken = sender.write(data)?;
    stage.fact(taken < data.len(), text::timed_out(taken, TOTAL))?;
    let failed = sender.write_all(data);
    stage
        .fact(failed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), text::SENDALL_FAILS)
}
