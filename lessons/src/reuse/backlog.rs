//! Fills the backlog of a server that never calls accept().

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use nix::libc;
use socket2::{Domain, Socket, Type};

use super::{address, listen, text};
use crate::kernel::{dropped, state, tcp_info};
use crate::language::Text;
use crate::sockets::wait_until;
use crate::stage::{LessonError, LessonResult, Stage};

pub(super) fn fill(stage: &mut Stage, any_port: SocketAddr) -> LessonResult {
    stage.scene(text::BACKLOG)?;
    let listener = listen(any_port, true, 1)?;
    stage.say(text::NO_ACCEPT)?;
    let (queued, rejected) = connect_until_full(&listener)?;
    let began = Instant::now();
    show_states(stage, queued.iter().chain([&rejected]))?;
    stage.notice(text::queue_full(queue_length(&listener)?, tcp_info(&listener)?.tcpi_sacked))?;
    let sent = queued[0].send(b"hello")?;
    stage.fact(sent == 5 && state_of(&queued[0])? == state::ESTABLISHED, text::KERNEL_CONNECTS)?;
    stage.fact(
        state_of(&rejected)? == state::SYN_SENT && dropped(&listener)? > 0,
        text::SYN_DROPPED,
    )?;
    listener.accept()?; // One place is free: the next SYN will find it.
    wait_until(text::REJECTED_CONNECTED, || Ok(state_of(&rejected)? == state::ESTABLISHED))?;
    let (repeats, late) = (tcp_info(&rejected)?.tcpi_total_retrans, began.elapsed().as_secs_f64());
    stage.fact(repeats > 0, text::syn_repeated(repeats, late))?;
    stage.say(text::BACKLOG_IS_A_QUEUE)
}

/// Connects clients until the kernel drops a SYN; returns those in the queue, and the rejected one.
fn connect_until_full(listener: &Socket) -> Result<(Vec<Socket>, Socket), LessonError> {
    let server = address(listener)?;
    let mut queued: Vec<Socket> = Vec::new();
    loop {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        // A non-blocking connect() sends the SYN and returns at once: EINPROGRESS.
        match client.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(error.into());
            }
            _ => {}
        }
        // The listening socket shows the result: its queue has grown, or it has dropped the SYN.
        wait_until(text::TAKEN_OR_DROPPED, || {
            Ok(queue_length(listener)? > queued.len() || dropped(listener)? > 0)
        })?;
        if queue_length(listener)? == queued.len() {
            return Ok((queued, client));
        }
        queued.push(client);
    }
}

fn show_states<'a>(stage: &mut Stage, clients: impl Iterator<Item = &'a Socket>) -> LessonResult {
    let line = |(index, client)| {
        let state = match state_of(client)? {
            state::ESTABLISHED => "ESTABLISHED",
            state::SYN_SENT => "SYN_SENT",
            _ => "?",
        };
        Ok(text::client_state(index + 1, state))
    };
    let lines: Vec<Text> = clients.enumerate().map(line).collect::<io::Result<_>>()?;
    stage.list(text::CLIENT_STATES, Text::lines(lines))
}

fn state_of(socket: &Socket) -> io::Result<u8> {
    Ok(tcp_info(socket)?.tcpi_state)
}

/// Returns how many connections wait for accept().
fn queue_length(listener: &Socket) -> io::Result<usize> {
    Ok(tcp_info(listener)?.tcpi_unacked as usize)
}
