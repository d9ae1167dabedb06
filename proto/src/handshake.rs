//! The handshake for both roles. Each state is a type, so that a step out of order does not
//! compile.

use crate::auth::{ChannelBinding, Mode, ServerParameters, Transcript, WrongProof};
use crate::error::ProtocolError;
use crate::frame::{ChannelId, Frame, Kind};
use crate::key::HostKey;
use crate::message::{Body, Challenge, Features, Name, Nonce, Refuse, Response, Welcome};

/// Why the handshake failed at the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientFailure {
    /// The server refuses the connection.
    #[error("refused: {}", .0.reason)]
    Refused(Refuse),
    /// The server does not hold the key, so it must not receive a command.
    #[error("the server could not prove that it holds this key")]
    ServerProof,
    /// The server violated the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// A client before the challenge.
#[derive(Debug)]
pub struct Client {
    /// The mode of the connection.
    pub mode: Mode,
    /// The pair of key and host.
    pub key: HostKey,
    /// A new value from the operating system's generator.
    pub nonce: Nonce,
    /// The features of this client.
    pub features: Features,
    /// The binding to the TLS connection, or [`ChannelBinding::PLAIN`].
    pub binding: ChannelBinding,
}

/// A client that has sent its response and expects `welcome`.
#[derive(Debug)]
pub struct AwaitingWelcome {
    key: HostKey,
    transcript: Transcript,
}

impl Client {
    /// Handles the first frame of the connection and returns the `response` to send.
    pub fn answer(self, frame: &Frame) -> Result<(Frame, AwaitingWelcome), ClientFailure> {
        if refuses_connection(frame) {
            return Err(ClientFailure::Refused(Refuse::from_frame(frame)?));
        }
        let challenge = Challenge::from_frame(frame)?;
        let transcript = Transcript {
            mode: self.mode,
            features: self.features,
            server_nonce: challenge.server_nonce,
            client_nonce: self.nonce,
            binding: self.binding,
        };
        let response = Response {
            name: self.key.name(),
            client_nonce: self.nonce,
            features: self.features,
            proof: transcript.client_proof(&self.key),
        };
        let frame = response.frame(ChannelId::CONNECTION);
        Ok((frame, AwaitingWelcome { key: self.key, transcript }))
    }
}

impl AwaitingWelcome {
    /// Handles the frame after the challenge and returns the server's parameters if it is a valid
    /// `welcome`.
    pub fn finish(self, frame: &Frame) -> Result<ServerParameters, ClientFailure> {
        if refuses_connection(frame) {
            return Err(ClientFailure::Refused(Refuse::from_frame(frame)?));
        }
        let Welcome { instance, features, channels, proof, version } = Welcome::from_frame(frame)?;
        if version.is_some() && !self.transcript.features.contains(Features::VERSION) {
            let detail = "it has a version, which the client did not request".into();
            return Err(ProtocolError::Malformed { kind: Kind::Welcome, detail }.into());
        }
        let server = ServerParameters { instance, features, channels, version };
        self.transcript
            .verify_server(&self.key, &server, &proof)
            .map_err(|WrongProof| ClientFailure::ServerProof)?;
        Ok(server)
    }
}

/// Returns whether the frame refuses the connection. A refusal of a command is not permitted yet.
fn refuses_connection(frame: &Frame) -> bool {
    frame.kind == Kind::Refuse && frame.channel == ChannelId::CONNECTION
}

/// A server before the client's response.
#[derive(Debug)]
pub struct Server {
    mode: Mode,
    nonce: Nonce,
}

/// Why the handshake failed at the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFailure {
    /// The key is unknown, the proof is wrong, or the name differs from the one in TLS's SNI. The
    /// client must not learn which.
    #[error("authentication failed")]
    Authentication,
    /// The client violated the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Evidence that authentication succeeded: only [`Server::verify`] makes it, and a session requires
/// it.
#[derive(Debug)]
pub struct Authenticated {
    key: HostKey,
    transcript: Transcript,
}

impl Server {
    /// Creates a server; the nonce must be a new value from the operating system's generator.
    pub fn new(mode: Mode, nonce: Nonce) -> Self {
        Self { mode, nonce }
    }

    /// Returns the first frame of the connection.
    pub fn challenge(&self) -> Frame {
        Challenge { server_nonce: self.nonce }.frame(ChannelId::CONNECTION)
    }

    /// Reads the client's first frame, which must be a `response`.
    pub fn read(&self, frame: &Frame) -> Result<Response, ServerFailure> {
        Ok(Response::from_frame(frame)?)
    }

