//! Golden bytes of messages and key files, checked in both directions.
//!
//! The files were written by a program that shares no code with this one. Files are added, never
//! edited: a difference is a change of the protocol.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::{fs, path::PathBuf};

use bytes::Bytes;
use labsh_proto::auth::{ChannelBinding, Mode, ServerParameters, Transcript};
use labsh_proto::explanation::Explained;
use labsh_proto::frame::{ChannelId, Decoder, FLAG_EXPLAIN, FLAG_LIMITED, FLAG_MORE, Frame, Kind};
use labsh_proto::handshake::{Client, Server};
use labsh_proto::key::{HostId, HostKey, Key, KeyId, Secret, dummy_tls_seed};
use labsh_proto::limits::MAX_BODY;
use labsh_proto::message::{
    Body, Challenge, CommandId, Credit, Ended, Eof, Exit, Features, Goodbye, InstanceId, Nonce,
    Open, Ping, Pong, Program, Refuse, RefuseCode, Resize, Response, Signal, Started, Status, Stop,
    Stream, Terminal, Until, Usage, Welcome,
};

const CONNECTION: ChannelId = ChannelId::CONNECTION;
const ONE: ChannelId = ChannelId(1);

/// Files that are not frames.
const OTHERS: [&str; 10] = [
    "key-line",
    "host-line",
    "name",
    "name-beyond-ascii",
    "tls-seed",
    "dummy-tls-seed",
    "client-proof-plain",
    "client-proof-tls",
    "server-proof-plain",
    "server-proof-tls",
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(directory().join(name).with_extension("hex")).expect(name);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<u8> =
        lines.flat_map(str::bytes).filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).expect(name), 16).expect(name))
        .collect()
}

fn counting<const LENGTH: usize>(first: u8) -> [u8; LENGTH] {
    std::array::from_fn(|index| first + index as u8)
}

fn key() -> Key {
    Key::new(KeyId::new("alice").expect("a key id"), Secret::new(counting(0x00)))
}

fn host_key() -> HostKey {
    key().for_host(&HostId::new("lab07").expect("a host id"))
}

fn transcript(mode: Mode) -> Transcript {
    let (features, binding) = match mode {
        Mode::Plain => (Features(0), ChannelBinding::PLAIN),
        Mode::Tls => (Features(0x8000_0000_0000_0001), ChannelBinding(counting(0x20))),
    };
    let (server_nonce, client_nonce) = (Nonce(counting(0xa0)), Nonce(counting(0xc0)));
    Transcript { mode, features, server_nonce, client_nonce, binding }
}

fn server(features: u64, channels: u32) -> ServerParameters {
    ServerParameters {
        instance: InstanceId(counting(0xe0)),
        features: Features(features),
        channels,
        version: None,
    }
}

/// The parameters of a server with all features and a version.
fn server_with_version() -> ServerParameters {
    ServerParameters { version: Some("labshd 0.1.0".into()), ..server(0x19, 64) }
}

/// The transcript of a client with all features of this version.
fn transcript_with_version() -> Transcript {
    Transcript { features: Features(0x19), ..transcript(Mode::Plain) }
}

/// One golden file, its frame, and whether the frame's body decodes to the value it was made from.
struct Case {
    name: &'static str,
    frame: Frame,
    reads_back: bool,
}

fn raw(name: &'static str, kind: Kind, flags: u8, channel: ChannelId, body: Bytes) -> Case {
    Case { name, frame: Frame { flags, ..Frame::new(kind, channel, body) }, reads_back: true }
}

fn case<B: Body + PartialEq + Debug>(name: &'static str, channel: ChannelId, body: B) -> Case {
    let frame = body.frame(channel);
    let reads_back = B::from_frame(&frame).is_ok_and(|read| read == body);
    Case { name, frame, reads_back }
}

fn open_argv() -> Open {
    Open::new(CommandId(counting(0x30)), Program::Argv(vec![b"echo".to_vec(), b"hi".to_vec()]))
}

