//! The fix for 粘包: before every message a header of fixed size, which says how long the message is.

mod description;
mod frames;
mod text;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;

use labsh_proto::frame::{ChannelId, Decoder, Frame};
use labsh_proto::limits::MAX_BODY;

use crate::flow::Flow;
use crate::shell::{answer_of, output_of};
use crate::sockets::{TO_CLIENT, joined, pair, queued, wait_until};
use crate::stage::{LessonResult, Stage};
use description::{field, receive, sha256};
use frames::{encode, frame, invalid};

/// Bytes of output per frame: a large output becomes many frames.
const CHUNK_SIZE: usize = 16 << 10;

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let command = stage.options().command.clone().unwrap_or_else(|| "ls -l /usr/bin".to_owned());
    let output = output_of(&command)?;
    four_bytes(stage, &command, &output)?;
    glued_and_separated(stage)?;
    any_read_size(stage, &command, &output)
}

/// As in many courses (struct.pack in Python): four bytes, then a description of that length, then
/// the data.
fn four_bytes(stage: &mut Stage, command: &str, output: &[u8]) -> LessonResult {
    stage.scene(text::FOUR_BYTES)?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_CLIENT);
    let (size, digest) = (output.len(), sha256(output));
    let description = format!("command={command}\nsize={size}\nsha256={digest}\n");
    let length = (description.len() as u32).to_be_bytes(); // In network byte order.
    let received = thread::scope(|scope| {
        let sending = scope.spawn(|| -> io::Result<()> {
            let mut out = flow.writer(&server);
            flow.message(text::LENGTH);
            out.write_all(&length)?;
            flow.message(text::DESCRIPTION);
            out.write_all(description.as_bytes())?;
            flow.message(text::DATA);
            out.write_all(output) // There is no wait in between.
        });
        let received = receive(&flow, &client);
        client.shutdown(Shutdown::Both).ok(); // The sender does not wait if the receiver failed.
        joined(sending.join())?.and(received)
    })?;
    stage.say(text::PACKED_NUMBER)?;
    let (described, bytes) = (received.description.len(), received.data.len());
    stage.say(text::first_bytes(received.length, described))?;
    stage.show(text::THE_DESCRIPTION, received.description.as_bytes())?;
    stage.draw(&flow)?;
    stage.notice(text::read_exactly(described, bytes))?;
    let digest = sha256(&received.data);
    let promised = field(&received.description, "sha256").unwrap_or_default();
    stage.fact(promised == digest && bytes == output.len(), text::digest_matches(bytes, &digest))
}

/// The answers to two commands, as labshd would send them, in one recv().
fn glued_and_separated(stage: &mut Stage) -> LessonResult {
    stage.scene(text::LABSH_HEADER)?;
    let frames =
        [frame(1, answer_of("seq 3")?), frame(2, Vec::new()), frame(2, answer_of("echo labsh")?)];
    let (client, server) = pair()?;
    let flow = Flow::new(TO_CLIENT);
    for frame in &frames {
        flow.message(text::channel(frame.channel));
        flow.writer(&server).write_all(&encode(frame))?;
    }
    let total = flow.progress().0 as usize;
    wait_until(text::ALL_ARRIVED, || Ok(queued(&client)? == total))?;
    let mut buffer = [0; 1024];
    let count = flow.reader(&client).read(&mut buffer)?; // Glued together, as in `sticky`.
    stage.say(text::THREE_MESSAGES)?;
    stage.list(text::HEADER_FIELDS, text::header(&frames[0]))?;
    stage.show(text::ONE_RECV, &buffer[..count])?;
    stage.draw(&flow)?;

    // The decoder of labsh and labshd: bytes go in, messages come out.
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&buffer[..count]);
    let mut decoded = Vec::new();
    while let Some(frame) = decoder.next_frame(MAX_BODY).map_err(invalid)? {
        decoded.push(frame);
    }
    let line = |frame: &Frame| {
        let body = String::from_utf8_lossy(&frame.body).into_owned();
        format!("{} | {body:?}", text::hex(&frame.header().encode()))
    };
    stage.list(text::DECODED, decoded.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    stage.notice(text::EMPTY_ARRIVES)?;
    stage.fact(decoded == frames && count == total, text::separated(count, frames.len()))
}

fn any_read_size(stage: &mut Stage, command: &str, output: &[u8]) -> LessonResult {
    stage.scene(text::ANY_READ_SIZE)?;
    let chunks = output.chunks(CHUNK_SIZE);
    let mut frames: Vec<Frame> = chunks.map(|chunk| frame(1, chunk.to_vec())).collect();
    frames.push(frame(2, answer_of("seq 5")?));
    stage.say(text::sent_three_times(command, output.len(), frames.len()))?;
    for size in [1, 1024, 64 << 10] {
        let (reads, decoded) = frames::send_and_read(&frames, size)?;
        let of_command = decoded.iter().filter(|frame| frame.channel == ChannelId(1));
        let data: Vec<u8> = of_command.flat_map(|frame| frame.body.to_vec()).collect();
        let digest = sha256(&data);
        stage.fact(
            decoded == frames && digest == sha256(output),
            text::same_messages(size, reads, decoded.len(), &digest),
        )?;
    }
    stage.notice(text::NEVER_GUESS)
}
