//! TLS with derived raw public keys, over real sockets.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use labsh_proto::auth::Mode;
use labsh_proto::handshake::Server;
use labsh_proto::key::{HostId, HostKey, Key, KeyId, Secret, dummy_tls_seed};
use labsh_proto::limits;
use labsh_proto::message::{Name, Nonce};
use labsh_transport::framing::{self, FrameReader};
use labsh_transport::socket::{AddressFamily, Socket};
use labsh_transport::tls::{self, Acceptor, ConnectError, Identities};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Debug)]
struct OneKey(HostKey);

impl Identities for OneKey {
    fn tls_seed(&self, name: Name) -> Secret {
        if self.0.name() == name {
            self.0.tls_seed()
        } else {
            dummy_tls_seed(&Secret::new([9; 32]), name)
        }
    }
}

fn key(byte: u8, host: &str) -> HostKey {
    Key::new(KeyId::new("k").unwrap(), Secret::new([byte; 32]))
        .for_host(&HostId::new(host).unwrap())
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Connects with the key `ours` to a server that holds `theirs`. Returns whether both ends agree on
/// the binding and the name.
async fn connect(ours: &HostKey, theirs: HostKey) -> Result<bool, ConnectError> {
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let socket = Socket::tcp(stream, peer, DEAD_PEER_TIMEOUT).unwrap();
        let challenge = Server::new(Mode::Tls, Nonce([5; 32])).challenge();
        let accepted =
            Acceptor::new(OneKey(theirs)).unwrap().accept(socket, &challenge).await.ok()?;
        Some((accepted.binding, accepted.name))
    });
    let socket =
        Socket::connect_tcp("127.0.0.1", port, AddressFamily::Any, DEAD_PEER_TIMEOUT).await?;
    let (stream, binding) = tls::connect(socket, ours).await?;
    let mut reader = FrameReader::new(stream);
    let frame = reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await.unwrap().unwrap();
    assert_eq!(frame, Server::new(Mode::Tls, Nonce([5; 32])).challenge());
    let (server_binding, name) = server.await.unwrap().unwrap();
    Ok(server_binding == binding && name == ours.name())
}

#[tokio::test]
async fn both_ends_agree_and_the_challenge_arrives_with_the_handshake() {
    assert!(connect(&key(1, "lab07"), key(1, "lab07")).await.unwrap());
}

#[tokio::test]
async fn a_server_with_another_key_or_host_is_rejected_in_the_handshake() {
    for theirs in [key(2, "lab07"), key(1, "lab08")] {
        let error = connect(&key(1, "lab07"), theirs).await.unwrap_err();
        assert!(matches!(error, ConnectError::WrongServer), "{error}");
    }
}

#[tokio::test]
async fn a_port_that_does_not_use_tls_is_identified() {
    let challenge = framing::to_bytes(&Server::new(Mode::Plain, Nonce([5; 32])).challenge());
    for (answer, plain) in [(&challenge[..], true), (b"SSH-2.0-OpenSSH_9.2p1\r\n", false)] {
        let (listener, port) = listener().await;
        let answer = answer.to_vec();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&answer).await.unwrap();
            stream
        });
        let socket = Socket::connect_tcp("127.0.0.1", port, AddressFamily::Any, DEAD_PEER_TIMEOUT)
            .await
            .unwrap();
        let error = tls::connect(socket, &key(1, "lab07")).await.unwrap_err();
        match error {
            ConnectError::PlainMode => assert!(plain),
            ConnectError::Foreign(text) => assert!(!plain && text.starts_with("SSH-2.0"), "{text}"),
            other => panic!("{other}"),
        }
        drop(server.await.unwrap());
    }
}
