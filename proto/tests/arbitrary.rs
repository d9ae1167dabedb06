//! Arbitrary bytes from a peer, in pieces of any size: the same frames or an error, never a panic.

use bytes::Bytes;
use labsh_proto::channel::{Channels, Role};
use labsh_proto::error::ProtocolError;
use labsh_proto::explanation::Explained;
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::{ChannelId, Decoder, Frame, Kind};
use labsh_proto::key::{HostKey, Key};
use labsh_proto::limits::MAX_BODY;
use labsh_proto::message::{
    Body, Challenge, CommandId, Credit, Ended, Eof, Exit, Features, Goodbye, InstanceId, Open,
    Ping, Pong, Program, Proof, Refuse, Resize, Response, Signal, Started, Stop, Stream, Until,
    Welcome,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn kind() -> impl Strategy<Value = Kind> {
    select(Kind::ALL)
}

/// A frame with a valid header and any body.
fn frame(body: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Frame> {
    (kind(), 0..4_u8, 1..5_u32, body).prop_map(|(kind, flags, channel, body)| {
        let frame =
            |flags, channel| Frame { flags, ..Frame::new(kind, ChannelId(channel), body.clone()) };
        let candidates =
            [frame(flags, channel), frame(flags & 1, channel), frame(0, channel), frame(0, 0)];
        let decodes = |frame: &&Frame| {
            labsh_proto::frame::Header::decode(&frame.header().encode(), MAX_BODY).is_ok()
        };
        candidates.iter().find(decodes).expect("one of them fits").clone()
    })
}

/// A body that is likely to be valid for its kind.
fn likely_body() -> impl Strategy<Value = Vec<u8>> {
    let stream = select(vec![Stream::Stdin, Stream::Stdout, Stream::Stderr]);
    let credit =
        (stream.clone(), 0..200_000_u64, 0..2_000_000_u64).prop_map(|(stream, consumed, limit)| {
            Credit { stream, consumed, limit }.frame(ChannelId(1)).body.to_vec()
        });
    let open = Open::new(CommandId([0; 16]), Program::Argv(vec![b"true".to_vec()]));
    let open = open.encode().expect("a good command").to_vec();
    let explained =
        Explained { user: "alice".into(), words: vec![b"true".to_vec()], ..Explained::default() };
    let explained = explained.frame(ChannelId(1)).body.to_vec();
    prop_oneof![
        stream.prop_map(|stream| Eof { stream }.frame(ChannelId(1)).body.to_vec()),
        credit,
        Just(open),
        Just(explained),
        Just(vec![0; 8]),
        Just(vec![0; 4]),
        Just(Vec::new()),
        (1_usize..=65_536).prop_map(|length| vec![b'x'; length]),
        vec(any::<u8>(), 0..100),
    ]
}

/// Decodes the bytes in pieces of these sizes, up to the first error.
fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<Frame>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(cuts.next().unwrap_or(1)));
        rest = after;
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_frame(MAX_BODY) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

fn check<B: Body + PartialEq + std::fmt::Debug>(frame: &Frame) {
    if let Ok(body) = B::from_frame(frame) {
        // Every value has exactly one encoding.
        assert_eq!(body.frame(frame.channel).body, frame.body);
    }
}

fn check_every_body(frame: &Frame) {
    check::<Challenge>(frame);
    check::<Response>(frame);
    check::<Welcome>(frame);
    check::<Refuse>(frame);
    check::<Ping>(frame);
    check::<Pong>(frame);
    check::<Goodbye>(frame);
    check::<Started>(frame);
    check::<Eof>(frame);
    check::<Stop>(frame);
    check::<Credit>(frame);
    check::<Signal>(frame);
    check::<Resize>(frame);
    check::<Ended>(frame);
    check::<Exit>(frame);
    check::<Explained>(frame);
    if let Ok(open) = Open::decode(&frame.body)
        && let Ok(body) = open.encode()
    {
        assert_eq!(body, frame.body);
    }
}

/// Passes frames to one end and uses its streams in between, as a session does; continues after
/// errors.
fn exercise(role: Role, frames: Vec<Frame>) {
    let mut channels = Channels::new(role, 2, ConnectionBudget::new(Budget::new(1 << 20)));
    if role == Role::Client {
        for word in ["a", "b"] {
            let program = Program::Argv(vec![word.into()]);
            let open = Open { until: Until::CommandEnds, ..Open::new(CommandId([0; 16]), program) };
            let opened = if word == "a" {
                channels.open(&open)
            } else {
                channels.request_explanation(&open)
            };
            opened.expect("a free slot");
        }
    }
    for frame in frames {
        let (id, kind) = (frame.channel, frame.kind);
        let _ = channels.receive(frame);
        if role == Role::Server && kind == Kind::Open {
            channels.started(id, 1);
        }
        for stream in [Stream::Stdin, Stream::Stdout, Stream::Stderr] {
            if let labsh_proto::channel::Read::Bytes(bytes) = channels.read(id, stream) {
                channels.consume(id, stream, bytes.len());
            }
            if let Ok(capacity) = channels.write_capacity(id, stream) {
                let _ = channels.write(id, stream, Bytes::from(vec![0; capacity]));
            }
        }
        let promised = channels.has_frame();
        assert_eq!(channels.next_frame().is_some(), promised);
    }
    while channels.next_frame().is_some() {}
    assert!(!channels.has_frame());
}

proptest! {
    #[test]
    fn a_welcome_has_a_valid_version_if_and_only_if_its_features_say_so(
        announced in any::<bool>(),
        version in of("[ -~é\n]{0,66}"),
    ) {
        let features = Features::TERMINAL.with(Features::VERSION, announced);
        let (instance, proof) = (InstanceId([1; 16]), Proof([2; 32]));
        let valid = version.as_ref().is_none_or(|text| {
            (1..=64).contains(&text.len()) && text.chars().all(|c| c == ' ' || c.is_ascii_graphic())
        });
        let valid = valid && announced == version.is_some();
        let welcome = Welcome { instance, features, channels: 3, proof, version };
        let read = Welcome::from_frame(&welcome.frame(ChannelId::CONNECTION)).ok();
        prop_assert_eq!(read, valid.then_some(welcome));
    }

    #[test]
    fn frames_are_decoded_from_pieces_of_any_size(
        frames in vec(frame(vec(any::<u8>(), 0..2_000)), 0..12),
        cuts in vec(1..3_000_usize, 0..40),
    ) {
        let bytes: Vec<u8> =
            frames.iter().flat_map(|frame| [&frame.header().encode(),
                &frame.body[..]].concat()).collect();
        prop_assert_eq!(decode(&bytes, &cuts), (frames, Ok(())));
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_is_an_error(
        frame in frame(vec(any::<u8>(), 0..100)), cut in any::<Index>(),
    ) {
        let bytes = [&frame.header().encode(), &frame.body[..]].concat();
        let got = 1 + cut.index(bytes.len() - 1);
        let expected = if got < 12 { 12 } else { bytes.len() };
        prop_assert_eq!(decode(&bytes[..got], &[]).1, Err(ProtocolError::Truncated { got,
            expected }));
    }

    #[test]
    fn any_bytes_decode_the_same_in_pieces_of_any_size(
        bytes in vec(prop_oneof![3 => Just(0), 1 => 0..0x20_u8, 1 => any::<u8>()], 0..400),
        cuts in vec(1..50_usize, 0..100),
    ) {
        prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[]));
    }

    #[test]
    fn no_body_panics_and_every_value_has_one_encoding(
        kind in kind(), body in prop_oneof![vec(any::<u8>(), 0..200), vec(0..3_u8, 0..200),
            likely_body()],
    ) {
        check_every_body(&Frame::new(kind, ChannelId(1), body));
    }

    #[test]
    fn no_sequence_of_frames_panics(frames in vec(frame(likely_body()), 0..60),
        server in any::<bool>()) {
        exercise(if server { Role::Server } else { Role::Client }, frames);
    }

    #[test]
    fn no_line_of_text_panics(line in "(labsh-key-1|labsh-host-1|x)?[ \
        a-z0-9\u{80}-\u{ffff}]{0,200}") {
        prop_assert!(Key::from_line(&line).is_err());
        prop_assert!(HostKey::from_line(&line).is_err());
    }
}
