//! Compares the worked example of docs/PROTOCOL.md with the bytes of a session of this code.

use bytes::Bytes;
use labsh_proto::auth::{ChannelBinding, Mode, ServerParameters};
use labsh_proto::channel::{Channels, Completeness, Event, Read, Role};
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::{ChannelId, Decoder, Frame};
use labsh_proto::handshake::{Client, Server};
use labsh_proto::key::{HostId, HostKey, Key, KeyId, Secret};
use labsh_proto::limits::MAX_BODY;
use labsh_proto::message::{
    Body, CommandId, Features, Goodbye, InstanceId, Nonce, Open, Program, Status, Stream, Usage,
};

const DOCUMENT: &str = include_str!("../../docs/PROTOCOL.md");
const ONE: ChannelId = ChannelId(1);

/// Returns the bytes of one of the document's hex blocks, counted from 1, and the sender of each.
fn documented(block: usize) -> Vec<(char, u8)> {
    let block = DOCUMENT
        .split("```hex\n")
        .nth(block)
        .and_then(|rest| rest.split("```").next())
        .expect("a block");
    let line = |line: &'static str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let sender = words.next().map_or('?', |word| word.chars().next().unwrap_or('?'));
        words.map(move |byte| (sender, u8::from_str_radix(byte, 16).expect(line)))
    };
    block.lines().flat_map(line).collect()
}

fn counting<const LENGTH: usize>(first: u8) -> [u8; LENGTH] {
    std::array::from_fn(|index| first + index as u8)
}

/// The bytes sent so far, with their senders.
#[derive(Default)]
struct Session(Vec<(char, u8)>);

impl Session {
    /// Encodes a frame, and decodes it again for the receiver.
    fn transmit(&mut self, sender: char, frame: &Frame) -> Frame {
        let bytes = [&frame.header().encode(), &frame.body[..]].concat();
        self.0.extend(bytes.iter().map(|byte| (sender, *byte)));
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&bytes);
        decoder.next_frame(MAX_BODY).expect("a good frame").expect("a whole frame")
    }

    fn authenticate(&mut self, features: Features, version: Option<&str>) {
        let key = Key::new(KeyId::new("alice").expect("a key id"), Secret::new(counting(0x00)));
        let key = key.for_host(&HostId::new("lab07").expect("a host id"));
        let client = Client {
            mode: Mode::Plain,
            key: key.clone(),
            nonce: Nonce(counting(0xc0)),
            features,
            binding: ChannelBinding::PLAIN,
        };
        let server = Server::new(Mode::Plain, Nonce(counting(0xa0)));
        let challenge = self.transmit('S', &server.challenge());
        let (response, client) = client.answer(&challenge).expect("a challenge");
        let response = server.read(&self.transmit('C', &response)).expect("a response");
        let dummy = HostKey::dummy(Secret::new([0; 32]));
        let authenticated = server
            .verify(&response, Some(&key), &dummy, None, ChannelBinding::PLAIN)
            .expect("a right proof");
        let instance = InstanceId(counting(0xe0));
        let parameters =
            ServerParameters { instance, features, channels: 64, version: version.map(Into::into) };
        let welcome = self.transmit('S', &authenticated.welcome(parameters.clone()));
        assert_eq!(client.finish(&welcome), Ok(parameters));
    }

    /// Transmits all frames that one end has queued; returns the events at the other.
    fn exchange(&mut self, sender: char, from: &mut Channels, to: &mut Channels) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(frame) = from.next_frame() {
            events.push(to.receive(self.transmit(sender, &frame)).expect("a good frame"));
        }
        events
    }
}

fn channels(role: Role) -> Channels {
    Channels::new(role, 64, ConnectionBudget::new(Budget::new(0)))
}

#[test]
fn a_session_has_the_documented_bytes() {
    let mut session = Session::default();
    session.authenticate(Features(0), None);

    let (mut client, mut server) = (channels(Role::Client), channels(Role::Server));
    let open =
        Open::new(CommandId(counting(0x30)), Program::Argv(vec![b"echo".to_vec(), b"hi".to_vec()]));
    assert_eq!(client.open(&open), Ok(ONE));
    client.finish(ONE, Stream::Stdin);
    let events = session.exchange('C', &mut client, &mut server);
    let [Event::Opened(ONE, opened), Event::Readable(ONE, Stream::Stdin)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(opened.decode(), Ok(open));

    server.started(ONE, 4242);
    server.write(ONE, Stream::Stdout, Bytes::from_static(b"hi\n")).unwrap();
    server.finish(ONE, Stream::Stdout);
    server.finish(ONE, Stream::Stderr);
    server.ended(ONE, Status::Exited(0));
    let usage = Usage { wall: 1_500, user: 900, system: 600, peak_memory: 2 << 20 };
    server.exit(ONE, Status::Exited(0), false, usage);
    let events = session.exchange('S', &mut server, &mut client);
    assert!(
        matches!(events.last(), Some(Event::Exited(ONE, _, Completeness::Complete))),
        "{events:?}"
    );
    assert_eq!(client.read(ONE, Stream::Stdout), Read::Bytes(Bytes::from_static(b"hi\n")));

    client.close(ONE);
    assert_eq!(session.exchange('C', &mut client, &mut server), [Event::Closed(ONE)]);
    session.transmit('C', &Goodbye::new("").frame(ChannelId::CONNECTION));

    assert_eq!(session.0, documented(1));
}

#[test]
fn a_handshake_with_a_version_has_the_documented_bytes() {
    let mut session = Session::default();
    session.authenticate(Features(0x19), Some("labshd 0.1.0"));
    let challenge = 12 + 32;
    assert_eq!(session.0[challenge..], documented(2));
}
