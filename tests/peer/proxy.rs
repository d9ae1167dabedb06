//! A network in between: it cuts what was sent together, joins what was sent apart, and remembers everything.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What is done to the bytes on their way.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Each byte travels alone.
    Chop,
    /// As much as possible travels together: nothing moves before its sender has paused.
    Glue,
    /// As they come.
    Pass,
}

/// Both directions of the connections that it has carried, joined.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    from_client: Arc<Mutex<Vec<u8>>>,
    from_server: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    pub fn start(server: SocketAddr, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, from_client: Arc::default(), from_server: Arc::default() };
        let ours = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (to, fro) = (ours.from_client.clone(), ours.from_server.clone());
                thread::spawn(move || carry(client, server, cut, &to));
                thread::spawn(move || carry(back.0, back.1, cut, &fro));
            }
        });
        proxy
    }

    /// Everything that clients have sent so far.
    pub fn sent_by_client(&self) -> Vec<u8> {
        self.from_client.lock().unwrap().clone()
    }

    /// Everything that the server has sent so far.
    pub fn sent_by_server(&self) -> Vec<u8> {
        self.from_server.lock().unwrap().clone()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: Cut, record: &Mutex<Vec<u8>>) {
    to.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = gather(&mut from, &mut buffer, cut) {
        record.lock().unwrap().extend_from_slice(&buffer[..count]);
        let size = if matches!(cut, Cut::Chop) { 1 } else { count };
        if buffer[..count].chunks(size).try_for_each(|piece| to.write_all(piece)).is_err() {
            break;
        }
    }
    // The other end may be gone already.
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
