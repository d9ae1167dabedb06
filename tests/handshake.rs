//! Authentication: no client without the key authenticates, whatever it sends, and all of them get
//! the same answer.

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use labsh_client::Session;
use labsh_proto::auth::{ChannelBinding, Mode};
use labsh_proto::frame::{ChannelId, Frame, Kind};
use labsh_proto::handshake::Client;
use labsh_proto::key::{HostId, HostKey, Key, KeyId, Secret};
use labsh_proto::message::{Body, Features, Name, Nonce, Ping, Proof, RefuseCode, Response};
use labsh_transport::random;

use crate::peer::proxy::{Cut, Proxy};
use crate::peer::{Peer, assert_broke, bytes, header, message, open, tls};
use crate::support::{
    HOST, Labshd, enroll, eventually, labsh_in, pipe_through, run, stdout_of, stop, text,
};

/// Refusals without the delay, which is not what these tests are about.
const NO_DELAY: &str = "failed_authentication_delay = '0s'";

fn ping() -> Vec<u8> {
    message(&Ping { token: 9 }, 0)
}

/// A key that is not enrolled.
fn unknown_key() -> HostKey {
    Key::new(KeyId::new("test").unwrap(), Secret::new([5; 32]))
        .for_host(&HostId::new(HOST).unwrap())
}

/// Asserts that no command was started, and that labshd can still start one.
fn assert_nothing_started(labshd: &Labshd) {
    assert_eq!(labshd.log().count("command started"), 0, "{}", labshd.log().text());
    assert_eq!(labshd.output(&["true"]).status.code(), Some(0));
    labshd.log().wait_for("command started");
}

/// Returns a response with the right name and a wrong proof.
fn spoil(frame: &Frame) -> Frame {
    let mut response = Response::from_frame(frame).unwrap();
    response.proof.0[31] ^= 1;
    response.frame(ChannelId::CONNECTION)
}

/// All bytes that labshd sends to a plain client with this key after a changed response.
fn answer_to(labshd: &Labshd, key: &HostKey, change: impl Fn(&Frame) -> Frame) -> Vec<u8> {
    let mut peer = Peer::connect(labshd.plain);
    let (response, _) = peer.respond(key, Mode::Plain, ChannelBinding::PLAIN);
    peer.send_frame(&change(&response));
    peer.rest()
}

fn assert_authentication(answer: &[u8]) {
    let mut peer = Peer::over(std::io::Cursor::new(answer.to_vec()));
    assert_eq!(peer.refusal().code, RefuseCode::AUTHENTICATION);
}

#[test]
fn a_wrong_proof_an_unknown_key_and_another_host_get_the_same_bytes() {
    let labshd = Labshd::with(NO_DELAY);
    let wrong_proof = answer_to(&labshd, &labshd.host_key(), spoil);
    assert_authentication(&wrong_proof);
    let elsewhere = labshd.key.for_host(&HostId::new("lab08").unwrap());
    for key in [unknown_key(), elsewhere] {
        assert_eq!(answer_to(&labshd, &key, Frame::clone), wrong_proof);
    }
    labshd.log().wait_for_nth("authentication failed for the name", 3);
    assert_nothing_started(&labshd);
}

#[test]
fn in_tls_unknown_and_known_names_are_indistinguishable() {
    let labshd = Labshd::with(NO_DELAY);
    let (known, unknown) = (labshd.host_key(), unknown_key());
    let attempt = |asked_for: Name, key: &HostKey, change: &dyn Fn(&Frame) -> Frame| {
        let (mut peer, shown, binding) = tls::connect(labshd.tls, asked_for);
        let (response, _) = peer.respond(key, Mode::Tls, binding);
        peer.send_frame(&change(&response));
        (shown, peer.rest())
    };
    let (shown, answer) = attempt(known.name(), &known, &spoil);
    assert_authentication(&answer);
    let (decoy, answer_to_unknown) = attempt(unknown.name(), &unknown, &Frame::clone);
    assert_eq!(answer_to_unknown, answer);
    assert_eq!((decoy.len(), decoy != shown), (shown.len(), true));
    // The same decoy identity for each connection, another for each name.
    assert_eq!(attempt(unknown.name(), &unknown, &Frame::clone).0, decoy);
    assert_ne!(attempt(Name([1; 16]), &unknown, &Frame::clone), (decoy.clone(), answer.clone()));
    // The right key under another name, known or not.
    let (_, misdirected) = attempt(unknown.name(), &known, &Frame::clone);
    assert_eq!(misdirected, answer);
    assert_nothing_started(&labshd);
    // The test itself is right: with the right key and name it authenticates.
    let (mut peer, _, binding) = tls::connect(labshd.tls, known.name());
    let (response, answered) = peer.respond(&known, Mode::Tls, binding);
    peer.send_frame(&response);
    answered.finish(&peer.next().unwrap()).unwrap();
}

