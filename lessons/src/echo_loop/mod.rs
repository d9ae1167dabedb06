//! Many messages on one connection: why an empty one makes both sides hang, and how a program
//! notices that the connection has ended.

mod server;
mod text;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::flow::Flow;
use crate::kernel::segments_sent;
use crate::sockets::{TO_SERVER, joined, pair, queued, recv, unacknowledged};
use crate::stage::{LessonResult, Stage};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    many_messages(stage)?;
    empty_message(stage)?;
    end_of_stream(stage)?;
    server::reset(stage)?;
    server::next_client(stage)
}

fn many_messages(stage: &mut Stage) -> LessonResult {
    stage.scene(text::TWO_LOOPS)?;
    let words = ["hello", "good morning", "bye"];
    let (client, server) = pair()?;
    let flow = Flow::new(TO_SERVER);
    let server_flow = flow.clone();
    let echoing = thread::spawn(move || echo(&server, &server_flow));
    let mut buffer = [0; 1024];
    let mut echoes = Vec::new();
    for word in words {
        flow.message(word);
        flow.writer(&client).write_all(word.as_bytes())?;
        let count = recv(&client, &mut buffer)?;
        echoes.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
    }
    drop(client);
    joined(echoing.join())??;
    stage.say(text::echoes(&echoes))?;
    stage.draw(&flow)?;
    stage.fact(echoes == words, text::THREE_ECHOES)
}

/// Sends everything back until the client closes the connection.
fn echo(mut socket: &TcpStream, flow: &Flow) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let count = flow.reader(socket).read(&mut buffer)?;
        if count == 0 {
            return Ok(()); // The end. Without this line the loop would spin: see `end_of_stream`.
        }
        socket.write_all(&buffer[..count])?;
    }
}

fn empty_message(stage: &mut Stage) -> LessonResult {
    stage.scene(text::EMPTY_MESSAGE)?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_SERVER);
    flow.message("b\"\"");
    let written = flow.writer(&client).write(b"")?; // send(b"")
    stage.draw(&flow)?;
    let segments = segments_sent(&client)?;
    let (sent, arrived) = (unacknowledged(&client)?, queued(&server)?);
    stage.say(text::nothing_sent(written, segments, sent, arrived))?;
    stage.fact((written, segments, sent, arrived) == (0, 0, 0, 0), text::NOTHING_ON_THE_WIRE)?;

    // Now each loop waits in recv(): the server for the message, the client for the answer.
    const TIME_LIMIT: Duration = Duration::from_millis(200);
    client.set_read_timeout(Some(TIME_LIMIT))?;
    server.set_read_timeout(Some(TIME_LIMIT))?;
    let wait = |socket: &TcpStream| recv(socket, &mut [0; 1024]).map_err(|error| error.kind());
    let (client_waited, server_waited) = thread::scope(|scope| {
        let server_waiting = scope.spawn(|| wait(&server));
        (wait(&client), joined(server_waiting.join()))
    });
    stage.notice(text::BOTH_HANG)?;
    let timed_out = Err(ErrorKind::WouldBlock);
    stage.fact(
        client_waited == timed_out && server_waited? == timed_out,
        text::timed_out(TIME_LIMIT.as_millis()),
    )?;
    stage.say(text::SEND_A_HEADER)
}

fn end_of_stream(stage: &mut Stage) -> LessonResult {
    stage.scene(text::END_OF_STREAM)?;
    const ENOUGH: usize = 1000;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_SERVER);
    flow.message("bye");
    flow.writer(&client).write_all(b"bye")?;
    drop(client); // close(): a FIN follows the three bytes.
    let mut input = flow.reader(&server);
    let mut buffer = [0; 1024];
    let mut empty_reads = 0;
    // The naive loop takes the end of the stream for one more message; the lesson stops it.
    while empty_reads < ENOUGH {
        if input.read(&mut buffer)? == 0 {
            empty_reads += 1;
        }
    }
    stage.say(text::NAIVE_LOOP)?;
    stage.draw(&flow)?;
    let steps = flow.record().steps;
    let first = steps.iter().find(|step| step.start == 3);
    let spun = first.zip(steps.last()).map_or(Duration::ZERO, |(first, last)| last.at - first.at);
    stage.notice(text::spinning(empty_reads))?;
    stage.fact(empty_reads == ENOUGH, text::spun(empty_reads, spun.as_micros()))
}
