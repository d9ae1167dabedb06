//! The rules for channels that a peer can violate, and the error for each.

use bytes::Bytes;
use labsh_proto::channel::{Channels, Completeness, Event, OpenError, Read, Role};
use labsh_proto::error::ProtocolError;
use labsh_proto::explanation::Explained;
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::{ChannelId, FLAG_EXPLAIN, FLAG_MORE, Frame, Kind};
use labsh_proto::limits;
use labsh_proto::message::{
    Body, Challenge, CommandId, Credit, Ended, Eof, Exit, Goodbye, Nonce, Open, Ping, Pong,
    Program, Refuse, RefuseCode, Resize, Signal, Started, Status, Stop, Stream, Usage,
};

const ONE: ChannelId = ChannelId(1);
const TWO: ChannelId = ChannelId(2);

fn channels(role: Role, limit: u32) -> Channels {
    Channels::new(role, limit, ConnectionBudget::new(Budget::new(1 << 30)))
}

fn command(words: &[&str]) -> Open {
    Open::new(
        CommandId([1; 16]),
        Program::Argv(words.iter().map(|word| word.as_bytes().to_vec()).collect()),
    )
}

fn open_frame(channel: ChannelId) -> Frame {
    Frame::new(Kind::Open, channel, command(&["true"]).encode().expect("a good command"))
}

/// A server on which channel 1 was opened.
fn server() -> Channels {
    let mut server = channels(Role::Server, 2);
    assert!(matches!(server.receive(open_frame(ONE)), Ok(Event::Opened(ONE, _))));
    server
}

/// A client that has sent the `open` of channel 1.
fn waiting_client() -> Channels {
    let mut client = channels(Role::Client, 2);
    assert_eq!(client.open(&command(&["true"])), Ok(ONE));
    while client.next_frame().is_some() {}
    client
}

/// A client whose command on channel 1 is running.
fn client() -> Channels {
    let mut client = waiting_client();
    let started = Started { pid: 7 };
    assert_eq!(client.receive(started.frame(ONE)), Ok(Event::Started(ONE, started)));
    client
}

fn data(kind: Kind, length: usize) -> Frame {
    Frame::new(kind, ONE, vec![b'x'; length])
}

/// Receives and consumes `bytes` of stdout on channel 1, in frames of `length`; returns the last
/// limit that the client announced.
fn limit_after(client: &mut Channels, bytes: usize, length: usize) -> u64 {
    let mut limit = limits::FIRST_OUTPUT_LIMIT;
    for _ in 0..bytes / length {
        client.receive(data(Kind::Stdout, length)).expect("within the limit");
        assert!(matches!(client.read(ONE, Stream::Stdout), Read::Bytes(_)));
        client.consume(ONE, Stream::Stdout, length);
        while let Some(frame) = client.next_frame() {
            limit = Credit::from_frame(&frame).expect("only credits").limit;
        }
    }
    limit
}

fn exit(stdout: u64) -> Exit {
    Exit { status: Status::Exited(0), timed_out: false, stdout, stderr: 0, usage: Usage::default() }
}

#[test]
fn a_channel_id_is_used_once() {
    let reused = |channel| ProtocolError::ChannelReused { channel, highest: TWO };
    let mut server = channels(Role::Server, 2);
    server.receive(open_frame(TWO)).unwrap();
    assert_eq!(server.receive(open_frame(TWO)), Err(reused(TWO)));
    assert_eq!(server.receive(open_frame(ONE)), Err(reused(ONE)));
    assert_eq!(server.receive(Frame::new(Kind::Close, TWO, Bytes::new())), Ok(Event::Closed(TWO)));
    assert_eq!(server.receive(open_frame(TWO)), Err(reused(TWO)));
}

#[test]
fn a_channel_that_was_never_opened_accepts_nothing() {
    for kind in [Kind::Stdin, Kind::Eof, Kind::Signal, Kind::Close] {
        let error = ProtocolError::NeverOpened { kind, channel: TWO };
        assert_eq!(server().receive(Frame::new(kind, TWO, &b"x"[..])), Err(error));
    }
}

#[test]
fn a_closed_channel_discards_everything() {
    let mut server = server();
    server.receive(Frame::new(Kind::Close, ONE, Bytes::new())).unwrap();
    for frame in [
        data(Kind::Stdin, 10),
        Eof { stream: Stream::Stdin }.frame(ONE),
        Signal { number: 15 }.frame(ONE),
        Frame::new(Kind::Close, ONE, Bytes::new()),
    ] {
        assert_eq!(server.receive(frame), Ok(Event::None));
    }
}