#[test]
fn a_proof_holds_for_one_connection_one_host_and_one_mode() {
    let labshd = Labshd::with(NO_DELAY);
    enroll(labshd.path(), "test", "lab08");
    labshd.reload();
    let key = labshd.host_key();
    // Recorded on one plain connection, replayed on another.
    let mut first = Peer::connect(labshd.plain);
    let (response, _) = first.respond(&key, Mode::Plain, ChannelBinding::PLAIN);
    assert_authentication(&answer_to(&labshd, &key, |_| response.clone()));
    // Made for plain mode, or with the channel binding of plain mode, and sent through TLS.
    for (mode, plain_binding) in [(Mode::Plain, true), (Mode::Tls, true), (Mode::Plain, false)] {
        let (mut peer, _, binding) = tls::connect(labshd.tls, key.name());
        let binding = if plain_binding { ChannelBinding::PLAIN } else { binding };
        let (response, _) = peer.respond(&key, mode, binding);
        peer.send_frame(&response);
        assert_authentication(&peer.rest());
    }
    // The reverse: made for TLS, sent over a plain connection.
    let mut peer = Peer::connect(labshd.plain);
    let (response, _) = peer.respond(&key, Mode::Tls, ChannelBinding::PLAIN);
    peer.send_frame(&response);
    assert_authentication(&peer.rest());
    // Relayed: the challenge of this TLS connection was answered on another one.
    let (mut target, _, binding) = tls::connect(labshd.tls, key.name());
    let (mut relay, ..) = tls::connect(labshd.tls, key.name());
    let challenge = relay.next().unwrap();
    let client = Client {
        mode: Mode::Tls,
        key: key.clone(),
        nonce: Nonce(random::bytes()),
        features: Features(0),
        binding,
    };
    relay.send_frame(&client.answer(&challenge).unwrap().0);
    assert_authentication(&relay.rest());
    drop(target.next());
    // Made with the same key for another host id, under this host's name.
    let other = labshd.key.for_host(&HostId::new("lab08").unwrap());
    let renamed = |frame: &Frame| {
        let response = Response { name: key.name(), ..Response::from_frame(frame).unwrap() };
        response.frame(ChannelId::CONNECTION)
    };
    assert_authentication(&answer_to(&labshd, &other, renamed));
    // Features are part of the proof.
    let richer = |frame: &Frame| {
        let response = Response {
            features: Features(!Features::SUPPORTED.0),
            ..Response::from_frame(frame).unwrap()
        };
        response.frame(ChannelId::CONNECTION)
    };
    assert_authentication(&answer_to(&labshd, &key, richer));
    assert_nothing_started(&labshd);
}

#[test]
fn a_recorded_session_cannot_be_replayed() {
    let labshd = Labshd::with(NO_DELAY);
    let proxy = Proxy::start(labshd.plain, Cut::Pass);
    let marker = labshd.path().join("marker");
    let script = format!("echo ran >> {}", marker.display());
    run(labshd.labsh().args(["run", "--plain", &proxy.address.to_string(), &script]));
    let recorded = proxy.sent_by_client();
    assert!(!proxy.sent_by_server().is_empty());
    let mut peer = Peer::connect(labshd.plain);
    peer.send(&recorded);
    assert_eq!(peer.refusal().code, RefuseCode::AUTHENTICATION);
    assert_eq!(fs::read_to_string(&marker).unwrap(), "ran\n");
    labshd.log().wait_for("command started");
    assert_eq!(labshd.log().count("command started"), 1);
}

