//! Peers that break the protocol: a client that sends any bytes, a fake server, and a proxy that
//! segments and records.

pub mod fake_server;
pub mod pcap;
pub mod proxy;
pub mod tls;

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use labsh_proto::auth::{ChannelBinding, Mode};
use labsh_proto::frame::{ChannelId, Decoder, FLAG_MORE, Frame, Kind};
use labsh_proto::handshake::{AwaitingWelcome, Client, ClientFailure};
use labsh_proto::key::HostKey;
use labsh_proto::limits;
use labsh_proto::message::{
    Body, Credit, Eof, Exit, Features, Nonce, Refuse, RefuseCode, Signal, Started, Status, Stream,
};
use labsh_transport::{framing, random};

use crate::support::{Labshd, TEST_TIMEOUT, children, eventually, is_alive, text};

pub const CONNECTION: ChannelId = ChannelId::CONNECTION;

/// A header as on the wire, valid or not.
pub fn header(length: u32, kind: u8, flags: u8, reserved: u16, channel: u32) -> Vec<u8> {
    [&length.to_be_bytes()[..], &[kind, flags], &reserved.to_be_bytes(), &channel.to_be_bytes()]
        .concat()
}

/// A frame as on the wire.
pub fn bytes(kind: Kind, channel: u32, body: &[u8]) -> Vec<u8> {
    [&header(body.len() as u32, kind as u8, 0, 0, channel), body].concat()
}

/// A control message as on the wire.
pub fn message(body: &impl Body, channel: u32) -> Vec<u8> {
    framing::to_bytes(&body.frame(ChannelId(channel)))
}

/// The body of an `open` for these words, byte by byte and unchecked (PROTOCOL.md, "open").
pub fn open_body(words: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![7; 16];
    body.extend([0; 8 + 8]); // linger, timeout
    body.extend([0; 4 + 4]); // until the streams end; exact words
    body.extend((words.len() as u64).to_be_bytes());
    for word in words {
        body.extend((word.len() as u64).to_be_bytes());
        body.extend(*word);
    }
    body.extend([0; 8 + 1 + 1 + 1]); // no environment, no directory, no user, no terminal
    body
}

/// The body of an `open` for `true` with this many variables, unchecked.
pub fn open_body_with_variables(count: usize) -> Vec<u8> {
    let mut body = open_body(&[b"true"]);
    let after = body.split_off(body.len() - 11);
    body.extend((count as u64).to_be_bytes());
    for number in 0..count {
        let name = format!("A{number}");
        body.extend((name.len() as u64).to_be_bytes());
        body.extend(name.bytes());
        body.extend(0_u64.to_be_bytes());
    }
    body.extend(&after[8..]);
    body
}

/// The frames of an `open` with this body.
pub fn open_frames(channel: u32, body: &[u8]) -> Vec<u8> {
    let parts = body.chunks(limits::MAX_BODY as usize);
    let last = parts.len() - 1;
    let flags = |index| if index == last { 0 } else { FLAG_MORE };
    parts
        .enumerate()
        .flat_map(|(index, part)| {
            [&header(part.len() as u32, Kind::Open as u8, flags(index), 0, channel), part].concat()
        })
        .collect()
}

pub fn open(channel: u32, words: &[&str]) -> Vec<u8> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    open_frames(channel, &open_body(&words))
}

pub fn stdin(channel: u32, data: &[u8]) -> Vec<u8> {
    bytes(Kind::Stdin, channel, data)
}

pub fn eof(channel: u32) -> Vec<u8> {
    message(&Eof { stream: Stream::Stdin }, channel)
}

pub fn close(channel: u32) -> Vec<u8> {
    bytes(Kind::Close, channel, &[])
}

pub fn signal(channel: u32, number: u8) -> Vec<u8> {
    message(&Signal { number }, channel)
}

pub fn credit(channel: u32, stream: Stream, consumed: u64, limit: u64) -> Vec<u8> {
    message(&Credit { stream, consumed, limit }, channel)
}

/// A connection on which the test chooses every byte.
#[derive(Debug)]
pub struct Peer<S = TcpStream> {
    pub stream: S,
    decoder: Decoder,
}

/// The output and the exit of a command.
#[derive(Debug)]
pub struct Finished {
    pub stdout: Vec<u8>,
    pub exit: Exit,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        Self::over(stream)
    }

    /// An authenticated plain connection.
    pub fn authenticated(labshd: &Labshd) -> Self {
        let mut peer = Self::connect(labshd.plain);
        peer.authenticate(labshd);
        peer
    }

    /// An authenticated plain connection with another key than the test's.
    pub fn authenticated_with(labshd: &Labshd, key: &HostKey) -> Self {
        let mut peer = Self::connect(labshd.plain);
        let (response, answered) = peer.respond(key, Mode::Plain, ChannelBinding::PLAIN);
        peer.send_frame(&response);
        answered.finish(&peer.next().unwrap()).unwrap();
        peer
    }

    pub fn authenticate(&mut self, labshd: &Labshd) {
        self.authenticate_with(labshd, Features::SUPPORTED);
    }

    /// Authenticates as a client with these features only.
    pub fn authenticate_with(&mut self, labshd: &Labshd, features: Features) {
        self.introduce(labshd, features).unwrap();
    }

    /// Authenticates, or returns the refusal of a busy host.
    pub fn try_authenticate(&mut self, labshd: &Labshd) -> Result<(), Refuse> {
        self.introduce(labshd, Features::SUPPORTED).map_err(|failure| match failure {
            ClientFailure::Refused(refuse) => refuse,
            other => panic!("{other}"),
        })
    }

    fn introduce(&mut self, labshd: &Labshd, features: Features) -> Result<(), ClientFailure> {
        let (mode, binding) = (Mode::Plain, ChannelBinding::PLAIN);
        let (response, answered) = self.respond_with(&labshd.host_key(), mode, binding, features);
        self.send_frame(&response);
        answered.finish(&self.next().unwrap()).map(drop)
    }

    /// The same connection, for another thread to write to.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }
}

