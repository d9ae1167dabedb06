//! Both sides of the protocol: a command, the length of its output, `ready`, the output.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use sha2::{Digest, Sha256};

use super::text;
use crate::flow::Flow;
use crate::shell::answer_of;
use crate::stage::LessonError;

/// What the client sends when it has read a length.
pub(super) const READY: &[u8] = b"ready";

/// A client that counts how often it has to wait for the server.
pub(super) struct Client<'a> {
    pub(super) socket: &'a TcpStream,
    to_server: &'a Flow,
    to_client: &'a Flow,
    pub(super) round_trips: usize,
}

impl<'a> Client<'a> {
    pub(super) fn new(socket: &'a TcpStream, to_server: &'a Flow, to_client: &'a Flow) -> Self {
        Self { socket, to_server, to_client, round_trips: 0 }
    }

    /// Sends a command and returns its output.
    pub(super) fn ask(&mut self, command: &str) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 << 10];
        let count = self.round_trip(command, command.as_bytes(), &mut buffer)?;
        let length =
            number(&buffer[..count]).ok_or_else(|| io::Error::other("no length arrived"))?;
        let count = self.round_trip("ready", READY, &mut buffer)?;
        let mut answer = buffer[..count].to_vec();
        while answer.len() < length {
            let count = self.to_client.reader(self.socket).read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&buffer[..count]);
        }
        Ok(answer)
    }

    /// Sends bytes and waits for the first part of what comes back.
    fn round_trip(&mut self, label: &str, bytes: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
        self.to_server.message(label);
        self.to_server.writer(self.socket).write_all(bytes)?;
        self.round_trips += 1;
        self.to_client.reader(self.socket).read(buffer)
    }
}

/// Answers commands until the client ends; returns the digest of every output before it was sent.
pub(super) fn serve(
    socket: &TcpStream,
    to_server: &Flow,
    to_client: &Flow,
) -> Result<Vec<[u8; 32]>, LessonError> {
    let mut digests = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = to_server.reader(socket).read(&mut buffer)?;
        if count == 0 {
            return Ok(digests);
        }
        let answer = answer_of(&String::from_utf8_lossy(&buffer[..count]))?;
        digests.push(digest(&answer));
        to_client.message(text::LENGTH);
        to_client.writer(socket).write_all(answer.len().to_string().as_bytes())?;
        let count = to_server.reader(socket).read(&mut buffer)?; // Waits for `ready`.
        if &buffer[..count] != READY {
            return Err(io::Error::other("the client is not ready").into());
        }
        to_client.message(text::DATA);
        to_client.writer(socket).write_all(&answer)?;
    }
}

/// Parses a decimal number of all these bytes.
pub(super) fn number(bytes: &[u8]) -> Option<usize> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