#[test]
fn a_close_has_no_body() {
    let error = server().receive(Frame::new(Kind::Close, ONE, &b"x"[..])).unwrap_err();
    assert!(matches!(error, ProtocolError::Malformed { kind: Kind::Close, .. }));
}

#[test]
fn no_frame_of_the_channel_may_interrupt_its_open() {
    let mut server = channels(Role::Server, 2);
    let mut first = open_frame(ONE);
    first.flags = FLAG_MORE;
    let rest = first.body.split_off(9);
    assert_eq!(server.receive(first), Ok(Event::None));
    // Frames of other channels may.
    assert!(matches!(server.receive(open_frame(TWO)), Ok(Event::Opened(TWO, _))));
    let error =
        ProtocolError::Unexpected { kind: Kind::Stdin, reason: "expected the rest of `open`" };
    assert_eq!(server.receive(data(Kind::Stdin, 1)), Err(error));
    assert!(matches!(server.receive(Frame::new(Kind::Open, ONE, rest)), Ok(Event::Opened(ONE, _))));
}

#[test]
fn an_open_of_the_maximum_length_is_accepted_and_a_longer_one_refused() {
    let sized = |total: usize| {
        let empty = command(&["a", "", "", "", "", "", "", "", ""]).encode().unwrap().len();
        let mut words = vec![b"a".to_vec()];
        let mut left = total - empty;
        for _ in 0..8 {
            let length = left.min(limits::MAX_WORD_WITH_NUL - 1);
            words.push(vec![b'b'; length]);
            left -= length;
        }
        assert_eq!(left, 0);
        let mut open = command(&[]);
        open.program = Program::Argv(words);
        open
    };
    let open = sized(limits::MAX_COMMAND);
    let mut client = channels(Role::Client, 1);
    let mut server = channels(Role::Server, 1);
    client.open(&open).unwrap();
    let mut last = Event::None;
    while let Some(frame) = client.next_frame() {
        last = server.receive(frame).unwrap();
    }
    let Event::Opened(ONE, opened) = last else { panic!("{last:?}") };
    assert_eq!((opened.len(), opened.decode()), (limits::MAX_COMMAND, Ok(open)));
    assert!(sized(limits::MAX_COMMAND + 1).encode().is_err());
    // A peer that sends more is refused after its last frame.
    let mut server = channels(Role::Server, 1);
    for _ in 0..17 {
        let frame = Frame { flags: FLAG_MORE, ..Frame::new(Kind::Open, ONE, vec![0; 65_536]) };
        assert_eq!(server.receive(frame), Ok(Event::None));
    }
    assert_eq!(server.next_frame(), None);
    assert_eq!(server.receive(Frame::new(Kind::Open, ONE, Bytes::new())), Ok(Event::None));
    let refuse = Refuse::from_frame(&server.next_frame().unwrap()).unwrap();
    assert_eq!(refuse.code, RefuseCode::BAD_COMMAND);
}

#[test]
fn too_many_channels_are_refused_and_far_too_many_are_fatal() {
    let mut server = channels(Role::Server, 2);
    for id in 1..=4 {
        let event = server.receive(open_frame(ChannelId(id))).unwrap();
        assert_eq!(matches!(event, Event::Opened(..)), id <= 2, "{id}");
    }
    for id in 3..=4 {
        let frame = server.next_frame().unwrap();
        assert_eq!(frame.channel, ChannelId(id));
        assert_eq!(Refuse::from_frame(&frame).unwrap().code, RefuseCode::TOO_MANY_CHANNELS);
    }
    assert_eq!(server.receive(open_frame(ChannelId(5))), Err(ProtocolError::TooManyChannels(2)));
}

#[test]
fn a_close_is_sent_before_the_open_that_reuses_its_slot() {
    let mut client = channels(Role::Client, 1);
    let mut server = channels(Role::Server, 1);
    client.open(&command(&["cat"])).unwrap();
    assert_eq!(client.open(&command(&["cat"])), Err(OpenError::NoSlot(1)));
    server.receive(client.next_frame().unwrap()).unwrap();
    // Input is still queued when the client closes the channel. If the close waited for its turn,
    // the next open would be sent first.
    client.write(ONE, Stream::Stdin, Bytes::from(vec![0; 100_000])).unwrap();
    client.close(ONE);
    client.open(&command(&["true"])).unwrap();
    assert_eq!(server.receive(client.next_frame().unwrap()), Ok(Event::Closed(ONE)));
    assert!(matches!(server.receive(client.next_frame().unwrap()), Ok(Event::Opened(TWO, _))));
    assert_eq!(client.next_frame(), None);
}