impl<S: Read + Write + Debug> Peer<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    pub fn send_frame(&mut self, frame: &Frame) {
        self.send(&framing::to_bytes(frame));
    }

    /// Receives the challenge, and returns the response to it without sending it.
    pub fn respond(
        &mut self,
        key: &HostKey,
        mode: Mode,
        binding: ChannelBinding,
    ) -> (Frame, AwaitingWelcome) {
        self.respond_with(key, mode, binding, Features::SUPPORTED)
    }

    fn respond_with(
        &mut self,
        key: &HostKey,
        mode: Mode,
        binding: ChannelBinding,
        features: Features,
    ) -> (Frame, AwaitingWelcome) {
        let nonce = Nonce(random::bytes());
        let client = Client { mode, key: key.clone(), nonce, features, binding };
        let challenge = self.next().unwrap();
        client.answer(&challenge).unwrap()
    }

    /// The next frame; none if the connection ends properly, between two frames.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame(limits::MAX_BODY).unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 16 << 10];
            let count = self.stream.read(&mut buffer).expect("neither reset nor silent");
            if count == 0 {
                self.decoder.finish().unwrap();
                return None;
            }
            self.decoder.buffer().extend_from_slice(&buffer[..count]);
        }
    }

    /// The next frame of this kind on this channel; frames before it are ignored.
    pub fn until(&mut self, kind: Kind, channel: u32) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("{kind} on {channel} before the end"));
            if frame.kind == kind && frame.channel == ChannelId(channel) {
                return frame;
            }
            assert!(frame.kind != Kind::Refuse, "{:?}", Refuse::from_frame(&frame));
        }
    }

    /// The next frame of this channel; frames of others are ignored.
    pub fn next_of(&mut self, channel: u32) -> Frame {
        loop {
            let frame = self.next().expect("a frame before the end");
            if frame.channel == ChannelId(channel) {
                return frame;
            }
        }
    }

    /// The refusal of the connection, which must end after it.
    pub fn refusal(&mut self) -> Refuse {
        let refuse = loop {
            let frame = self.next().expect("a refusal before the end");
            if frame.kind == Kind::Refuse && frame.channel == CONNECTION {
                break Refuse::from_frame(&frame).unwrap();
            }
        };
        let more = self.next().map(|frame| frame.kind);
        assert_eq!(more, None, "no frame may follow a refusal");
        refuse
    }

    /// The refusal of a command.
    pub fn refused(&mut self, channel: u32) -> Refuse {
        loop {
            let frame = self.next().expect("a refusal before the end");
            if frame.kind == Kind::Refuse {
                assert_eq!(frame.channel, ChannelId(channel));
                return Refuse::from_frame(&frame).unwrap();
            }
        }
    }

    /// All remaining bytes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.decoder.buffer().split().to_vec();
        self.stream.read_to_end(&mut rest).expect("no reset");
        rest
    }

    pub fn started(&mut self, channel: u32) -> i32 {
        Started::from_frame(&self.until(Kind::Started, channel)).unwrap().pid as i32
    }

    /// Reads one command to its end; other channels are ignored.
    pub fn finish(&mut self, channel: u32) -> Finished {
        let mut stdout = Vec::new();
        loop {
            let frame = self.next().expect("an exit before the end");
            if frame.channel != ChannelId(channel) {
                assert!(frame.kind != Kind::Refuse, "{:?}", Refuse::from_frame(&frame));
                continue;
            }
            match frame.kind {
                Kind::Stdout => stdout.extend_from_slice(&frame.body),
                Kind::Exit => return Finished { stdout, exit: Exit::from_frame(&frame).unwrap() },
                Kind::Refuse => panic!("{:?}", Refuse::from_frame(&frame)),
                _ => {}
            }
        }
    }

    /// Runs a short command on a channel, which shows that the connection works.
    pub fn check(&mut self, channel: u32) {
        self.send(&open(channel, &["echo", "well"]));
        let finished = self.finish(channel);
        assert_eq!(
            (finished.exit.status, text(&finished.stdout).as_str()),
            (Status::Exited(0), "well\n")
        );
        self.send(&close(channel));
    }
}

/// A connection from this address, which may be any of 127.0.0.0/8.
pub fn connect_from(source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// The running processes of commands that labshd has started. (Ended ones stay zombies until their
/// process group has been signalled.)
pub fn commands(labshd: &Labshd) -> Vec<i32> {
    children(labshd.pid()).into_iter().flat_map(children).filter(|pid| is_alive(*pid)).collect()
}

/// Asserts that labshd works: a command runs, nothing has panicked, and no command is left.
pub fn assert_well(labshd: &Labshd) {
    let output = labshd.output(&["echo", "well"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "well\n"),
        "{output:?}"
    );
    eventually("no command is left", || commands(labshd).is_empty());
    assert_eq!(labshd.log().count("panicked"), 0, "{}", labshd.log().text());
}

/// Asserts that a connection was refused for a protocol error, naming the rule.
pub fn assert_broke(refuse: &Refuse, rule: &str) {
    assert_eq!(refuse.code, RefuseCode::PROTOCOL, "{refuse:?}");
    assert!(refuse.reason.contains(rule), "{refuse:?} should say {rule:?}");
}
