//! A TCP connection between a client and a server, with both directions recorded.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::flow::Flow;
use crate::language::ConstText;
use crate::sockets::pair;

pub(super) struct Connection {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    pub(super) to_server: Flow,
    pub(super) to_client: Flow,
}

impl Connection {
    /// Connects two ends with these names.
    pub(super) fn new(client: ConstText, server: ConstText) -> io::Result<Self> {
        let flow = |from: ConstText, to: ConstText| {
            Flow::new((format!("{} → {}", from.0, to.0), format!("{} → {}", from.1, to.1)))
        };
        let (to_server, to_client) = (flow(client, server), flow(server, client));
        let (client, server) = pair()?;
        Ok(Self { client, server, to_server, to_client })
    }

    pub(super) fn client_sends(&mut self, label: ConstText, bytes: &[u8]) -> io::Result<()> {
        self.to_server.message(label);
        self.to_server.writer(&mut self.client).write_all(bytes)
    }

    pub(super) fn server_sends(&mut self, label: ConstText, bytes: &[u8]) -> io::Result<()> {
        self.to_client.message(label);
        self.to_client.writer(&mut self.server).write_all(bytes)
    }

    pub(super) fn server_receives<const SIZE: usize>(&mut self) -> io::Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        self.to_server.reader(&mut self.server).read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn client_receives<const SIZE: usize>(&mut self) -> io::Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        self.to_client.reader(&mut self.client).read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