#[test]
fn only_one_response_is_accepted_before_authentication() {
    let labshd = Labshd::with(NO_DELAY);
    let marker = labshd.path().join("marker");
    let touch = open(1, &["touch", marker.to_str().unwrap()]);
    for kind in
        Kind::ALL.iter().copied().filter(|kind| ![Kind::Response, Kind::Ping].contains(kind))
    {
        let mut peer = Peer::connect(labshd.plain);
        let connection = peer.next().unwrap().kind == Kind::Challenge && kind as u8 <= 0x07;
        let early = if kind == Kind::Open {
            touch.clone()
        } else {
            bytes(kind, u32::from(!connection), &[])
        };
        peer.send(&[early, touch.clone()].concat());
        let rule = format!("unexpected message `{kind}`: expected `response`");
        assert_broke(&peer.refusal(), &rule);
    }
    // A plain client may begin with one ping, and only with one.
    let mut peer = Peer::connect(labshd.plain);
    peer.send(&[ping(), ping(), touch.clone()].concat());
    peer.next().unwrap();
    assert_broke(&peer.refusal(), "unexpected message `ping`");
    // A command after a wrong proof.
    let mut peer = Peer::connect(labshd.plain);
    let (response, _) = peer.respond(&unknown_key(), Mode::Plain, ChannelBinding::PLAIN);
    peer.send(&[message(&Response::from_frame(&response).unwrap(), 0), touch].concat());
    assert_eq!(peer.refusal().code, RefuseCode::AUTHENTICATION);
    assert_nothing_started(&labshd);
    assert!(!marker.exists());
}

#[test]
fn a_ping_before_and_a_command_after_the_response_are_accepted() {
    let labshd = Labshd::start();
    let mut peer = Peer::connect(labshd.plain);
    let (response, _) = peer.respond(&labshd.host_key(), Mode::Plain, ChannelBinding::PLAIN);
    let response = message(&Response::from_frame(&response).unwrap(), 0);
    peer.send(&[ping(), response.clone(), open(1, &["echo", "well"])].concat());
    assert_eq!(peer.finish(1).stdout, b"well\n");
    peer.send(&response);
    assert_broke(&peer.refusal(), "the handshake is over");
}

#[test]
fn frames_that_are_too_long_or_malformed_are_refused_before_authentication() {
    let labshd = Labshd::start();
    let cases = [
        (header(513, Kind::Response as u8, 0, 0, 0), "a body of 513 bytes, over the limit of 512"),
        (header(u32::MAX, Kind::Response as u8, 0, 0, 0), "a body of 4294967295 bytes"),
        (header(88, 0x7f, 0, 0, 0), "unknown message kind 0x7f"),
        (header(88, Kind::Response as u8, 1, 0, 0), "undefined flags"),
        (header(88, Kind::Response as u8, 0, 1, 0), "reserved"),
        (header(88, Kind::Response as u8, 0, 0, 1), "on channel 1"),
        (bytes(Kind::Response, 0, &[0; 87]), "malformed message `response`"),
        (bytes(Kind::Response, 0, &[0; 89]), "trailing bytes: 1"),
    ];
    for (sent, rule) in cases {
        let mut peer = Peer::connect(labshd.plain);
        peer.send(&sent);
        peer.next().unwrap();
        assert_broke(&peer.refusal(), rule);
        // The log line is written when the connection is closed.
        drop(peer);
        labshd.log().wait_for(rule);
    }
    assert_nothing_started(&labshd);
}