const SIZE: Resize = Resize { columns: 80, rows: 24, width: 640, height: 480 };

fn open_shell() -> Open {
    Open {
        command: CommandId(counting(0x30)),
        linger: 60_000,
        timeout: 30_000,
        until: Until::CommandEnds,
        program: Program::Shell(b"ps aux | wc -l; # \xff".to_vec()),
        environment: vec![(b"LANG".to_vec(), b"C".to_vec()), (b"EMPTY".to_vec(), Vec::new())],
        directory: Some(b"/tmp".to_vec()),
        user: None,
        terminal: Some(Terminal { name: "xterm".into(), size: SIZE }),
    }
}

fn open_login_shell() -> Open {
    Open { program: Program::LoginShell, user: Some(b"bob".to_vec()), ..open_argv() }
}

fn open_subsystem() -> Open {
    Open { program: Program::Subsystem(b"sftp".to_vec()), ..open_argv() }
}

fn open(name: &'static str, channel: ChannelId, open: Open) -> Case {
    let body = open.encode().expect(name);
    let reads_back = Open::decode(&body).is_ok_and(|read| read == open);
    Case { name, frame: Frame::new(Kind::Open, channel, body), reads_back }
}

fn handshake_cases() -> Vec<Case> {
    let plain = transcript(Mode::Plain);
    let response = Response {
        name: host_key().name(),
        client_nonce: plain.client_nonce,
        features: plain.features,
        proof: plain.client_proof(&host_key()),
    };
    let parameters = server(0, 64);
    let proof = plain.server_proof(&host_key(), &parameters);
    let ServerParameters { instance, features, channels, version } = parameters;
    let welcome = Welcome { instance, features, channels, proof, version };
    let with_terminals = server(Features::TERMINAL.0, 64);
    let with = Welcome { features: with_terminals.features, ..welcome.clone() };
    let requesting = transcript_with_version();
    let with_version = server_with_version();
    vec![
        case("challenge", CONNECTION, Challenge { server_nonce: plain.server_nonce }),
        case("response", CONNECTION, response),
        case("welcome", CONNECTION, welcome),
        case(
            "welcome-terminal",
            CONNECTION,
            Welcome { proof: plain.server_proof(&host_key(), &with_terminals), ..with.clone() },
        ),
        case(
            "response-version",
            CONNECTION,
            Response {
                features: requesting.features,
                proof: requesting.client_proof(&host_key()),
                ..response
            },
        ),
        case(
            "welcome-version",
            CONNECTION,
            Welcome {
                features: with_version.features,
                proof: requesting.server_proof(&host_key(), &with_version),
                version: with_version.version,
                ..with
            },
        ),
    ]
}

fn connection_cases() -> Vec<Case> {
    let token = 0x0102_0304_0506_0708;
    vec![
        case("refuse-connection", CONNECTION, Refuse::new(RefuseCode::AUTHENTICATION, "no", "ask")),
        case(
            "refuse-command",
            ChannelId(3),
            Refuse::new(RefuseCode::NOT_FOUND, "“pyhton”: not found", ""),
        ),
        case("ping", CONNECTION, Ping { token }),
        case("pong", CONNECTION, Pong { token }),
        case("goodbye", CONNECTION, Goodbye::new("")),
        case("goodbye-reason", CONNECTION, Goodbye::new("stopping")),
    ]
}

fn command_cases() -> Vec<Case> {
    let argv = open_argv().encode().expect("argv");
    vec![
        open("open-argv", ONE, open_argv()),
        open("open-shell", ChannelId(2), open_shell()),
        open("open-login-shell", ONE, open_login_shell()),
        open("open-subsystem", ONE, open_subsystem()),
        raw("open-more-first", Kind::Open, FLAG_MORE, ONE, argv.slice(..40)),
        raw("open-more-last", Kind::Open, 0, ONE, argv.slice(40..)),
        case("started", ONE, Started { pid: 4242 }),
        case("signal", ONE, Signal { number: 15 }),
        case("resize", ONE, SIZE),
        raw("close", Kind::Close, 0, ONE, Bytes::new()),
        raw("open-explain", Kind::Open, FLAG_EXPLAIN, ONE, argv),
        case("explained", ONE, explained()),
    ]
}

