//! 粘包: several messages arrive as one, and one arrives as several.
//!
//! TCP carries bytes in order and knows nothing of messages: the application must say where each
//! one ends. A program that takes one recv() for one message works only until the timing changes.

mod cork;
mod naive;
mod options;
mod text;

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::flow::{Flow, StepKind};
use crate::segments::Segments;
use crate::sockets::{MAX_ATTEMPTS, TO_CLIENT, TO_SERVER, pair, queued, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};
use options::{DEFAULT_RECV_SIZE, Message};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let messages = options::small_messages(stage.options())?;
    let (command, recv_size) = options::large_answer(stage.options())?;
    glued_by_the_receiver(stage, &messages)?;
    glued_by_the_sender(stage, &messages)?;
    split_answer(stage, &command, recv_size)?;
    stage.say(text::CONCLUSION)
}

fn glued_by_the_receiver(stage: &mut Stage, messages: &[Message]) -> LessonResult {
    stage.scene(text::GLUED_BY_THE_RECEIVER)?;
    let (client, server) = pair()?;
    client.set_nodelay(true)?; // Without Nagle's algorithm: every send() leaves at once.
    let flow = Flow::new(TO_SERVER);
    let mut segments = Segments::new(&flow, &client);
    send_each(&client, messages, &mut segments, &flow)?;
    segments.record();
    // The server is busy elsewhere: meanwhile everything arrives and waits.
    let total = options::total_size(messages);
    wait_until(text::ALL_WAITING, || Ok(queued(&server)? == total))?;
    let mut buffer = vec![0; total.max(DEFAULT_RECV_SIZE)];
    let count = flow.reader(&server).read(&mut buffer)?; // One recv().

    stage.say(text::waiting(messages.len(), total))?;
    stage.show(text::ONE_RECV, &buffer[..count])?;
    stage.draw(&flow)?;
    stage.notice(text::NO_BORDERS)?;
    stage.fact(count == total, text::stuck_together(messages.len()))
}

/// Calls send() once for each message, and observes the segments that leave.
fn send_each(
    mut client: &TcpStream,
    messages: &[Message],
    segments: &mut Segments,
    flow: &Flow,
) -> io::Result<()> {
    for message in messages {
        flow.message(message.label.as_str());
        flow.writer(&mut client).write_all(&message.bytes)?;
        segments.observe()?;
    }
    Ok(())
}

fn glued_by_the_sender(stage: &mut Stage, messages: &[Message]) -> LessonResult {
    stage.scene(text::GLUED_BY_THE_SENDER)?;
    // The kernel pulls the cork by itself after 200 ms (tcp(7)): a busy machine may have to retry.
    let mut attempts = (0..MAX_ATTEMPTS).map(|_| cork::send(messages));
    let corked = attempts.find_map(Result::transpose).transpose()?;
    let corked = corked.ok_or_else(|| LessonError::NotShown(text::SENDER_HOLDS_BYTES.into()))?;

    stage.say(text::NAGLE_AND_CORK)?;
    let (writes, segments) = (messages.len(), corked.segments);
    stage.say(text::corked(writes, corked.held, corked.arrived, segments))?;
    stage.draw(&corked.flow)?;
    stage.fact(segments < writes, text::fewer_segments(writes, segments))
}

fn split_answer(stage: &mut Stage, first: &str, recv_size: usize) -> LessonResult {
    stage.scene(text::SPLIT_ANSWER)?;
    let commands = [first, "ps", "seq 5"];
    let flow = Flow::new(TO_CLIENT);
    let received = naive::ask(&commands, recv_size, &flow)?;

    stage.say(text::naive_client(recv_size))?;
    for (command, bytes) in commands.iter().zip(&received) {
        stage.show(text::asked(command), bytes)?;
    }
    stage.draw(&flow)?;
    let record = flow.record();
    let first_end = record.messages[0].end;
    let left = first_end as usize - received[0].len();
    stage.notice(text::left_over(first, first_end, received[0].len()))?;
    let mut reads = record.steps.iter().filter(|step| step.kind == StepKind::Read).take(2);
    stage.fact(left > 0 && reads.all(|read| read.start < first_end), text::LEFTOVERS_ANSWERED)?;
    stage.say(text::LARGER_RECV)
}