#[test]
fn silent_and_slow_clients_are_refused_at_the_deadline() {
    let labshd = Labshd::with("authentication_deadline = '1s'");
    let silent = Peer::connect(labshd.plain);
    let mut silent_tls = Peer::connect(labshd.tls);
    let dribbler = Peer::connect(labshd.plain);
    let mut writer = dribbler.writer();
    let dribble = thread::spawn(move || {
        for byte in header(512, Kind::Response as u8, 0, 0, 0).into_iter().chain([0; 500]) {
            if writer.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    for mut peer in [silent, dribbler] {
        assert_eq!(peer.next().unwrap().kind, Kind::Challenge);
        assert_eq!(peer.refusal().code, RefuseCode::DEADLINE);
        peer.stream.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(silent_tls.rest(), b"");
    dribble.join().unwrap();
    labshd.log().wait_for_nth("the deadline for authentication has passed", 3);
    assert_nothing_started(&labshd);
}

/// Runs `labsh` with a key that is not enrolled.
fn stranger(labshd: &Labshd) -> Output {
    let dir = labshd.path().join("stranger");
    fs::create_dir(&dir).unwrap();
    run(labsh_in(&dir).args(["key", "new", "stolen"]));
    let mut labsh = labsh_in(&dir);
    labsh.args(["run", &labshd.target(), "true"]).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_wrong_key_is_named_with_its_host_id_and_what_to_check() {
    let labshd = Labshd::start();
    let output = stranger(&labshd);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{stderr}");
    for part in [
        "key stolen",
        "host 127.0.0.1",
        "labshd key list",
        "labsh key enroll stolen --host 127.0.0.1",
    ] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let line = labshd.log().wait_for("not authenticated");
    assert!(line.contains("the client holds another key for this host"), "{line}");
    assert_nothing_started(&labshd);
}

#[test]
fn restrictions_of_an_entry_are_refusals_with_a_remedy() {
    let labshd = Labshd::start();
    let entry = labshd.path().join("keys.d/test+127.0.0.1.toml");
    let plain = fs::read_to_string(&entry).unwrap();
    for (rule, reason, remedy) in [
        ("expires = 2001-02-03", "expired", "`expires`"),
        ("from = ['10.1.2.0/24']", "may not be used from 127.0.0.1", "`from`"),
    ] {
        fs::write(&entry, format!("{plain}{rule}\n")).unwrap();
        labshd.reload();
        let mut labsh = labshd.labsh();
        let output = pipe_through(labsh.args(["run", "--json", &labshd.target(), "true"]), b"");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        for part in [reason, remedy, "\"code\":\"not-permitted\""] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        labshd.log().wait_for(reason);
    }
    assert_eq!(labshd.log().count("command started"), 0);
}

#[test]
fn a_key_that_expires_during_a_session_runs_no_further_command() {
    let labshd = Labshd::start();
    let entry = labshd.path().join("keys.d/test+127.0.0.1.toml");
    let plain = fs::read_to_string(&entry).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Again with more time if a busy machine did not connect in time.
    for seconds in [2, 8, 30, 60] {
        let end =
            stdout_of("date", &["-u", "-d", &format!("+{seconds} seconds"), "+%Y-%m-%dT%H:%M:%SZ"]);
        fs::write(&entry, format!("{plain}expires = {end}\n")).unwrap();
        labshd.reload();
        let Ok(session) = runtime.block_on(Session::connect(&labshd.options())) else { continue };
        let mut refusal = None;
        eventually("a command is refused", || {
            let outcome = runtime.block_on(session.command("true").status());
            refusal = outcome.err();
            refusal.is_some()
        });
        let refusal = refusal.unwrap().to_string();
        assert!(refusal.contains("this key expired"), "{refusal}");
        return;
    }
    panic!("never connected in time");
}

#[test]
fn a_key_removed_during_a_session_loses_it() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    peer.check(1);
    fs::remove_file(labshd.path().join("keys.d/test+127.0.0.1.toml")).unwrap();
    labshd.reload();
    assert_eq!(peer.refusal().code, RefuseCode::NOT_PERMITTED);
}

#[test]
fn the_refusal_of_a_proof_reaches_a_client_that_is_still_sending() {
    let labshd = Labshd::with(NO_DELAY);
    for _ in 0..20 {
        let mut peer = Peer::connect(labshd.plain);
        let (response, _) = peer.respond(&unknown_key(), Mode::Plain, ChannelBinding::PLAIN);
        let mut all = message(&Response::from_frame(&response).unwrap(), 0);
        all.resize(4 << 20, 0);
        let mut writer = peer.writer();
        let sending = thread::spawn(move || writer.write_all(&all));
        assert_eq!(peer.refusal().code, RefuseCode::AUTHENTICATION);
        sending.join().unwrap().unwrap();
    }
}

#[test]
fn a_proof_of_zeros_is_refused() {
    let labshd = Labshd::with(NO_DELAY);
    let answer = answer_to(&labshd, &labshd.host_key(), |frame| {
        let response = Response { proof: Proof([0; 32]), ..Response::from_frame(frame).unwrap() };
        response.frame(ChannelId::CONNECTION)
    });
    assert_authentication(&answer);
}

#[test]
fn a_client_that_closes_before_accept_is_logged_with_its_address() {
    let labshd = Labshd::start();
    stop(labshd.pid());
    let client = Peer::connect(labshd.plain).stream;
    let from = format!("not authenticated from={}", client.local_addr().unwrap());
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    labshd.signal(18);
    labshd.log().wait_for(&from);
}