fn explained() -> Explained {
    Explained {
        entry: "alice@desk+lab07.toml".into(),
        from: vec!["10.0.0.0/8".into()],
        expires: 1_956_527_999,
        channels: 256,
        user: "alice".into(),
        uid: 1000,
        gid: 100,
        home: b"/home/alice".to_vec(),
        directory: b"/srv".to_vec(),
        program: b"/usr/bin/grep".to_vec(),
        words: vec![b"grep".to_vec(), b"a b".to_vec()],
        environment: vec![(b"LANG".to_vec(), b"C".to_vec())],
        accepted: vec!["LC_*".into()],
        left_off: 0,
    }
}

fn stream_cases() -> Vec<Case> {
    let stderr = Credit { stream: Stream::Stderr, consumed: 1 << 40, limit: (1 << 40) + (1 << 30) };
    vec![
        raw("stdin", Kind::Stdin, 0, ONE, Bytes::from_static(b"\0\xff\r\n")),
        raw("stdout", Kind::Stdout, 0, ONE, Bytes::from_static(b"hi\n")),
        raw("stdout-limited", Kind::Stdout, FLAG_LIMITED, ONE, Bytes::from_static(b"hi\n")),
        raw("stderr", Kind::Stderr, 0, ChannelId(u32::MAX), Bytes::from_static(b"!")),
        case("eof-stdin", ONE, Eof { stream: Stream::Stdin }),
        case("eof-stdout", ONE, Eof { stream: Stream::Stdout }),
        case("eof-stderr", ONE, Eof { stream: Stream::Stderr }),
        case("stop-stdin", ONE, Stop { stream: Stream::Stdin }),
        case("stop-stdout", ONE, Stop { stream: Stream::Stdout }),
        case("stop-stderr", ONE, Stop { stream: Stream::Stderr }),
        case("credit", ONE, Credit { stream: Stream::Stdin, consumed: 5, limit: 131_077 }),
        case("credit-far", ONE, stderr),
    ]
}

fn end_cases() -> Vec<Case> {
    let usage = Usage { wall: 1_500, user: 900, system: 600, peak_memory: 2_097_152 };
    let killed = Usage { wall: 30_000_000, user: 0, system: 1, peak_memory: 4_096 };
    let exited = Status::Exited(0);
    let status = Status::Signaled { signal: 9, core_dumped: false };
    vec![
        case("ended-exited", ONE, Ended { status: Status::Exited(3) }),
        case(
            "ended-signaled",
            ONE,
            Ended { status: Status::Signaled { signal: 11, core_dumped: true } },
        ),
        case(
            "exit-exited",
            ONE,
            Exit { status: exited, timed_out: false, stdout: 3, stderr: 0, usage },
        ),
        case(
            "exit-timed-out",
            ONE,
            Exit { status, timed_out: true, stdout: 0, stderr: 7, usage: killed },
        ),
    ]
}

