//! An authenticated client that breaks the protocol: the refusal names the rule, and no other
//! client is affected.

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use labsh_proto::auth::{ChannelBinding, Mode};
use labsh_proto::frame::{FLAG_MORE, Kind};
use labsh_proto::limits;
use labsh_proto::message::{
    Body, CommandId, Eof, Goodbye, Open, Program, RefuseCode, Started, Status, Stop, Stream,
};

use crate::peer::{
    Peer, assert_broke, assert_well, bytes, close, credit, eof, header, message, open, open_body,
    signal, stdin,
};
use crate::support::{Labshd, eventually, is_alive};

#[test]
fn the_hand_made_open_equals_the_encoders() {
    let open = Open::new(CommandId([7; 16]), Program::Argv(vec![b"a".to_vec(), b"bc".to_vec()]));
    assert_eq!(open.encode().unwrap(), open_body(&[b"a", b"bc"]));
}

/// Sends bytes while channel 1 runs a command that reads nothing, followed by far more than all
/// buffers hold, and asserts that the refusal names the rule.
fn break_rule(labshd: &Labshd, sent: &[u8], rule: &str) {
    let mut peer = Peer::authenticated(labshd);
    peer.send(&open(1, &["sleep", "1000"]));
    peer.started(1);
    let mut writer = peer.writer();
    let mut all = sent.to_vec();
    all.resize(sent.len() + (2 << 20), 0);
    let sending = thread::spawn(move || writer.write_all(&all));
    assert_broke(&peer.refusal(), rule);
    sending.join().unwrap().unwrap();
}

fn data(channel: u32, length: usize) -> Vec<u8> {
    stdin(channel, &vec![b'x'; length])
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table with a row for each error")]
fn each_protocol_error_is_refused_by_name_and_logged() {
    let labshd = Labshd::with("max_channels = 4");
    let stdin_kind = Kind::Stdin as u8;
    let eof_of = |stream| message(&Eof { stream }, 1);
    let stop_of = |stream| message(&Stop { stream }, 1);
    let trailing = |kind: Kind, channel, body: &[u8]| bytes(kind, channel, &[body, b"!"].concat());
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            header(u32::MAX, stdin_kind, 0, 0, 1),
            "announces a body of 4294967295 bytes, over the limit of 65536",
        ),
        (header(1 << 31, stdin_kind, 0, 0, 1), "announces a body of 2147483648 bytes"),
        (header(65_537, stdin_kind, 0, 0, 1), "announces a body of 65537 bytes"),
        (header(65_537, Kind::Open as u8, FLAG_MORE, 0, 2), "announces a body of 65537 bytes"),
        (header(4, 0x7f, 0, 0, 1), "unknown message kind 0x7f"),
        (header(4, 0x00, 0, 0, 0), "unknown message kind 0x00"),
        (header(8, Kind::Ping as u8, 0x80, 0, 0), "message `ping` has undefined flags 0x80"),
        (header(1, stdin_kind, 0x02, 0, 1), "message `stdin` has undefined flags 0x02"),
        (header(8, Kind::Ping as u8, 0, 1, 0), "reserved bytes of a header are 0x0001"),
        (header(8, Kind::Ping as u8, 0, 0, 1), "message `ping` is not allowed on channel 1"),
        (header(8, stdin_kind, 0, 0, 0), "message `stdin` is not allowed on channel 0"),
        (open(0, &["true"]), "message `open` is not allowed on channel 0"),
        (open(1, &["true"]), "cannot open channel 1: its id must be greater than 1"),
        (
            [close(1), open(1, &["true"])].concat(),
            "cannot open channel 1: its id must be greater than 1",
        ),
        (
            [open(7, &["true"]), open(6, &["true"])].concat(),
            "cannot open channel 6: its id must be greater than 7",
        ),
        (data(2, 1), "message `stdin` for channel 2, which was never opened"),
        (eof(u32::MAX), "message `eof` for channel 4294967295, which was never opened"),
        (close(2), "message `close` for channel 2, which was never opened"),
        (signal(2, 1), "message `signal` for channel 2, which was never opened"),
        (
            credit(2, Stream::Stdout, 0, 1 << 21),
            "message `credit` for channel 2, which was never opened",
        ),
        // More than the limit plus what the pipe may have taken meanwhile.
        (data(1, 64 << 10).repeat(48), "past the limit"),
        (credit(1, Stream::Stdout, 0, 0), "the limit decreases"),
        (credit(1, Stream::Stdout, 1, 1 << 21), "the consumed position is past what was sent"),
        (
            credit(1, Stream::Stdout, u64::MAX, u64::MAX),
            "the consumed position is past what was sent",
        ),
        (credit(1, Stream::Stdout, 0, u64::MAX), "the limit is more than 1 GiB past"),
        (
            credit(1, Stream::Stdin, 0, 1 << 21),
            "unexpected message `credit`: only the other end sends it",
        ),
        ([eof(1), data(1, 1)].concat(), "message `stdin` after the end of stdin on channel 1"),
        ([eof(1), eof(1)].concat(), "message `eof` after the end of stdin on channel 1"),
        (eof_of(Stream::Stdout), "unexpected message `eof`: only the other end sends it"),
        (stop_of(Stream::Stdin), "unexpected message `stop`: only the other end sends it"),
        (stdin(1, b""), "message `stdin` without data"),
        (trailing(Kind::Ping, 0, &[0; 8]), "malformed message `ping`: trailing bytes: 1"),
        (trailing(Kind::Eof, 1, &[0; 4]), "malformed message `eof`"),
        (trailing(Kind::Close, 1, b""), "malformed message `close`"),
        (
            trailing(Kind::Open, 2, &open_body(&[b"true"])),
            "malformed message `open`: trailing bytes: 1",
        ),
        (bytes(Kind::Ping, 0, &[0; 7]), "malformed message `ping`: it ends early"),
        (bytes(Kind::Eof, 1, &[0, 0, 0, 3]), "malformed message `eof`"),
        (bytes(Kind::Open, 2, b""), "malformed message `open`: it ends early"),
        (bytes(Kind::Open, 2, &[0xff; 300]), "malformed message `open`"),
        (
            bytes(Kind::Open, 2, &[&[0; 40][..], &[0x0f; 8], &[0; 64]].concat()),
            "malformed message `open`",
        ),
        (signal(1, 0), "malformed message `signal`"),
        (signal(1, 64), "malformed message `signal`"),
        (bytes(Kind::Refuse, 0, &[0; 18]), "unexpected message `refuse`: only a server sends it"),
        (bytes(Kind::Welcome, 0, &[0; 60]), "unexpected message `welcome`: only a server sends it"),
        (
            bytes(Kind::Challenge, 0, &[0; 32]),
            "unexpected message `challenge`: only a server sends it",
        ),
        (bytes(Kind::Stdout, 1, b"x"), "unexpected message `stdout`: only a server sends it"),
        (bytes(Kind::Exit, 1, &[0; 64]), "unexpected message `exit`: only a server sends it"),
        (message(&Started { pid: 1 }, 1), "unexpected message `started`: only a server sends it"),
        (bytes(Kind::Response, 0, &[0; 88]), "the handshake is over"),
        (
            [header(1, Kind::Open as u8, FLAG_MORE, 0, 2), vec![0], data(2, 1)].concat(),
            "unexpected message `stdin`: expected the rest of `open`",
        ),
        (
            (2..=9).flat_map(|id| open(id, &["sleep", "1000"])).collect(),
            "too many channels: the limit is 4",
        ),
    ];
    for (sent, rule) in &cases {
        break_rule(&labshd, sent, rule);
    }
    for (_, rule) in &cases {
        labshd.log().wait_for(rule);
    }
    labshd.log().wait_for_nth("the client broke the protocol", cases.len());
    assert_well(&labshd);
}

