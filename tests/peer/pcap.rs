//! Writes pcap files of connections that a test has invented or recorded.

use std::path::Path;

use super::proxy::{Piece, Side};

/// libpcap's LINKTYPE_RAW: each packet begins with its IP header.
const RAW_IP: u32 = 101;
/// The largest segment: with 40 bytes of headers it fits the 16-bit length of an IPv4 packet.
const LARGEST_SEGMENT: usize = 65_000;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PSH_ACK: u8 = 0x18;
const SYN_ACK: u8 = SYN | ACK;

/// A capture. Its packets have no checksums, which Wireshark does not verify by default.
#[derive(Debug)]
pub struct Capture(Vec<u8>);

impl Capture {
    pub fn new() -> Self {
        let header = [0xa1b2_c3d4, 2 << 16 | 4, 0, 0, 1 << 18, RAW_IP];
        Self(header.iter().flat_map(|word: &u32| word.to_be_bytes()).collect())
    }

    /// Adds a connection between these ports of a client and a server, with a segment for each
    /// piece.
    pub fn connection(&mut self, client: u16, server: u16, pieces: &[Piece]) {
        // Sequence numbers: the client starts with 1,000, the server with 5,000.
        let (mut sent, mut received) = (1000_u32, 5000_u32);
        self.packet((1, client), (2, server), sent - 1, 0, SYN, &[]);
        self.packet((2, server), (1, client), received - 1, sent, SYN_ACK, &[]);
        self.packet((1, client), (2, server), sent, received, ACK, &[]);
        for (from, bytes) in pieces {
            for segment in bytes.chunks(LARGEST_SEGMENT) {
                let length = segment.len() as u32;
                match from {
                    Side::Client => {
                        self.packet((1, client), (2, server), sent, received, PSH_ACK, segment);
                        sent += length;
                    }
                    Side::Server => {
                        self.packet((2, server), (1, client), received, sent, PSH_ACK, segment);
                        received += length;
                    }
                }
            }
        }
    }

    /// Adds an IPv4 packet (RFC 791) with a TCP segment (RFC 9293) between two hosts of 127.0.0.0/8
    /// and their ports.
    fn packet(
        &mut self,
        from: (u8, u16),
        to: (u8, u16),
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        data: &[u8],
    ) {
        let length = 40 + data.len();
        let mut packet = vec![0x45, 0];
        packet.extend((length as u16).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, from.0, 127, 0, 0, to.0]);
        packet.extend(from.1.to_be_bytes());
        packet.extend(to.1.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend(acknowledged.to_be_bytes());
        packet.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(data);
        for word in [1, 0, length as u32, length as u32] {
            self.0.extend(word.to_be_bytes());
        }
        self.0.extend(packet);
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.0).unwrap();
    }
}

/// The same bytes in segments of another size: consecutive pieces of one side are joined and cut
/// again.
pub fn recut(pieces: &[Piece], size: usize) -> Vec<Piece> {
    let runs = pieces.chunk_by(|one, next| one.0 == next.0);
    runs.flat_map(|run| {
        let joined: Vec<u8> = run.iter().flat_map(|piece| piece.1.iter().copied()).collect();
        let cut: Vec<Piece> = joined.chunks(size).map(|part| (run[0].0, part.to_vec())).collect();
        cut
    })
    .collect()
}
