//! A port with an unexpected protocol is recognised, and both ends report it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::thread;

use labsh_proto::key::{HostKey, Secret};

use crate::peer::fake_server::{Victim, welcome};
use crate::peer::proxy::{Cut, Proxy};
use crate::support::{HOST, Labshd, feed, labsh_in, text};

/// The line with which `labsh` ends after a failed connection.
fn error_line(output: &Output) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

fn labsh(victim: &Victim, address: SocketAddr, plain: bool) -> Output {
    let mut command = labsh_in(victim.dir.path());
    command.arg("run").args(plain.then_some("--plain")).args([&address.to_string(), "true"]);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn tls_on_a_plain_port_is_recognised_by_both() {
    let labshd = Labshd::start();
    let output = labshd.labsh().args(["run", &labshd.plain.to_string(), "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let line = error_line(&output);
    assert!(line.contains("speaks labsh's plain mode") && line.contains("--plain"), "{line}");
    labshd.log().wait_for("a TLS client on a plain port");
}

#[test]
fn plain_on_a_tls_port_is_recognised_by_both() {
    let labshd = Labshd::start();
    let output =
        labshd.labsh().args(["run", "--plain", &labshd.target(), "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let line = error_line(&output);
    assert!(line.contains("this port speaks TLS") && line.contains("leave out --plain"), "{line}");
    labshd.log().wait_for("a plain client on a TLS port");
}

#[test]
fn an_http_client_is_answered_in_its_own_protocol_and_named_in_the_log() {
    let labshd = Labshd::start();
    let request = b"GET / HTTP/1.1\r\nHost: lab07\r\n\r\n";
    let mut answer = String::new();
    let mut stream = TcpStream::connect(labshd.tls).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nThis port speaks labsh, not HTTP.\n"), "{answer}");
    labshd.log().wait_for("an HTTP client");
    // In plain mode the challenge was sent before the client sends anything.
    let mut stream = TcpStream::connect(labshd.plain).unwrap();
    stream.write_all(request).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    labshd.log().wait_for_nth("an HTTP client", 2);
}

/// A server of another protocol, which sends this at once or after it has received something.
fn foreign(answer: &'static str, at_once: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if at_once || stream.read(&mut [0; 4096]).is_ok() {
                // The client may have left already.
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    address
}

#[test]
fn an_answer_of_another_protocol_is_quoted() {
    let victim = Victim::new();
    for (answer, at_once) in
        [("SSH-2.0-OpenSSH_9.9\r\n", true), ("HTTP/1.1 400 Bad Request\r\n\r\n", false)]
    {
        let address = foreign(answer, at_once);
        for plain in [false, true] {
            let output = labsh(&victim, address, plain);
            assert_eq!(output.status.code(), Some(255));
            let line = error_line(&output);
            assert!(line.contains("does not speak labsh: it answered"), "{line}");
            assert!(line.contains(&answer[..8]) && line.contains("check the port"), "{line}");
        }
    }
}

#[test]
fn control_characters_in_a_quoted_answer_are_escaped() {
    let victim = Victim::new();
    let address = foreign("\x1b[2J\x1b]0;x\x07\u{9b}31m hello", true);
    for plain in [false, true] {
        let line = error_line(&labsh(&victim, address, plain));
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn a_server_that_closes_at_once_is_a_broken_connection() {
    let victim = Victim::new();
    let address = foreign("", true);
    for plain in [false, true] {
        let output = labsh(&victim, address, plain);
        assert_eq!(output.status.code(), Some(255));
        let line = error_line(&output);
        assert!(line.contains("broke during authentication"), "{line}");
    }
}

#[test]
fn a_plain_server_without_the_key_is_not_given_a_command() {
    let victim = Victim::new();
    let output = victim.meet_bare(|mut peer, right| {
        let wrong =
            HostKey::new(right.key_id().clone(), right.host_id().clone(), Secret::new([0; 32]));
        welcome_with_the_proof_of(&mut peer, &right, &wrong);
        // The client sends no further byte.
        assert_eq!(peer.rest(), b"");
    });
    assert_eq!(output.status.code(), Some(255));
    let line = error_line(&output);
    assert!(line.contains("is not the host 127.0.0.1 of key test"), "{line}");
}

/// Accepts the client, but with a proof of another key.
fn welcome_with_the_proof_of(peer: &mut crate::peer::Peer, right: &HostKey, wrong: &HostKey) {
    use labsh_proto::auth::{ChannelBinding, Mode, ServerParameters, Transcript};
    use labsh_proto::frame::Kind;
    use labsh_proto::message::{Body, Challenge, Features, InstanceId, Nonce, Response, Welcome};

    let server_nonce = Nonce([1; 32]);
    peer.send_frame(&Challenge { server_nonce }.frame(crate::peer::CONNECTION));
    peer.until(Kind::Ping, 0);
    let response = Response::from_frame(&peer.next().unwrap()).unwrap();
    assert_eq!(response.name, right.name());
    let parameters = ServerParameters {
        instance: InstanceId([1; 16]),
        features: Features(0),
        channels: 8,
        version: None,
    };
    let transcript = Transcript {
        mode: Mode::Plain,
        features: response.features,
        server_nonce,
        client_nonce: response.client_nonce,
        binding: ChannelBinding::PLAIN,
    };
    let proof = transcript.server_proof(wrong, &parameters);
    let ServerParameters { instance, features, channels, version } = parameters;
    let welcome = Welcome { instance, features, channels, proof, version };
    peer.send_frame(&welcome.frame(crate::peer::CONNECTION));
}

#[test]
fn a_plain_server_that_sends_the_clients_own_proof_back_is_not_given_a_command() {
    use labsh_proto::frame::Kind;
    use labsh_proto::message::{Body, Challenge, Features, InstanceId, Nonce, Response, Welcome};

    let victim = Victim::new();
    let output = victim.meet_bare(|mut peer, _| {
        peer.send_frame(&Challenge { server_nonce: Nonce([1; 32]) }.frame(crate::peer::CONNECTION));
        peer.until(Kind::Ping, 0);
        let proof = Response::from_frame(&peer.next().unwrap()).unwrap().proof;
        let (instance, features) = (InstanceId([1; 16]), Features(0));
        let welcome = Welcome { instance, features, channels: 8, proof, version: None };
        peer.send_frame(&welcome.frame(crate::peer::CONNECTION));
        assert_eq!(peer.rest(), b"");
    });
    assert_eq!(output.status.code(), Some(255));
    assert!(error_line(&output).contains("is not the host 127.0.0.1 of key test"));
}

#[test]
fn a_tls_server_with_another_identity_receives_nothing() {
    // A labshd with other keys only; the client reaches it through a recording proxy.
    let labshd = Labshd::start();
    let victim = Victim::new();
    let proxy = Proxy::start(labshd.tls, Cut::Pass);
    let output = labsh(&victim, proxy.address, false);
    assert_eq!(output.status.code(), Some(255));
    let line = error_line(&output);
    assert!(line.contains("is not the host 127.0.0.1 of key test"), "{line}");
    assert!(line.contains(&format!("labsh key enroll test --host {HOST}")), "{line}");
    labshd.log().wait_for("the client holds another key for this host");
    assert_eq!(labshd.log().count("command started"), 0);
}

#[test]
fn everything_arrives_for_any_segmentation() {
    let labshd = Labshd::start();
    let input: Vec<u8> = (0..60_000_u32).flat_map(u32::to_be_bytes).collect();
    for (port, plain) in [(labshd.tls, false), (labshd.plain, true)] {
        for cut in [Cut::Chop, Cut::Glue] {
            let proxy = Proxy::start(port, cut);
            let mut labsh = labshd.labsh();
            labsh
                .arg("run")
                .args(plain.then_some("--plain"))
                .args([&proxy.address.to_string(), "cat"]);
            assert!(feed(&mut labsh, &input).stdout == input, "{cut:?}");
        }
    }
}

#[test]
fn an_honest_fake_server_is_accepted() {
    // The fake server itself works: otherwise the tests above would show nothing.
    let victim = Victim::new();
    let output = victim.meet_bare(|mut peer, key| {
        welcome(&mut peer, &key, 8);
        peer.until(labsh_proto::frame::Kind::Open, 1);
    });
    assert!(text(&output.stderr).contains("the server closed it"), "{output:?}");
}