#[test]
fn a_refusal_arrives_even_after_much_output() {
    let labshd = Labshd::start();
    for _ in 0..20 {
        break_rule(&labshd, &header(4, 0x7f, 0, 0, 1), "unknown message kind");
        // The client has not read its output, is still sending, and reads only after that.
        let mut peer = Peer::authenticated(&labshd);
        peer.send(&[open(1, &["yes"]), credit(1, Stream::Stdout, 0, 1 << 30)].concat());
        peer.started(1);
        peer.send(&header(4, 0x7f, 0, 0, 1));
        peer.send(&vec![0; 4 << 20]);
        assert_broke(&peer.refusal(), "unknown message kind");
    }
    assert_well(&labshd);
}

/// A complete session with one command, as one piece; no part of it depends on an answer.
fn session(peer: &mut Peer, labshd: &Labshd) -> Vec<u8> {
    let (response, _) = peer.respond(&labshd.host_key(), Mode::Plain, ChannelBinding::PLAIN);
    let response = [&response.header().encode()[..], &response.body].concat();
    [response, open(1, &["cat"]), stdin(1, b"hello"), eof(1)].concat()
}

#[test]
fn a_session_does_not_depend_on_how_writes_are_split() {
    let labshd = Labshd::start();
    for size in [usize::MAX, 1, 7, 12, 13] {
        let mut peer = Peer::connect(labshd.plain);
        let all = session(&mut peer, &labshd);
        all.chunks(size.min(all.len())).for_each(|piece| peer.send(piece));
        assert_eq!(peer.finish(1).stdout, b"hello");
        peer.send(&close(1));
        peer.check(2);
    }
}

