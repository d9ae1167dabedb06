//! A proxy that splits or joins what passes, and records it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How the bytes are segmented.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Each byte is sent by itself.
    Chop,
    /// As much as possible is sent together, once the sender has paused.
    Glue,
    /// As received.
    Pass,
}

/// The side that sent bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
}

/// What one read returned.
pub type Piece = (Side, Vec<u8>);

/// Both directions of all connections, in the order in which they were read.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    pieces: Arc<Mutex<Vec<Piece>>>,
}

impl Proxy {
    pub fn start(server: SocketAddr, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, pieces: Arc::default() };
        let ours = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (to, fro) = (ours.pieces.clone(), ours.pieces.clone());
                thread::spawn(move || carry(client, server, cut, Side::Client, &to));
                thread::spawn(move || carry(back.0, back.1, cut, Side::Server, &fro));
            }
        });
        proxy
    }

    /// Everything that clients have sent so far.
    pub fn sent_by_client(&self) -> Vec<u8> {
        joined(&self.pieces(), Side::Client)
    }

    /// Everything that the server has sent so far.
    pub fn sent_by_server(&self) -> Vec<u8> {
        joined(&self.pieces(), Side::Server)
    }

    /// What each read has returned so far; data precedes the answers to it.
    pub fn pieces(&self) -> Vec<Piece> {
        self.pieces.lock().unwrap().clone()
    }
}

/// All bytes that one side has sent.
pub fn joined(pieces: &[Piece], from: Side) -> Vec<u8> {
    pieces
        .iter()
        .filter(|piece| piece.0 == from)
        .flat_map(|piece| piece.1.iter().copied())
        .collect()
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: Cut, end: Side, record: &Mutex<Vec<Piece>>) {
    to.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = gather(&mut from, &mut buffer, cut) {
        record.lock().unwrap().push((end, buffer[..count].to_vec()));
        let size = if matches!(cut, Cut::Chop) { 1 } else { count };
        if buffer[..count].chunks(size).try_for_each(|piece| to.write_all(piece)).is_err() {
            break;
        }
    }
    // The other end may have closed already.
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}

fn gather(from: &mut TcpStream, buffer: &mut [u8], cut: Cut) -> io::Result<usize> {
    let mut count = from.read(buffer)?;
    if matches!(cut, Cut::Glue) && count > 0 {
        from.set_read_timeout(Some(Duration::from_millis(2)))?;
        while count < buffer.len() {
            match from.read(&mut buffer[count..]) {
                Ok(more @ 1..) => count += more,
                _ => break,
            }
        }
        from.set_read_timeout(None)?;
    }
    Ok(count)
}
