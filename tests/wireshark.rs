//! Wireshark's dissector (integrations/wireshark) finds in captures exactly what was sent, for any
//! segmentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use bytes::BytesMut;
use labsh_proto::frame::{Decoder, Frame, Kind, Sender};
use labsh_proto::limits;

use crate::peer::pcap::{Capture, recut};
use crate::peer::proxy::{Cut, Piece, Proxy, Side, joined};
use crate::peer::{bytes, header, open_body, open_frames};
use crate::support::{Labshd, Running, eventually, feed, program, temp_dir, text, tools};

const PORT: u16 = 5275;
/// A port that the dissector does not register for, and one that only Decode As assigns to it.
const OTHER_PORT: u16 = 6543;
const DECODED_AS: u16 = 7543;

/// A client's last frame in a session without errors: a goodbye without a reason.
const GOODBYE: [u8; 20] = [0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The group of Wireshark's expert information that holds all errors of the dissector.
const MALFORMED: &str = "117440512";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether this program of the package tshark is installed.
fn has(program: &str) -> bool {
    tools::need(program, "apt-get install tshark").is_some()
}

/// Runs tshark on a capture, with the dissector and no configuration of the user's.
fn tshark(capture: &Path, options: &[&str]) -> Output {
    let home = temp_dir();
    let mut script = std::ffi::OsString::from("lua_script:");
    script.push(root().join("integrations/wireshark/labsh.lua"));
    let mut tshark = program("tshark");
    for variable in ["HOME", "XDG_CONFIG_HOME", "WIRESHARK_CONFIG_DIR"] {
        tshark.env(variable, home.path());
    }
    tshark
        .arg("-n")
        .arg("-r")
        .arg(capture)
        .arg("-X")
        .arg(script)
        .args(options)
        .stdin(Stdio::null());
    let output = tshark.output().unwrap();
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(!errors.to_lowercase().contains("lua"), "{errors}");
    output
}

/// The values of these fields in each packet.
fn fields(capture: &Path, names: &[&str], options: &[&str]) -> Vec<Vec<Vec<String>>> {
    let mut all = vec!["-T", "fields", "-E", "aggregator=|"];
    names.iter().for_each(|name| all.extend(["-e", name]));
    all.extend(options);
    let values = |field: &str| match field {
        "" => Vec::new(),
        field => field.split('|').map(str::to_owned).collect(),
    };
    let output = text(&tshark(capture, &all).stdout);
    output.lines().map(|line| line.split('\t').map(values).collect()).collect()
}

/// A header: kind, flags, length of the body, channel.
type Header = (u32, u32, u32, u32);

fn number(value: &str) -> u32 {
    match value.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).unwrap(),
        None => value.parse().unwrap(),
    }
}

/// The frames that tshark found, by the client's port and the side that sent them.
type Found = BTreeMap<(u16, bool), Vec<Header>>;

const HEADERS: [&str; 6] =
    ["tcp.srcport", "tcp.dstport", "labsh.kind", "labsh.flags", "labsh.length", "labsh.channel"];

fn found(packets: &[Vec<Vec<String>>]) -> Found {
    let mut found = Found::new();
    for packet in packets {
        let [from, to, kinds, flags, lengths, channels] = &packet[..6] else {
            panic!("{packet:?}")
        };
        let (from, to) = (number(&from[0]) as u16, number(&to[0]) as u16);
        // The clients have the higher ports.
        let headers = found.entry((from.max(to), from > to)).or_default();
        for index in 0..kinds.len() {
            let value = |field: &[String]| number(&field[index]);
            headers.push((value(kinds), value(flags), value(lengths), value(channels)));
        }
    }
    found
}

/// The frames that our own decoder finds.
fn frames(pieces: &[Piece], side: Side) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    *decoder.buffer() = BytesMut::from(&joined(pieces, side)[..]);
    let frames = std::iter::from_fn(|| decoder.next_frame(limits::MAX_BODY).unwrap()).collect();
    decoder.finish().unwrap();
    frames
}

fn headers(pieces: &[Piece], side: Side) -> Vec<Header> {
    let header = |frame: Frame| {
        (frame.kind as u32, frame.flags.into(), frame.body.len() as u32, frame.channel.0)
    };
    frames(pieces, side).into_iter().map(header).collect()
}

