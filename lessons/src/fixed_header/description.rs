//! The receiver of a length, a description of that length, and the data that it describes.

use std::io::{self, Read};
use std::net::TcpStream;

use sha2::{Digest, Sha256};

use crate::flow::Flow;

/// Bytes per recv() at most.
const MAX_RECV_SIZE: usize = 64 << 10;

/// Bytes of a description at most: a length from the network is a claim, not a fact.
const MAX_DESCRIPTION_SIZE: usize = 4096;

/// What was received.
pub(super) struct Received {
    pub(super) length: [u8; 4],
    pub(super) description: String,
    pub(super) data: Vec<u8>,
}

pub(super) fn receive(flow: &Flow, socket: &TcpStream) -> io::Result<Received> {
    let mut input = flow.reader(socket);
    // read_exact() calls recv() until it has everything that was asked for, and never takes more.
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let announced = u32::from_be_bytes(length) as usize;
    if announced > MAX_DESCRIPTION_SIZE {
        return Err(io::Error::other(format!("a description of {announced} bytes is too long")));
    }
    let mut description = vec![0; announced];
    input.read_exact(&mut description)?;
    let description = String::from_utf8_lossy(&description).into_owned();
    let size = field(&description, "size").and_then(|size| size.parse().ok()).unwrap_or(0);
    let (mut data, mut buffer) = (Vec::new(), vec![0; MAX_RECV_SIZE]);
    while data.len() < size {
        // Never more than is still missing: what follows belongs to the next message.
        let missing = (size - data.len()).min(MAX_RECV_SIZE);
        let count = input.read(&mut buffer[..missing])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        data.extend_from_slice(&buffer[..count]); // Grows with the data, not with the claim.
    }
    Ok(Received { length, description, data })
}

/// Returns the value of `name=` in a description, which has one field per line.
pub(super) fn field<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    description.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Returns the SHA-256 of bytes in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