#[test]
fn a_session_may_be_cut_after_any_byte() {
    let labshd = Labshd::start();
    let length = {
        let mut peer = Peer::connect(labshd.plain);
        session(&mut peer, &labshd).len() + close(1).len()
    };
    for end in 0..=length {
        let mut peer = Peer::connect(labshd.plain);
        let all = [session(&mut peer, &labshd), close(1)].concat();
        peer.send(&all[..end]);
        // With and without a goodbye.
        if end % 2 == 0 {
            peer.stream.shutdown(Shutdown::Write).unwrap();
            peer.rest();
        }
    }
    assert_well(&labshd);
    assert_eq!(labshd.log().count("broke the protocol"), 0, "{}", labshd.log().text());
}

#[test]
fn frames_for_a_closed_channel_are_ignored() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    let late = [
        data(1, 60_000),
        data(1, 60_000),
        data(1, 60_000),
        eof(1),
        eof(1),
        credit(1, Stream::Stdout, 1 << 40, 1 << 41),
        signal(1, 9),
        message(&Stop { stream: Stream::Stdout }, 1),
    ]
    .concat();
    peer.send(&open(1, &["true"]));
    peer.finish(1);
    peer.send(&[late.clone(), close(1), late, close(1)].concat());
    peer.check(2);
    // None of it was taken for the next channel.
    peer.send(&open(3, &["cat"]));
    peer.send(&[stdin(3, b"own"), eof(3)].concat());
    assert_eq!(peer.finish(3).stdout, b"own");
}

#[test]
fn channels_beyond_the_limit_are_refused_one_by_one() {
    let labshd = Labshd::with("max_channels = 2");
    let mut peer = Peer::authenticated(&labshd);
    for id in [1, 2, 3, 4] {
        peer.send(&open(id, &["cat"]));
    }
    for id in [3, 4] {
        let refuse = loop {
            let frame = peer.next().unwrap();
            if frame.kind == Kind::Refuse {
                break (frame.channel.0, labsh_proto::message::Refuse::from_frame(&frame).unwrap());
            }
        };
        assert_eq!((refuse.0, refuse.1.code), (id, RefuseCode::TOO_MANY_CHANNELS));
    }
    peer.send(&[close(1), close(2), close(3), close(4)].concat());
    peer.check(5);
    assert_well(&labshd);
}

#[test]
fn a_client_refused_while_it_sends_stdin_gets_the_reason() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    // There is no such command, and all of stdin that may be sent without credit is in flight.
    peer.send(&open(1, &["/nonexistent"]));
    peer.send(&data(1, 64 << 10).repeat(2));
    assert_eq!(peer.refused(1).code, RefuseCode::NOT_FOUND);
    peer.send(&[eof(1), close(1)].concat());
    peer.check(2);
}

#[test]
fn a_goodbye_ends_the_connection_although_the_client_keeps_it_open() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    peer.send(&open(1, &["sleep", "1000"]));
    let pid = peer.started(1);
    peer.send(&[message(&Goodbye::new(""), 0), open(2, &["true"])].concat());
    while let Some(frame) = peer.next() {
        assert_ne!(frame.channel.0, 2, "{} for a command after the goodbye", frame.kind);
    }
    labshd.log().wait_for("session ended");
    eventually("the command has been ended", || !is_alive(pid));
}

#[test]
fn a_signal_for_a_command_arrives() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    peer.send(&open(1, &["sleep", "1000"]));
    peer.started(1);
    peer.send(&signal(1, 15));
    assert_eq!(peer.finish(1).exit.status, Status::Signaled { signal: 15, core_dumped: false });
    assert_eq!(limits::FIRST_STDIN_LIMIT, 2 * (64 << 10));
}

#[test]
fn a_client_that_reads_late_still_gets_everything_when_labshd_stops() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    for id in 1..=8 {
        peer.send(&open(id, &["head", "-c", "1000000", "/dev/zero"]));
    }
    // The commands have written everything; much of it waits for this client to read.
    labshd.log().wait_for_nth("command started", 8);
    labshd.signal(15);
    labshd.log().wait_for("stopping");
    let (mut output, mut exits, mut goodbye) = (0, 0, false);
    while let Some(frame) = peer.next() {
        assert!(!goodbye, "{} after goodbye", frame.kind);
        match frame.kind {
            Kind::Stdout => output += frame.body.len(),
            Kind::Exit => exits += 1,
            Kind::Goodbye => goodbye = true,
            _ => {}
        }
    }
    assert_eq!((output, exits, goodbye), (8_000_000, 8, true));
}

#[test]
fn of_stop_and_continue_the_last_signal_counts() {
    const CONT: u8 = 18;
    const STOP: u8 = 19;
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    peer.send(&open(1, &["cat"]));
    peer.started(1);
    for _ in 0..20 {
        peer.send(&[signal(1, CONT), signal(1, STOP), signal(1, CONT), stdin(1, b"x")].concat());
        // A stopped command copies nothing.
        peer.until(Kind::Stdout, 1);
    }
    peer.send(&signal(1, 9));
    peer.finish(1);
    drop(peer);
    assert_well(&labshd);
}