fn assert_found(found: &Found, port: u16, pieces: &[Piece]) {
    for (side, is_client) in [(Side::Client, true), (Side::Server, false)] {
        assert_eq!(found[&(port, is_client)], headers(pieces, side), "port {port}, {side:?}");
    }
}

/// Runs a command in plain mode, and returns what each read of a proxy returned, and the output.
fn session(labshd: &Labshd, input: &[u8], words: &[&str]) -> (Vec<Piece>, Output) {
    let proxy = Proxy::start(labshd.plain, Cut::Pass);
    let mut labsh = labshd.labsh();
    labsh.args(["run", "--plain", &proxy.address.to_string()]).args(words);
    let output = feed(&mut labsh, input);
    eventually("the goodbye has passed", || proxy.sent_by_client().ends_with(&GOODBYE));
    (proxy.pieces(), output)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one slow capture, and all that is read from it")]
fn frames_of_real_sessions_are_found_for_any_segmentation() {
    if !has("tshark") {
        return;
    }
    let labshd = Labshd::start();
    let (large, output) = session(&labshd, b"", &["head", "-c", "1048576", "/dev/urandom"]);
    let (small, _) = session(&labshd, b"some input\n", &["sh", "-c", "cat; seq 1 3 >&2"]);
    // Two words that do not fit in one frame.
    let word = "x".repeat(100_000);
    let (long, _) = session(&labshd, b"", &["sh", "-c", "exit 0", &word, &word]);
    let tls = Proxy::start(labshd.tls, Cut::Pass);
    let mut over_tls = labshd.labsh();
    over_tls.args(["run", &tls.address.to_string(), "echo", "hi"]);
    feed(&mut over_tls, b"");
    let http: Vec<Piece> = vec![
        (Side::Client, b"GET / HTTP/1.1\r\nHost: lab07\r\n\r\n".to_vec()),
        (Side::Server, b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
    ];

    let mut capture = Capture::new();
    let sessions = [
        (40_001, PORT, large.clone()),
        (40_002, PORT, recut(&large, 1460)),
        (40_003, PORT, recut(&large, 65_000)),
        (40_004, PORT, recut(&large, 104_729)),
        (40_005, PORT, small.clone()),
        (40_006, PORT, recut(&small, 1)),
        (40_007, PORT, recut(&small, 7)),
        (40_008, PORT, recut(&small, 65_000)),
        (40_009, OTHER_PORT, small.clone()),
        (40_010, DECODED_AS, recut(&small, 5)),
        (40_011, PORT, long.clone()),
        (40_012, PORT, recut(&long, 977)),
    ];
    for (client, server, pieces) in &sessions {
        capture.connection(*client, *server, pieces);
    }
    capture.connection(40_050, 5274, &tls.pieces());
    capture.connection(40_051, PORT, &http);
    let file = labshd.path().join("sessions.pcap");
    capture.write(&file);

    let names =
        [&HEADERS[..], &["labsh.data", "_ws.expert.group", "labsh.open.frames", "_ws.col.Info"]]
            .concat();
    let decode_as = format!("tcp.port=={DECODED_AS},labsh");
    let packets = fields(&file, &names, &["-d", &decode_as]);
    // A second pass dissects the packets again, in the state that the first left.
    assert!(packets == fields(&file, &names, &["-2", "-d", &decode_as]));

    let found = found(&packets);
    for (port, _, pieces) in &sessions {
        assert_found(&found, *port, pieces);
    }
    for port in [40_050, 40_051] {
        assert_eq!(
            (&found[&(port, true)], &found[&(port, false)]),
            (&vec![], &vec![]),
            "port {port}"
        );
    }
    for packet in &packets {
        assert!(!packet[7].iter().any(|group| group == MALFORMED), "{packet:?}");
    }

    // All data bytes.
    for port in ["40001", "40002", "40003", "40004"] {
        let ours = packets.iter().filter(|packet| packet[1][0] == port);
        let data: String = ours.flat_map(|packet| packet[6].iter().map(String::as_str)).collect();
        assert!(data == hexadecimal(&output.stdout), "port {port}: {} digits", data.len());
    }
    // The column that users read; with single bytes each frame has a packet of its own.
    let columns: Vec<&str> = packets
        .iter()
        .filter(|packet| packet[0][0] == "40006" && !packet[2].is_empty())
        .map(|packet| packet[9][0].as_str())
        .collect();
    assert!(columns.contains(&"open 1 argv: sh -c 'cat; seq 1 3 >&2'"), "{columns:?}");
    assert!(columns.contains(&"stdin 1, 11 bytes"), "{columns:?}");
    let glued =
        packets.iter().find(|packet| packet[1][0] == "40008" && packet[2].len() > 1).unwrap();
    assert!(glued[9].join("|").contains("; "), "{glued:?}");
    let opens = headers(&long, Side::Client).iter().filter(|header| header.0 == 0x10).count();
    let joined: Vec<&str> =
        packets.iter().flat_map(|packet| &packet[8]).map(String::as_str).collect();
    assert_eq!((opens, joined), (4, vec!["4", "4"]));
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden_directory() -> PathBuf {
    root().join("proto/tests/golden")
}

/// The bytes of a golden file.
fn golden(name: &str) -> Vec<u8> {
    let written = fs::read_to_string(golden_directory().join(name).with_extension("hex")).unwrap();
    let digits: String = written
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// What the dissector shows for golden files: file, field, value.
const VALUES: [(&str, &str, &str); 47] = [
    (
        "challenge",
        "labsh.challenge.server_nonce",
        "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf",
    ),
    ("response", "labsh.response.name", "a4c275b53615eebbbd8e58e5dd01874a"),
    ("response", "labsh.response.features", "0x0000000000000000"),
    ("welcome", "labsh.welcome.channels", "64"),
    ("welcome", "labsh.welcome.instance", "e0e1e2e3e4e5e6e7e8e9eaebecedeeef"),
    ("response-version", "labsh.response.features", "0x0000000000000019"),
    ("welcome-version", "labsh.welcome.features", "0x0000000000000019"),
    ("welcome-version", "labsh.welcome.version", "labshd 0.1.0"),
    ("refuse-command", "labsh.refuse.code", "20"),
    ("refuse-command", "labsh.refuse.reason", "“pyhton”: not found"),
    ("refuse-command", "labsh.channel", "3"),
    ("refuse-connection", "labsh.refuse.remedy", "ask"),
    ("goodbye-reason", "labsh.goodbye.reason", "stopping"),
    ("ping", "labsh.token", "0x0102030405060708"),
    ("pong", "labsh.token", "0x0102030405060708"),
    ("open-argv", "labsh.open.word", "echo|hi"),
    ("open-shell", "labsh.open.linger", "60000"),
    ("open-shell", "labsh.open.timeout", "30000"),
    ("open-shell", "labsh.open.until", "1"),
    ("open-shell", "labsh.open.variable", "LANG=C|EMPTY="),
    ("open-shell", "labsh.open.directory", "/tmp"),
    ("open-shell", "labsh.open.terminal", "xterm"),
    ("open-shell", "labsh.size.columns", "80"),
    ("open-login-shell", "labsh.open.program", "2"),
    ("open-login-shell", "labsh.open.user", "bob"),
    ("open-subsystem", "labsh.open.subsystem", "sftp"),
    ("open-explain", "labsh.flags.explain", "1"),
    ("open-argv", "labsh.flags.explain", "0"),
    ("explained", "labsh.explained.program", "/usr/bin/grep"),
    ("explained", "labsh.explained.accepted", "LC_*"),
    ("started", "labsh.started.pid", "4242"),
    ("stdin", "labsh.data", "00ff0d0a"),
    ("stdin", "labsh.data.preview", "\\x00\\xff\\r\\n"),
    ("stdout-limited", "labsh.flags.limited", "1"),
    ("stdout", "labsh.flags.limited", "0"),
    ("stderr", "labsh.channel", "4294967295"),
    ("eof-stderr", "labsh.stream", "2"),
    ("credit", "labsh.credit.consumed", "5"),
    ("credit-far", "labsh.credit.limit", "1100585369600"),
    ("signal", "labsh.signal.number", "15"),
    ("resize", "labsh.size.height", "480"),
    ("ended-exited", "labsh.ended.code", "3"),
    ("ended-signaled", "labsh.ended.core_dumped", "1"),
    ("exit-exited", "labsh.exit.code", "0"),
    ("exit-exited", "labsh.exit.peak_memory", "2097152"),
    ("exit-timed-out", "labsh.exit.signal", "9"),
    ("exit-timed-out", "labsh.exit.timed_out", "1"),
];

/// The side that sends the frame of a golden file, if its kind or stream determines it.
fn sender(frame: &[u8]) -> Side {
    let kind = Kind::from_code(frame[4]).unwrap();
    let of_stdin = frame.get(15) == Some(&0);
    let from_client = match kind {
        Kind::Eof => of_stdin,
        Kind::Stop | Kind::Credit => !of_stdin,
        _ => kind.sender() != Sender::Server,
    };
    if from_client { Side::Client } else { Side::Server }
}

#[test]
fn every_kind_of_message_is_decoded() {
    if !has("tshark") {
        return;
    }
    let mut names: Vec<String> = fs::read_dir(golden_directory())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        // The other files are text, names, seeds and proofs. Two halves make one open.
        .filter(|name| golden(name).starts_with(&[0, 0]) && name != "open-more-last")
        .collect();
    names.sort();
    let mut capture = Capture::new();
    let port = |index: usize| 41_000 + index as u16;
    for (index, name) in names.iter().enumerate() {
        let bytes = golden(name);
        let mut pieces = vec![(sender(&bytes), bytes)];
        if name == "open-more-first" {
            pieces.push((Side::Client, golden("open-more-last")));
        }
        capture.connection(port(index), PORT, &pieces);
    }
    let dir = temp_dir();
    let file = dir.path().join("golden.pcap");
    capture.write(&file);

    let wanted: BTreeSet<&str> = VALUES.iter().map(|value| value.1).collect();
    let wanted: Vec<&str> = wanted.into_iter().collect();
    let first = ["tcp.port", "labsh.kind", "_ws.expert.group", "labsh.open.frames"];
    let packets = fields(&file, &[&first[..], &wanted].concat(), &["-Y", "labsh"]);
    let of = |name: &str| {
        let port = port(names.iter().position(|known| known == name).unwrap()).to_string();
        packets.iter().filter(move |packet| packet[0].contains(&port))
    };
    for packet in &packets {
        assert_eq!(packet[2], Vec::<String>::new(), "{packet:?}");
    }
    let kinds: BTreeSet<u32> = packets.iter().map(|packet| number(&packet[1][0])).collect();
    assert_eq!(kinds, Kind::ALL.iter().map(|kind| *kind as u32).collect());
    let index =
        |field: &str| first.len() + wanted.iter().position(|known| *known == field).unwrap();
    for (name, field, value) in VALUES {
        let packet = of(name).next().unwrap();
        assert_eq!(packet[index(field)].join("|"), value, "{field} of {name}");
    }
    // It is joined in the packet in which it ends, and not before.
    let word = index("labsh.open.word");
    let halves: Vec<_> =
        of("open-more-first").map(|packet| (packet[3].join("|"), packet[word].join("|"))).collect();
    assert_eq!(halves, [(String::new(), String::new()), ("2".into(), "echo|hi".into())]);
}

/// An authenticated connection on which the client sends this.
fn client_sends(client: Vec<u8>) -> Vec<Piece> {
    vec![
        (Side::Server, golden("challenge")),
        (Side::Client, golden("response")),
        (Side::Server, golden("welcome")),
        (Side::Client, client),
    ]
}

/// A connection up to the welcome, with this version.
fn welcomed(version: &[u8]) -> Vec<Piece> {
    let before = &golden("welcome-version")[12..12 + 60];
    let body = [before, &(version.len() as u64).to_be_bytes(), version].concat();
    vec![
        (Side::Server, golden("challenge")),
        (Side::Client, golden("response-version")),
        (Side::Server, bytes(Kind::Welcome, 0, &body)),
    ]
}

/// Protocol errors, each with the name that the dissector gives it. After the first three the
/// boundaries of frames are unknown.
fn protocol_errors() -> Vec<(&'static str, Vec<Piece>)> {
    let eof = |extra: &[u8]| [&[0, 0, 0, 0][..], extra].concat();
    let early =
        vec![(Side::Server, golden("challenge")), (Side::Client, bytes(Kind::Stdin, 1, &[0; 513]))];
    // With one network, which is not UTF-8; everything else is empty or 0.
    let network = [&[0; 15][..], &[1], &[0; 7], &[1, 0xff], &[0; 80]].concat();
    let mut explained = client_sends(open_frames(1, &open_body(&[b"true"])));
    explained.push((Side::Server, bytes(Kind::Explained, 1, &network)));
    let mut long_open = open_body(&[b"true"]);
    long_open.resize(limits::MAX_COMMAND + 1, 0);
    vec![
        ("reserved", client_sends(header(4, 0x15, 0, 1, 1))),
        ("unknown_kind", client_sends(header(4, 0x1e, 0, 0, 1))),
        ("body_too_long", client_sends(header(limits::MAX_BODY + 1, 0x12, 0, 0, 1))),
        ("body_too_long", early),
        ("undefined_flags", client_sends([header(4, 0x15, 2, 0, 1), eof(&[])].concat())),
        ("wrong_channel", client_sends([header(4, 0x15, 0, 0, 0), eof(&[])].concat())),
        ("wrong_channel", client_sends(bytes(Kind::Ping, 1, &[0; 8]))),
        ("wrong_direction", client_sends(golden("started"))),
        ("wrong_direction", client_sends(golden("eof-stdout"))),
        ("wrong_direction", client_sends(golden("credit"))),
        ("malformed", client_sends(bytes(Kind::Eof, 1, &eof(&[0])))),
        ("malformed", client_sends(bytes(Kind::Eof, 1, &[0, 0, 0]))),
        ("malformed", client_sends(bytes(Kind::Eof, 1, &[0, 0, 0, 3]))),
        ("malformed", client_sends(bytes(Kind::Signal, 1, &[32]))),
        ("malformed", client_sends(bytes(Kind::Close, 1, &[0]))),
        ("malformed", client_sends(bytes(Kind::Open, 1, &[]))),
        ("malformed", client_sends(bytes(Kind::Goodbye, 0, &[0, 0, 0, 0, 0, 0, 0, 1, 0xff]))),
        ("malformed", client_sends(bytes(Kind::Goodbye, 0, &[0xff; 8]))),
        ("malformed", explained),
        ("malformed", welcomed(b"")),
        ("malformed", welcomed(&[b'x'; 65])),
        ("malformed", welcomed(b"\x1b[2J")),
        ("malformed", welcomed("labshd \u{202e}1".as_bytes())),
        ("empty", client_sends(bytes(Kind::Stdin, 1, &[]))),
        ("command_too_long", client_sends(open_frames(1, &long_open))),
    ]
}

#[test]
fn protocol_errors_are_reported() {
    if !has("tshark") {
        return;
    }
    let errors = protocol_errors();
    let mut capture = Capture::new();
    for (index, (_, pieces)) in errors.iter().enumerate() {
        capture.connection(42_000 + index as u16, PORT, pieces);
        // A frame follows in single bytes, which shows whether the boundary is still known.
        let followed = [&pieces[..], &[(Side::Client, golden("close"))]].concat();
        let size = if pieces.iter().any(|piece| piece.1.len() > 10_000) { 9973 } else { 11 };
        capture.connection(43_000 + index as u16, PORT, &recut(&followed, size));
    }
    let dir = temp_dir();
    let file = dir.path().join("errors.pcap");
    capture.write(&file);

    let mut known: BTreeSet<&str> = errors.iter().map(|error| error.0).collect();
    known.insert("boundary_lost");
    let names: Vec<String> = known.iter().map(|name| format!("labsh.expert.{name}")).collect();
    let mut asked = vec!["tcp.port", "labsh.kind"];
    asked.extend(names.iter().map(String::as_str));
    let packets = fields(&file, &asked, &[]);
    let names_of = |port: usize| -> BTreeSet<&str> {
        let ours = packets.iter().filter(|packet| packet[0].contains(&port.to_string()));
        ours.flat_map(|packet| known.iter().zip(&packet[2..]))
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, _)| *name)
            .collect()
    };
    for (index, (name, _)) in errors.iter().enumerate() {
        assert_eq!(names_of(42_000 + index), BTreeSet::from([*name]), "error {index}");
        // After the first three errors the boundaries are unknown.
        let followed = if index < 3 {
            BTreeSet::from([*name, "boundary_lost"])
        } else {
            BTreeSet::from([*name])
        };
        assert_eq!(names_of(43_000 + index), followed, "error {index}, and a frame after it");
    }
}

/// Reproducible pseudo-random numbers (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn random_bytes_are_shown_without_a_lua_error() {
    if !has("tshark") {
        return;
    }
    let good: Vec<Piece> = [
        "challenge",
        "response",
        "welcome",
        "open-shell",
        "open-more-first",
        "open-more-last",
        "started",
        "stdout",
        "credit",
        "refuse-command",
        "ended-signaled",
        "exit-timed-out",
        "close",
        "goodbye-reason",
    ]
    .iter()
    .map(|name| (sender(&golden(name)), golden(name)))
    .collect();
    let mut numbers = Numbers(0x5eed);
    let mut capture = Capture::new();
    for port in 44_000..44_400 {
        let mut pieces = recut(&good, [7, 64, 1000][numbers.below(3)]);
        for _ in 0..=numbers.below(4) {
            let piece = 1 + numbers.below(pieces.len() - 1);
            let at = numbers.below(pieces[piece].1.len());
            pieces[piece].1[at] = [0, 1, 0xff, numbers.below(256) as u8][numbers.below(4)];
        }
        capture.connection(port, PORT, &pieces);
    }
    // A truncated TLS hello: the dissector of TLS reports what is wrong with it.
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    capture.connection(44_400, PORT, &[(Side::Client, hello.to_vec())]);
    let dir = temp_dir();
    let file = dir.path().join("mangled.pcap");
    capture.write(&file);
    let names =
        [&HEADERS[..], &["_ws.expert.group", "_ws.expert.message", "_ws.col.Info"]].concat();
    let packets = fields(&file, &names, &[]);
    assert!(packets == fields(&file, &names, &["-2"]));
    let values = |index: usize| packets.iter().flat_map(move |packet| &packet[index]);
    assert!(values(6).filter(|group| *group == MALFORMED).count() > 400);
    let errors: Vec<_> = values(7).filter(|message| message.contains("Lua")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn a_capture_of_the_loopback_device_shows_a_session() {
    if !has("tshark") || !has("dumpcap") {
        return;
    }
    let labshd = Labshd::start();
    let file = labshd.path().join("live.pcap");
    let mut dumpcap = program("dumpcap");
    dumpcap
        .args([
            "-i",
            "lo",
            "-P",
            "-B",
            "32",
            "-f",
            &format!("tcp port {}", labshd.plain.port()),
            "-w",
        ])
        .arg(&file);
    let mut dumpcap = Running::start(&mut dumpcap);
    // dumpcap names its file once the device is open and the filter is set.
    loop {
        let line = dumpcap.error_line();
        if line.starts_with("File: ") {
            break;
        }
        if line.contains("permission") || line.contains("not permitted") {
            // Users who may not capture still have the tests above, which need no device.
            return;
        }
    }
    let mut labsh = labshd.labsh();
    labsh.args(["run", "--plain", &labshd.plain.to_string(), "seq 1 20000; seq 1 10 >&2"]);
    let output = feed(&mut labsh, b"");
    eventually("the goodbye is in the file", || {
        fs::read(&file).unwrap().windows(GOODBYE.len()).any(|window| window == GOODBYE)
    });
    dumpcap.signal(2);
    dumpcap.finish();

    let decode_as = format!("tcp.port=={},labsh", labshd.plain.port());
    let names = ["labsh.kind", "labsh.data", "labsh.exit.stdout", "_ws.expert.group"];
    // Packets can be reordered on loopback if the sender changes its processor.
    let in_order = "tcp.reassemble_out_of_order:TRUE";
    let packets = fields(&file, &names, &["-Y", "labsh", "-d", &decode_as, "-o", in_order]);
    let mut stdout = String::new();
    for packet in &packets {
        assert!(!packet[3].iter().any(|group| group == MALFORMED), "{packet:?}");
        // Only data frames have data.
        let data =
            packet[0].iter().map(|kind| number(kind)).filter(|kind| (0x12..=0x14).contains(kind));
        for (kind, data) in data.zip(&packet[1]) {
            if kind == Kind::Stdout as u32 {
                stdout += data;
            }
        }
    }
    assert!(stdout == hexadecimal(&output.stdout));
    let totals: Vec<&String> = packets.iter().flat_map(|packet| &packet[2]).collect();
    assert_eq!(totals, [&output.stdout.len().to_string()]);
}