fn cases() -> Vec<Case> {
    [handshake_cases(), connection_cases(), command_cases(), stream_cases(), end_cases()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn frames_are_encoded_as_the_golden_bytes() {
    for Case { name, frame, .. } in cases() {
        assert_eq!([&frame.header().encode(), &frame.body[..]].concat(), golden(name), "{name}");
    }
}

#[test]
fn the_golden_bytes_are_decoded_as_frames() {
    for Case { name, frame, reads_back } in cases() {
        let mut decoder = Decoder::default();
        for byte in golden(name) {
            assert!(!decoder.has_next(), "{name}");
            decoder.buffer().extend_from_slice(&[byte]);
        }
        assert!(decoder.has_next(), "{name}");
        assert_eq!(decoder.next_frame(MAX_BODY), Ok(Some(frame)), "{name}");
        assert_eq!(decoder.finish(), Ok(()), "{name}");
        assert!(reads_back, "{name}");
    }
}

#[test]
fn every_kind_has_golden_bytes_and_every_file_is_checked() {
    let cases = cases();
    for kind in Kind::ALL {
        assert!(cases.iter().any(|case| case.frame.kind == *kind), "{kind}");
    }
    let checked: BTreeSet<String> = cases
        .iter()
        .map(|case| case.name)
        .chain(OTHERS)
        .map(|name| format!("{name}.hex"))
        .collect();
    let files: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(checked, files);
}

#[test]
fn keys_are_written_as_the_golden_lines_and_read_back() {
    let (key_line, host_line) = (golden("key-line"), golden("host-line"));
    assert_eq!(key().to_line().as_bytes(), key_line);
    assert_eq!(host_key().to_line().as_bytes(), host_line);
    assert_eq!(Key::from_line(str::from_utf8(&key_line).unwrap()), Ok(key()));
    assert_eq!(HostKey::from_line(str::from_utf8(&host_line).unwrap()), Ok(host_key()));
}

#[test]
fn names_and_seeds_are_the_golden_bytes() {
    assert_eq!(host_key().name().0[..], golden("name"));
    assert_eq!(host_key().tls_seed().expose()[..], golden("tls-seed"));
    let dummy = dummy_tls_seed(&Secret::new(counting(0x40)), host_key().name());
    assert_eq!(dummy.expose()[..], golden("dummy-tls-seed"));
    let beyond_ascii = HostId::new("LAB-Ü7.Example").unwrap();
    assert_eq!(key().for_host(&beyond_ascii).name().0[..], golden("name-beyond-ascii"));
}

#[test]
fn proofs_are_the_golden_bytes_and_verify() {
    let host_key = host_key();
    for (mode, client, server, parameters) in [
        (Mode::Plain, "client-proof-plain", "server-proof-plain", server(0, 64)),
        (Mode::Tls, "client-proof-tls", "server-proof-tls", server(2, 1_024)),
    ] {
        let transcript = transcript(mode);
        let client_proof = transcript.client_proof(&host_key);
        let server_proof = transcript.server_proof(&host_key, &parameters);
        assert_eq!(client_proof.0[..], golden(client));
        assert_eq!(server_proof.0[..], golden(server));
        assert!(transcript.verify_client(&host_key, &client_proof).is_ok());
        assert!(transcript.verify_server(&host_key, &parameters, &server_proof).is_ok());
    }
}

#[test]
fn the_handshake_exchanges_the_golden_bytes() {
    exchange(transcript(Mode::Plain), "response", server(0, 64), "welcome");
    exchange(
        transcript_with_version(),
        "response-version",
        server_with_version(),
        "welcome-version",
    );
}

fn exchange(
    transcript: Transcript,
    response_file: &str,
    parameters: ServerParameters,
    welcome_file: &str,
) {
    let frame = |name: &str| {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&golden(name));
        decoder.next_frame(MAX_BODY).expect(name).expect(name)
    };
    let Transcript { mode, features, server_nonce, client_nonce, binding } = transcript;
    let client = Client { mode, key: host_key(), nonce: client_nonce, features, binding };
    let (response, client) = client.answer(&frame("challenge")).expect(welcome_file);
    assert_eq!(response, frame(response_file));

    let server = Server::new(mode, server_nonce);
    assert_eq!(server.challenge(), frame("challenge"));
    let response = server.read(&response).expect(welcome_file);
    let dummy = HostKey::dummy(Secret::new([0; 32]));
    let authenticated =
        server.verify(&response, Some(&host_key()), &dummy, None, binding).expect(welcome_file);
    assert_eq!(authenticated.welcome(parameters.clone()), frame(welcome_file));
    assert_eq!(client.finish(&frame(welcome_file)).expect(welcome_file), parameters);
}