    /// Verifies a response. `known` is the key with its name; if there is none, the proof is
    /// verified with `dummy`, so that both cases take the same time. `sni_name` is the name in
    /// TLS's SNI, in TLS mode.
    pub fn verify(
        self,
        response: &Response,
        known: Option<&HostKey>,
        dummy: &HostKey,
        sni_name: Option<Name>,
        binding: ChannelBinding,
    ) -> Result<Authenticated, ServerFailure> {
        let known = known.filter(|_| sni_name.is_none_or(|name| name == response.name));
        let key = known.unwrap_or(dummy);
        let transcript = Transcript {
            mode: self.mode,
            features: response.features,
            server_nonce: self.nonce,
            client_nonce: response.client_nonce,
            binding,
        };
        let verified = transcript.verify_client(key, &response.proof).is_ok();
        if verified & known.is_some() {
            Ok(Authenticated { key: key.clone(), transcript })
        } else {
            Err(ServerFailure::Authentication)
        }
    }
}

impl Authenticated {
    /// Returns the pair of key and host that the client authenticated with.
    pub fn key(&self) -> &HostKey {
        &self.key
    }

    /// Returns the features of the client.
    pub fn features(&self) -> Features {
        self.transcript.features
    }

    /// Returns the `welcome` to send. It contains the version if there is one and the client has
    /// announced [`Features::VERSION`].
    pub fn welcome(&self, mut server: ServerParameters) -> Frame {
        server.version = server.version.filter(|_| self.features().contains(Features::VERSION));
        server.features = server.features.with(Features::VERSION, server.version.is_some());
        let proof = self.transcript.server_proof(&self.key, &server);
        let ServerParameters { instance, features, channels, version } = server;
        Welcome { instance, features, channels, proof, version }.frame(ChannelId::CONNECTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{HostId, Key, KeyId, Secret};
    use crate::message::InstanceId;

    const SERVER: ServerParameters = ServerParameters {
        instance: InstanceId([9; 16]),
        features: Features(0),
        channels: 10,
        version: None,
    };

    fn key(byte: u8, host: &str) -> HostKey {
        Key::new(KeyId::new("k").unwrap(), Secret::new([byte; 32]))
            .for_host(&HostId::new(host).unwrap())
    }

    /// The parameters of a server with a version.
    fn server_with(version: &str) -> ServerParameters {
        ServerParameters { features: Features::VERSION, version: Some(version.into()), ..SERVER }
    }

    /// A client and a server after the server has verified the client.
    fn verified(features: Features) -> (AwaitingWelcome, Authenticated) {
        let key = key(1, "lab07");
        let client = Client { features, ..client(&key) };
        attempt(client, Mode::Plain, Some(&key), ChannelBinding::PLAIN).unwrap()
    }

    fn client(key: &HostKey) -> Client {
        Client {
            mode: Mode::Plain,
            key: key.clone(),
            nonce: Nonce([2; 32]),
            features: Features(0),
            binding: ChannelBinding::PLAIN,
        }
    }

    fn attempt(
        client: Client,
        server_mode: Mode,
        known: Option<&HostKey>,
        binding: ChannelBinding,
    ) -> Result<(AwaitingWelcome, Authenticated), ServerFailure> {
        let server = Server::new(server_mode, Nonce([1; 32]));
        let (frame, client) = client.answer(&server.challenge()).unwrap();
        let response = server.read(&frame).unwrap();
        let dummy = HostKey::dummy(Secret::new([0; 32]));
        server
            .verify(&response, known, &dummy, None, binding)
            .map(|authenticated| (client, authenticated))
    }

    #[test]
    fn both_ends_authenticate_each_other() {
        let key = key(1, "lab07");
        let (client, authenticated) =
            attempt(client(&key), Mode::Plain, Some(&key), ChannelBinding::PLAIN).unwrap();
        assert_eq!(client.finish(&authenticated.welcome(SERVER)).unwrap(), SERVER);
    }

    #[test]
    fn a_wrong_key_host_mode_or_connection_and_an_unknown_key_fail_alike() {
        let right = key(1, "lab07");
        let attempts = [
            attempt(client(&right), Mode::Plain, Some(&key(2, "lab07")), ChannelBinding::PLAIN),
            attempt(client(&right), Mode::Plain, Some(&key(1, "lab08")), ChannelBinding::PLAIN),
            attempt(client(&right), Mode::Tls, Some(&right), ChannelBinding::PLAIN),
            attempt(client(&right), Mode::Plain, Some(&right), ChannelBinding([1; 32])),
            attempt(client(&right), Mode::Plain, None, ChannelBinding::PLAIN),
        ];
        for outcome in attempts {
            assert_eq!(outcome.unwrap_err(), ServerFailure::Authentication);
        }
    }

    #[test]
    fn a_name_that_differs_from_the_one_in_sni_fails() {
        let key = key(1, "lab07");
        let server = Server::new(Mode::Plain, Nonce([1; 32]));
        let (frame, _) = client(&key).answer(&server.challenge()).unwrap();
        let response = server.read(&frame).unwrap();
        let dummy = HostKey::dummy(Secret::new([0; 32]));
        let outcome = server.verify(
            &response,
            Some(&key),
            &dummy,
            Some(Name([0; 16])),
            ChannelBinding::PLAIN,
        );
        assert_eq!(outcome.unwrap_err(), ServerFailure::Authentication);
    }

    #[test]
    fn a_valid_proof_with_the_dummy_key_fails() {
        let dummy = HostKey::dummy(Secret::new([0; 32]));
        let outcome = attempt(client(&dummy), Mode::Plain, None, ChannelBinding::PLAIN);
        assert_eq!(outcome.unwrap_err(), ServerFailure::Authentication);
    }

    #[test]
    fn a_modified_welcome_is_rejected() {
        let key = key(1, "lab07");
        let (client, authenticated) =
            attempt(client(&key), Mode::Plain, Some(&key), ChannelBinding::PLAIN).unwrap();
        let mut welcome = Welcome::from_frame(&authenticated.welcome(SERVER)).unwrap();
        welcome.features = Features(1);
        let frame = welcome.frame(ChannelId::CONNECTION);
        assert_eq!(client.finish(&frame).unwrap_err(), ClientFailure::ServerProof);
    }

    #[test]
    fn only_a_client_with_the_feature_receives_the_version() {
        let (client, authenticated) = verified(Features::VERSION);
        let frame = authenticated.welcome(server_with("labshd 0.1.0"));
        assert_eq!(frame.body.len(), 60 + 8 + 12);
        assert_eq!(client.finish(&frame).unwrap(), server_with("labshd 0.1.0"));

        let (client, authenticated) = verified(Features::TERMINAL);
        let frame = authenticated.welcome(server_with("labshd 0.1.0"));
        assert_eq!(frame.body.len(), 60);
        assert_eq!(client.finish(&frame).unwrap(), SERVER);

        // A server without a version clears the feature.
        let (client, authenticated) = verified(Features::VERSION);
        let server = ServerParameters { features: Features::VERSION, ..SERVER };
        assert_eq!(client.finish(&authenticated.welcome(server)).unwrap(), SERVER);
    }

    #[test]
    fn a_modified_version_is_rejected() {
        let (client, authenticated) = verified(Features::VERSION);
        let mut welcome =
            Welcome::from_frame(&authenticated.welcome(server_with("labshd 0.1.0"))).unwrap();
        welcome.version = Some("labshd 0.1.1".into());
        let frame = welcome.frame(ChannelId::CONNECTION);
        assert_eq!(client.finish(&frame).unwrap_err(), ClientFailure::ServerProof);
    }

    #[test]
    fn an_invalid_or_unrequested_version_is_a_violation() {
        let malformed = |features, version: &str| {
            let (client, authenticated) = verified(features);
            let server = server_with(version);
            let proof = authenticated.transcript.server_proof(&authenticated.key, &server);
            let ServerParameters { instance, features, channels, version } = server;
            let frame = Welcome { instance, features, channels, proof, version }
                .frame(ChannelId::CONNECTION);
            let error = client.finish(&frame).unwrap_err();
            matches!(
                error,
                ClientFailure::Protocol(ProtocolError::Malformed { kind: Kind::Welcome, .. })
            )
        };
        for version in
            ["", &"x".repeat(65), "labshd\n0.1", "\u{1b}[2J", "labshd \u{202e}1.0", "\u{7f}"]
        {
            assert!(malformed(Features::VERSION, version), "{version:?}");
        }
        assert!(malformed(Features(0), "labshd 0.1.0"));

        let (client, authenticated) = verified(Features::VERSION);
        let longest = server_with(&"~".repeat(64));
        assert_eq!(client.finish(&authenticated.welcome(longest.clone())).unwrap(), longest);
    }
}
