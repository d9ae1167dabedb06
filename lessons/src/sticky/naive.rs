//! The naive program: a server that runs every command that it receives, and a client that takes
//! one recv() for one answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::{options::MAX_WAITING_BYTES, text};
use crate::flow::Flow;
use crate::shell::answer_of;
use crate::sockets::{IO_TIMEOUT, joined, pair, queued, recv, wait_until};
use crate::stage::{LessonError, LessonResult};

/// Asks a server for the output of each command; returns what each recv() returned.
pub(super) fn ask(
    commands: &[&str],
    recv_size: usize,
    flow: &Flow,
) -> Result<Vec<Vec<u8>>, LessonError> {
    let (client, server) = pair()?;
    thread::scope(|scope| {
        let (sizes, sent_sizes) = channel();
        let serving = scope.spawn(|| serve(server, flow, sizes));
        let received = ask_naively(&client, commands, recv_size, flow, &sent_sizes);
        // A naive client would leave now. This one lets the server finish and discards the rest.
        client.shutdown(Shutdown::Write)?;
        io::copy(&mut &client, &mut io::sink())?;
        joined(serving.join())??;
        received
    })
}

fn ask_naively(
    mut socket: &TcpStream,
    commands: &[&str],
    recv_size: usize,
    flow: &Flow,
    sent_sizes: &Receiver<usize>,
) -> Result<Vec<Vec<u8>>, LessonError> {
    let mut received = Vec::new();
    let mut unread = 0;
    for command in commands {
        socket.write_all(command.as_bytes())?; // send(command)
        // Waits for as much as one recv() can take, so that it is not less by chance.
        unread += sent_sizes.recv_timeout(IO_TIMEOUT).map_err(io::Error::other)?;
        let expected = unread.min(recv_size).min(MAX_WAITING_BYTES);
        wait_until(text::ANSWER_ARRIVED, || Ok(queued(&socket)? >= expected))?;
        let mut buffer = vec![0; recv_size];
        let count = flow.reader(socket).read(&mut buffer)?; // recv(recv_size)
        buffer.truncate(count);
        received.push(buffer);
        unread -= count;
    }
    Ok(received)
}

/// Runs every command that arrives and sends its output; the sizes of the outputs go to `sizes`.
fn serve(socket: TcpStream, flow: &Flow, sizes: Sender<usize>) -> LessonResult {
    let socket = &socket;
    thread::scope(|scope| {
        // A second thread sends, so that a full send buffer does not keep the server from reading.
        let (answers, to_send) = channel::<(String, Vec<u8>)>();
        let sending = scope.spawn(move || -> io::Result<()> {
            for (command, answer) in to_send {
                flow.message(command);
                flow.writer(socket).write_all(&answer)?;
            }
            socket.shutdown(Shutdown::Write)
        });
        let served = run_commands(socket, &answers, &sizes);
        drop(answers); // The sender ends after the last answer.
        let sent = joined(sending.join())?;
        served?;
        Ok(sent?)
    })
}

fn run_commands(
    socket: &TcpStream,
    answers: &Sender<(String, Vec<u8>)>,
    sizes: &Sender<usize>,
) -> LessonResult {
    let mut buffer = [0; 4096];
    loop {
        // One command per recv(): the client sends no other before it has an answer.
        let count = recv(socket, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let command = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let answer = answer_of(&command)?;
        let size = answer.len();
        if answers.send((command, answer)).is_err() || sizes.send(size).is_err() {
            return Ok(()); // The connection or the client has failed.
        }
    }
}
