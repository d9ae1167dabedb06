//! A server that serves one client after another: an error of one client ends the naive server, but
//! not the careful one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::text;
use crate::sockets::{joined, queued, recv, wait_until, with_timeouts};
use crate::stage::{LessonResult, Stage};

/// How a conversation ended: with the end of the stream, or with an error.
type End = Option<ErrorKind>;

pub(super) fn reset(stage: &mut Stage) -> LessonResult {
    stage.scene(text::RESET)?;
    let (address, server) = sequential(true)?;
    crash(address)?;
    let ended = joined(server.join())?;
    let kind = ended.err().map_or(ErrorKind::Other, |error| error.kind());
    let next = loop {
        match TcpStream::connect(address).map_err(|error| error.kind()) {
            // Rarely the kernel chooses the port that is dialled, and TCP connects it to itself.
            Ok(stream) if stream.local_addr()? == address => continue,
            next => break next,
        }
    };
    stage.say(text::reset(kind))?;
    stage.fact(
        kind == ErrorKind::ConnectionReset
            && next.as_ref().err() == Some(&ErrorKind::ConnectionRefused),
        text::SERVER_ENDED,
    )
}

pub(super) fn next_client(stage: &mut Stage) -> LessonResult {
    stage.scene(text::NEXT_CLIENT)?;
    let (address, server) = sequential(false)?;
    drop(greet(address)?); // The first client closes its socket.
    crash(address)?; // The second one is reset.
    let mut third = greet(address)?; // The third one is answered all the same.
    third.write_all(b"shutdown")?;
    let ends = joined(server.join())??;
    stage.say(text::ends(&ends))?;
    stage.notice(text::TWO_LINES)?;
    stage.fact(ends == [None, Some(ErrorKind::ConnectionReset)], text::ONLY_CONVERSATIONS_END)
}

/// Starts a server for one client after another. The naive one ends with the first error.
fn sequential(naive: bool) -> io::Result<(SocketAddr, JoinHandle<io::Result<Vec<End>>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        let mut ends = Vec::new();
        loop {
            let mut client = with_timeouts(listener.accept()?.0)?;
            match talk(&mut client) {
                Ok(Goodbye::EndOfStream) => ends.push(None),
                Ok(Goodbye::Shutdown) => return Ok(ends),
                Err(error) if naive => return Err(error), // One client's crash ends the server.
                Err(error) => ends.push(Some(error.kind())), // The next client can come.
            }
        }
    });
    Ok((address, server))
}

/// How a client takes its leave.
enum Goodbye {
    EndOfStream,
    /// It asks the server to end.
    Shutdown,
}

/// Sends everything back to one client until the conversation ends.
fn talk(client: &mut TcpStream) -> io::Result<Goodbye> {
    let mut buffer = [0; 1024];
    loop {
        match recv(client, &mut buffer)? {
            0 => return Ok(Goodbye::EndOfStream),
            count if &buffer[..count] == b"shutdown" => return Ok(Goodbye::Shutdown),
            count => client.write_all(&buffer[..count])?,
        }
    }
}

/// Connects, sends a word and reads the echo; then the server waits in recv(), with nothing unread.
fn greet(address: SocketAddr) -> io::Result<TcpStream> {
    let mut client = with_timeouts(TcpStream::connect(address)?)?;
    client.write_all(b"hello")?;
    client.read_exact(&mut [0; 5])?;
    Ok(client)
}

/// Connects, sends a word and closes the socket before it has read the echo: with unread bytes,
/// close() sends RST instead of FIN (RFC 2525, section 2.17).
fn crash(address: SocketAddr) -> LessonResult {
    let mut client = with_timeouts(TcpStream::connect(address)?)?;
    client.write_all(b"hello")?;
    wait_until(text::ECHO_UNREAD, || Ok(queued(&client)? == 5))
}
