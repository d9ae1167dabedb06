//! A server that sends what a test chooses, and a `labsh` with a key for it.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use labsh_proto::auth::{ChannelBinding, Mode, ServerParameters};
use labsh_proto::frame::Kind;
use labsh_proto::handshake::Server;
use labsh_proto::key::{HostId, HostKey, Key, Secret};
use labsh_proto::message::{Features, InstanceId, Nonce, Started};
use labsh_transport::random;
use tempfile::TempDir;

use super::{Peer, message};
use crate::support::{HOST, TEST_TIMEOUT, labsh_in, run, temp_dir};

/// A `labsh` with a key, without a labshd.
pub struct Victim {
    pub dir: TempDir,
    pub key: HostKey,
}

impl Victim {
    pub fn new() -> Self {
        let dir = temp_dir();
        run(labsh_in(dir.path()).args(["key", "new", "test"]));
        let line = std::fs::read_to_string(dir.path().join("config/labsh/keys/test.key")).unwrap();
        let key = Key::from_line(&line).unwrap().for_host(&HostId::new(HOST).unwrap());
        Self { dir, key }
    }

    /// `labsh run --plain TARGET …`.
    pub fn run(&self, address: SocketAddr, words: &[&str]) -> Command {
        let mut command = labsh_in(self.dir.path());
        command.args(["run", "--plain", &address.to_string()]).args(words);
        command
    }

    /// Runs `labsh` against a server that runs this script once it has accepted the client.
    pub fn meet(&self, script: impl FnOnce(Peer) + Send + 'static) -> Output {
        self.meet_bare(|mut peer, key| {
            welcome(&mut peer, &key, 8);
            script(peer);
        })
    }

    /// The same, with a script that begins with the first byte of the connection.
    pub fn meet_bare(&self, script: impl FnOnce(Peer, HostKey) + Send + 'static) -> Output {
        let (address, server) = self.serve(script);
        let output = self.run(address, &["cat"]).stdin(Stdio::null()).output().unwrap();
        server.join().unwrap();
        output
    }

    /// Serves one connection.
    pub fn serve(
        &self,
        script: impl FnOnce(Peer, HostKey) + Send + 'static,
    ) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let key = self.key.clone();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            stream.set_nodelay(true).unwrap();
            script(Peer::over(stream), key);
        });
        (address, server)
    }
}

/// Performs the server's half of the handshake.
pub fn welcome(peer: &mut Peer, key: &HostKey, channels: u32) {
    welcome_from(peer, key, channels, Some("a fake server 1.0"));
}

/// The same for a server that reports this version, or none.
pub fn welcome_from(peer: &mut Peer, key: &HostKey, channels: u32, version: Option<&str>) {
    let server = Server::new(Mode::Plain, Nonce(random::bytes()));
    peer.send_frame(&server.challenge());
    peer.until(Kind::Ping, 0);
    let response = server.read(&peer.next().unwrap()).unwrap();
    let dummy = HostKey::dummy(Secret::new([0; 32]));
    let proven = server.verify(&response, Some(key), &dummy, None, ChannelBinding::PLAIN).unwrap();
    let instance = InstanceId([3; 16]);
    let (features, version) = (Features::SUPPORTED, version.map(Into::into));
    peer.send_frame(&proven.welcome(ServerParameters { instance, features, channels, version }));
}

/// Receives the client's command, and answers that it has started.
pub fn start(peer: &mut Peer) {
    peer.until(Kind::Open, 1);
    peer.send(&message(&Started { pid: 1 }, 1));
}
