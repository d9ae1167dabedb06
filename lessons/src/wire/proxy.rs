//! A proxy between labsh and labshd: it decodes every message and forwards the bytes in any pieces.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use labsh_proto::frame::{Decoder, Frame, Kind};
use labsh_proto::limits::MAX_BODY;

use crate::flow::{Carrier, Flow};
use crate::real_session::{CommandOutput, RealSession};
use crate::sockets::{joined, recv, with_timeouts};
use crate::stage::LessonError;

/// How the proxy forwards bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarding {
    AsItComes,
    SingleBytes,
    /// As late as possible: when the receiver waits for them.
    LargeBlocks,
}

/// Bytes of the largest block. A stream's first credit is larger, so a sender that waits for credit
/// has filled a block.
const MAX_BLOCK_SIZE: usize = 64 << 10;

/// The end that sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Labsh,
    Labshd,
}

/// A message that passed the proxy.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) sender: Sender,
    pub(super) frame: Frame,
}

/// A session that was watched.
pub(super) struct Watched {
    pub(super) output: CommandOutput,
    /// The messages of both directions, in the order in which they passed.
    pub(super) messages: Vec<Message>,
    pub(super) to_labshd: Flow,
    pub(super) to_labsh: Flow,
}

/// Returns the command's stdout as labshd sent it.
pub(super) fn stdout_of(messages: &[Message]) -> Vec<u8> {
    let frames = messages.iter().map(|message| &message.frame);
    let stdout = frames.filter(|frame| frame.kind == Kind::Stdout);
    stdout.flat_map(|frame| frame.body.to_vec()).collect()
}

/// Runs a command through the proxy.
pub(super) fn watch(
    session: &RealSession,
    line: &str,
    forwarding: Forwarding,
) -> Result<Watched, LessonError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (server, messages) = (session.server, Mutex::default());
    let direction = |sender, label: &str| Direction {
        sender,
        forwarding,
        flow: Flow::over(Carrier::Proxy, label),
        messages: &messages,
    };
    let to_labshd = direction(Sender::Labsh, "labsh → labshd");
    let to_labsh = direction(Sender::Labshd, "labshd → labsh");
    let output = thread::scope(|scope| {
        let proxying = scope.spawn(|| join_ends(&listener, server, &to_labshd, &to_labsh));
        let output = (session.run_line)(address, line);
        if output.is_err() {
            // If labsh never connected, this connection ends the proxy's wait.
            let _ = TcpStream::connect(address);
        }
        let proxied = joined(proxying.join())?;
        let output =
            output.map_err(|error| LessonError::bad_option(format!("`{line}`: {error}")))?;
        proxied?;
        Ok::<_, LessonError>(output)
    })?;
    let (to_labshd, to_labsh) = (to_labshd.flow, to_labsh.flow);
    let messages = messages.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Watched { output, messages, to_labshd, to_labsh })
}

/// Joins labsh and labshd, in both directions, until both have closed.
fn join_ends(
    listener: &TcpListener,
    server: SocketAddr,
    to_labshd: &Direction,
    to_labsh: &Direction,
) -> io::Result<()> {
    let labsh = with_timeouts(listener.accept()?.0)?;
    let labshd = with_timeouts(TcpStream::connect(server)?)?;
    for socket in [&labsh, &labshd] {
        socket.set_nodelay(true)?; // So that a single byte is a segment of its own.
    }
    thread::scope(|scope| {
        let requests = scope.spawn(|| to_labshd.forward(&labsh, &labshd));
        let answered = to_labsh.forward(&labshd, &labsh);
        joined(requests.join())?.and(answered)
    })
}

/// One direction of the proxy.
struct Direction<'a> {
    sender: Sender,
    forwarding: Forwarding,
    flow: Flow,
    messages: &'a Mutex<Vec<Message>>,
}

impl Direction<'_> {
    /// Forwards bytes until the sender closes its end.
    fn forward(&self, from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; MAX_BLOCK_SIZE];
        let mut block = Vec::new();
        loop {
            let count = recv(from, &mut buffer)?;
            block.extend_from_slice(&buffer[..count]);
            decoder.buffer().extend_from_slice(&buffer[..count]);
            let mut is_awaited = count == 0;
            while let Some(frame) = decoder.next_frame(MAX_BODY).map_err(io::Error::other)? {
                is_awaited |= self.is_awaited(frame.kind);
                self.note(frame);
            }
            let hold_back = self.forwarding == Forwarding::LargeBlocks && !is_awaited;
            if hold_back && block.len() < MAX_BLOCK_SIZE {
                continue;
            }
            let single = self.forwarding == Forwarding::SingleBytes;
            for piece in block.chunks(if single { 1 } else { MAX_BLOCK_SIZE }) {
                to.write_all(piece)?;
                self.flow.read(piece);
            }
            block.clear();
            if count == 0 {
                break;
            }
        }
        // Forwards the end of the stream; an error means that the receiver has closed already.
        let _ = to.shutdown(Shutdown::Write);
        Ok(())
    }

    fn note(&self, frame: Frame) {
        self.flow.message(frame.kind.name());
        self.flow.wrote(&[&frame.header().encode()[..], &frame.body].concat());
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(Message { sender: self.sender, frame });
    }

    /// Whether the receiver, or its command, does nothing before it has this message: if it were
    /// held back, both ends would wait forever.
    fn is_awaited(&self, kind: Kind) -> bool {
        match self.sender {
            Sender::Labsh => !matches!(kind, Kind::Open | Kind::Close),
            Sender::Labshd => matches!(
                kind,
                Kind::Challenge | Kind::Welcome | Kind::Credit | Kind::Exit | Kind::Refuse
            ),
        }
    }
}