#[test]
fn a_channel_closed_before_its_open_is_sent_stays_unknown_to_the_server() {
    let mut client = channels(Role::Client, 1);
    client.open(&command(&["true"])).unwrap();
    client.signal(ONE, Signal { number: 1 });
    client.close(ONE);
    assert!(!client.has_frame());
    client.open(&command(&["true"])).unwrap();
    let mut server = channels(Role::Server, 1);
    assert!(matches!(server.receive(client.next_frame().unwrap()), Ok(Event::Opened(TWO, _))));
}

#[test]
fn priority_frames_overtake_data_and_keep_their_order() {
    let mut client = channels(Role::Client, 1);
    client.open(&command(&["cat"])).unwrap();
    client.write(ONE, Stream::Stdin, Bytes::from_static(b"x")).unwrap();
    client.signal(ONE, Signal { number: 1 });
    client.signal(ONE, Signal { number: 2 });
    let mut kinds = vec![client.next_frame().unwrap().kind];
    client.signal(ONE, Signal { number: 3 });
    let mut numbers = Vec::new();
    while let Some(frame) = client.next_frame() {
        kinds.push(frame.kind);
        numbers.extend(Signal::from_frame(&frame).map(|signal| signal.number));
    }
    assert_eq!(kinds, [Kind::Open, Kind::Signal, Kind::Signal, Kind::Signal, Kind::Stdin]);
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn each_end_sends_only_its_own_messages() {
    let to_server =
        [Kind::Started, Kind::Stdout, Kind::Stderr, Kind::Ended, Kind::Exit, Kind::Refuse];
    for kind in to_server {
        let error = Err(ProtocolError::WrongDirection(kind));
        assert_eq!(server().receive(Frame::new(kind, ONE, &b"x"[..])), error);
    }
    for kind in [Kind::Open, Kind::Stdin, Kind::Signal, Kind::Resize, Kind::Close] {
        let error = Err(ProtocolError::WrongDirection(kind));
        assert_eq!(client().receive(Frame::new(kind, ONE, &b"x"[..])), error);
    }
}

#[test]
fn each_end_names_only_streams_of_the_permitted_direction() {
    let eof = |stream| Eof { stream }.frame(ONE);
    let stop = |stream| Stop { stream }.frame(ONE);
    let credit = |stream| Credit { stream, consumed: 0, limit: 1 << 20 }.frame(ONE);
    for frame in [eof(Stream::Stdout), stop(Stream::Stdin), credit(Stream::Stdin)] {
        let error = Err(ProtocolError::WrongDirection(frame.kind));
        assert_eq!(server().receive(frame), error);
    }
    for frame in [eof(Stream::Stdin), stop(Stream::Stdout), credit(Stream::Stderr)] {
        let error = Err(ProtocolError::WrongDirection(frame.kind));
        assert_eq!(client().receive(frame), error);
    }
}

#[test]
fn a_second_handshake_is_rejected() {
    let challenge = Challenge { server_nonce: Nonce([0; 32]) }.frame(ChannelId::CONNECTION);
    let error = client().receive(challenge).unwrap_err();
    assert!(matches!(error, ProtocolError::Unexpected { kind: Kind::Challenge, .. }));
}

#[test]
fn empty_data_frames_are_rejected() {
    assert_eq!(server().receive(data(Kind::Stdin, 0)), Err(ProtocolError::Empty(Kind::Stdin)));
    assert_eq!(client().receive(data(Kind::Stdout, 0)), Err(ProtocolError::Empty(Kind::Stdout)));
}

#[test]
fn data_past_the_limit_is_rejected() {
    let mut server = server();
    for _ in 0..2 {
        server.receive(data(Kind::Stdin, 65_536)).unwrap();
    }
    let limit = limits::FIRST_STDIN_LIMIT;
    assert_eq!(limit, 131_072);
    let error = ProtocolError::PastLimit {
        channel: ONE,
        stream: Stream::Stdin,
        position: limit + 1,
        limit,
    };
    assert_eq!(server.receive(data(Kind::Stdin, 1)), Err(error));
}

#[test]
fn with_low_latency_a_window_stays_small_beside_an_interactive_channel() {
    const MIB: usize = 1 << 20;
    let limits_beside = |low_latency: bool, length: usize| {
        let mut client = client();
        if low_latency {
            client.set_low_latency();
        }
        client.open(&command(&["true"])).expect("a free slot");
        while client.next_frame().is_some() {}
        client.receive(Started { pid: 8 }.frame(TWO)).expect("it was opened");
        let before = limit_after(&mut client, MIB, length);
        client.receive(Frame::new(Kind::Stdout, TWO, b"x".as_slice())).expect("it runs");
        (before, limit_after(&mut client, MIB, length))
    };
    let (mib, quarter) = (MIB as u64, 256 << 10);
    // Short frames of the stream itself do not count.
    for length in [64, 64 << 10] {
        assert_eq!(limits_beside(true, length), (mib + quarter, 2 * mib + quarter));
        assert_eq!(limits_beside(false, length), (2 * mib, 3 * mib));
    }
}

#[test]
fn a_window_grows_beside_idle_and_bulk_channels_as_it_does_alone() {
    const MIB: usize = 1 << 20;
    let mut client = waiting_client();
    client.set_low_latency();
    assert_eq!(client.open(&command(&["true"])), Ok(TWO));
    for (id, pid) in [(TWO, 8), (ONE, 7)] {
        client.receive(Started { pid }.frame(id)).expect("it was opened");
    }
    while client.next_frame().is_some() {}
    // The frames before this make the channel interactive for 64 MiB.
    limit_after(&mut client, 65 * MIB, 64 << 10);
    for _ in 0..7 {
        // The frames of one read of labshd from a pipe.
        for length in [65_524, 65_524, 24] {
            client
                .receive(Frame::new(Kind::Stdout, TWO, vec![b'x'; length]))
                .expect("within the limit");
        }
        let so_far = limit_after(&mut client, MIB, 64 << 10);
        assert_eq!(limit_after(&mut client, MIB, 64 << 10), so_far + MIB as u64);
    }
    assert_eq!(limit_after(&mut client, MIB, 64 << 10), (65 + 15 + 1) * MIB as u64);
}

#[test]
fn nothing_may_follow_the_end_of_a_stream() {
    for frame in [data(Kind::Stdin, 1), Eof { stream: Stream::Stdin }.frame(ONE)] {
        let mut server = server();
        server.receive(Eof { stream: Stream::Stdin }.frame(ONE)).unwrap();
        let error =
            ProtocolError::AfterEnd { kind: frame.kind, channel: ONE, stream: Stream::Stdin };
        assert_eq!(server.receive(frame), Err(error));
    }
}

#[test]
fn credit_must_not_decrease_or_exceed_its_bounds() {
    let mut client = client();
    client.write(ONE, Stream::Stdin, Bytes::from_static(b"0123456789")).unwrap();
    let stream = Stream::Stdin;
    let mut give = |consumed, limit| client.receive(Credit { stream, consumed, limit }.frame(ONE));
    let error = |detail| Err(ProtocolError::Credit { channel: ONE, stream, detail });
    assert_eq!(give(5, 200_000), Ok(Event::Writable(ONE, stream)));
    assert_eq!(give(5, 200_000), Ok(Event::Writable(ONE, stream)));
    assert_eq!(give(4, 200_000), error("the consumed position decreases"));
    assert_eq!(give(5, 199_999), error("the limit decreases"));
    assert_eq!(give(11, 200_000), error("the consumed position is past what was sent"));
    assert_eq!(
        give(5, limits::MAX_WINDOW + 6),
        error("the limit is more than 1 GiB past the consumed position")
    );
    assert_eq!(give(5, limits::MAX_WINDOW + 5), Ok(Event::Writable(ONE, stream)));
}

#[test]
fn a_command_starts_once_and_has_no_output_before() {
    let unexpected = |kind, reason| Err(ProtocolError::Unexpected { kind, reason });
    for frame in
        [data(Kind::Stdout, 1), data(Kind::Stderr, 1), Eof { stream: Stream::Stdout }.frame(ONE)]
    {
        let kind = frame.kind;
        assert_eq!(waiting_client().receive(frame), unexpected(kind, "expected `started`"));
    }
    assert_eq!(
        waiting_client().receive(exit(0).frame(ONE)),
        unexpected(Kind::Exit, "expected `started`")
    );
    let ended = Ended { status: Status::Exited(0) }.frame(ONE);
    assert_eq!(
        waiting_client().receive(ended.clone()),
        unexpected(Kind::Ended, "it is sent once, after `started`")
    );
    let started = Started { pid: 1 }.frame(ONE);
    assert_eq!(
        client().receive(started),
        unexpected(Kind::Started, "the command has already started")
    );
    let refuse = Refuse::new(RefuseCode::NOT_FOUND, "no", "").frame(ONE);
    assert_eq!(
        client().receive(refuse),
        unexpected(Kind::Refuse, "the command has already started")
    );
    let mut client = client();
    client.receive(ended.clone()).unwrap();
    assert_eq!(client.receive(ended), unexpected(Kind::Ended, "it is sent once, after `started`"));
}

#[test]
fn the_exit_shows_whether_all_output_arrived() {
    let stream = Stream::Stdout;
    let mut short = client();
    short.receive(data(Kind::Stdout, 9)).unwrap();
    let mismatch = Completeness::Mismatch { stream, received: 9, sent: 10 };
    assert_eq!(short.receive(exit(10).frame(ONE)), Ok(Event::Exited(ONE, exit(10), mismatch)));

    let mut whole = client();
    whole.receive(data(Kind::Stdout, 10)).unwrap();
    let complete = Event::Exited(ONE, exit(10), Completeness::Complete);
    assert_eq!(whole.receive(exit(10).frame(ONE)), Ok(complete));
    assert_eq!(whole.read(ONE, stream), Read::Bytes(Bytes::from_static(b"xxxxxxxxxx")));
    assert_eq!(whole.read(ONE, stream), Read::End);

    let mut stopped = client();
    stopped.stop(ONE, stream);
    let event = stopped.receive(exit(10).frame(ONE)).unwrap();
    assert!(matches!(event, Event::Exited(_, _, Completeness::Complete)));
}

#[test]
fn frames_in_flight_after_the_exit_are_discarded() {
    let mut server = server();
    server.started(ONE, 7);
    server.exit(ONE, Status::Exited(0), false, Usage::default());
    assert_eq!(server.receive(data(Kind::Stdin, 10)), Ok(Event::None));
    assert_eq!(server.receive(Signal { number: 15 }.frame(ONE)), Ok(Event::None));
    assert_eq!(server.receive(Frame::new(Kind::Close, ONE, Bytes::new())), Ok(Event::Closed(ONE)));
}

#[test]
fn bodies_are_bounded() {
    let malformed = |frame: Frame, reason: &str| {
        let kind = frame.kind;
        let role = if kind == Kind::Signal { server() } else { client() };
        let error = { role }.receive(frame).unwrap_err();
        assert_eq!(error, ProtocolError::Malformed { kind, detail: reason.into() });
    };
    malformed(Signal { number: 0 }.frame(ONE), "the signal number is not in 1 to 31");
    malformed(Signal { number: 32 }.frame(ONE), "the signal number is not in 1 to 31");
    let long = "x".repeat(2_049);
    malformed(
        Goodbye { reason: long.clone() }.frame(ChannelId::CONNECTION),
        "a text is longer than 2,048 bytes",
    );
    let refuse = Refuse { code: RefuseCode::BUSY, reason: String::new(), remedy: long.clone() };
    malformed(refuse.frame(ChannelId::CONNECTION), "a text is longer than 2,048 bytes");
    // Senders truncate, at a character boundary.
    assert_eq!(Goodbye::new("é".repeat(2_000)).reason.len(), 2_048);
    assert_eq!(Goodbye::new(format!("x{}", "é".repeat(2_000))).reason.len(), 2_047);
}

#[test]
fn several_pings_have_one_answer_with_the_last_token() {
    let mut server = server();
    for token in 1..=3 {
        server.receive(Ping { token }.frame(ChannelId::CONNECTION)).unwrap();
    }
    let pong = Pong::from_frame(&server.next_frame().unwrap()).unwrap();
    assert_eq!((pong.token, server.next_frame()), (3, None));
}

#[test]
fn a_resize_reaches_the_server() {
    let size = Resize { columns: 80, rows: 24, width: 0, height: 0 };
    assert_eq!(server().receive(size.frame(ONE)), Ok(Event::Resize(ONE, size)));
}

/// A server with queued output of an ended command on channel 1.
fn server_with_output() -> Channels {
    let mut server = server();
    server.started(ONE, 7);
    server.write(ONE, Stream::Stdout, Bytes::from(vec![b'x'; 200_000])).expect("there is a reader");
    server.exit(ONE, Status::Exited(0), false, Usage::default());
    server
}

fn kinds(channels: &mut Channels) -> Vec<Kind> {
    core::iter::from_fn(|| channels.next_frame()).map(|frame| frame.kind).collect()
}

#[test]
fn a_goodbye_is_sent_last() {
    let mut server = server_with_output();
    server.goodbye(&Goodbye::new("over"));
    let sent = kinds(&mut server);
    assert_eq!(sent[..2], [Kind::Started, Kind::Stdout]);
    assert_eq!(sent[sent.len() - 2..], [Kind::Exit, Kind::Goodbye]);
    server.ping(1);
    assert!(!server.has_frame());
    assert_eq!(server.next_frame(), None);
}

#[test]
fn a_refusal_of_the_connection_is_sent_at_once_and_alone() {
    let mut server = server_with_output();
    server.refuse_connection(&Refuse::new(RefuseCode::PROTOCOL, "a rule", ""));
    assert!(server.has_frame());
    assert_eq!(kinds(&mut server), [Kind::Refuse]);
    server.ping(1);
    assert!(!server.has_frame());
}

#[test]
fn unfinished_opens_are_bounded_together() {
    let mut server = Channels::new(Role::Server, 100, ConnectionBudget::new(Budget::new(0)));
    let part = Bytes::from(vec![0; limits::MAX_BODY as usize]);
    let mut send = |channel| {
        let frame =
            Frame { flags: FLAG_MORE, ..Frame::new(Kind::Open, ChannelId(channel), part.clone()) };
        server.receive(frame).expect("no violation");
    };
    // Fifteen parts are below the limit of one command; twenty such commands exceed the limit of
    // all.
    for channel in 1..=20 {
        (0..15).for_each(|_| send(channel));
    }
    let last = Frame::new(Kind::Open, ChannelId(20), Bytes::from_static(b"x"));
    server.receive(last).expect("no violation");
    let answer = server.next_frame().expect("a refusal");
    assert_eq!(
        (answer.channel, Refuse::from_frame(&answer).expect("a refusal").code),
        (ChannelId(20), RefuseCode::RESOURCES)
    );
}

#[test]
fn a_command_that_is_explained_is_never_started() {
    let mut server = channels(Role::Server, 2);
    let frame = Frame { flags: FLAG_EXPLAIN, ..open_frame(ONE) };
    assert!(matches!(server.receive(frame), Ok(Event::ExplainRequested(ONE, _))));
    let explained = Explained { user: "alice".into(), ..Explained::default() };
    server.explained(ONE, &explained);
    let answer = server.next_frame().expect("an answer");

    let explaining_client = || {
        let mut client = channels(Role::Client, 2);
        assert_eq!(client.request_explanation(&command(&["true"])), Ok(ONE));
        assert_eq!(client.next_frame().map(|frame| frame.flags), Some(FLAG_EXPLAIN));
        client
    };
    let mut client = explaining_client();
    assert_eq!(client.receive(answer.clone()), Ok(Event::Explained(ONE, explained)));
    assert_eq!(client.read(ONE, Stream::Stdout), Read::End);
    // The channel is over: further frames are discarded.
    assert_eq!(client.receive(answer.clone()), Ok(Event::None));
    let refuse = Refuse::new(RefuseCode::NOT_FOUND, "no", "");
    assert_eq!(explaining_client().receive(refuse.frame(ONE)), Ok(Event::Refused(ONE, refuse)));

    let unexpected = |kind, reason| Err(ProtocolError::Unexpected { kind, reason });
    assert_eq!(
        explaining_client().receive(Started { pid: 1 }.frame(ONE)),
        unexpected(Kind::Started, "expected `explained`")
    );
    assert_eq!(
        explaining_client().receive(exit(0).frame(ONE)),
        unexpected(Kind::Exit, "expected `started`")
    );
    assert_eq!(
        waiting_client().receive(answer),
        unexpected(Kind::Explained, "no explanation was requested")
    );
}

#[test]
fn only_the_last_frame_of_an_open_may_request_an_explanation() {
    let whole = open_frame(ONE);
    let part = |flags, body: Bytes| Frame { flags, ..Frame::new(Kind::Open, ONE, body) };
    for (first, last, explain) in
        [(FLAG_MORE | FLAG_EXPLAIN, 0, false), (FLAG_MORE, FLAG_EXPLAIN, true)]
    {
        let mut server = channels(Role::Server, 2);
        assert_eq!(server.receive(part(first, whole.body.slice(..9))), Ok(Event::None));
        let event = server.receive(part(last, whole.body.slice(9..))).expect("a command");
        assert_eq!(matches!(event, Event::ExplainRequested(..)), explain);
    }
}
