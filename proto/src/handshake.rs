//! The handshake for both roles, one state a type: a step that is not due cannot be written down.

use crate::auth::{ChannelBinding, Mode, ServerSays, Transcript, WrongProof};
use crate::error::ProtocolError;
use crate::frame::{ChannelId, Frame, Kind};
use crate::key::HostKey;
use crate::message::{Body, Challenge, Features, Name, Nonce, Refuse, Response, Welcome};

/// Why the client does not get in, or does not want to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientFailure {
    /// The server refuses, and says why.
    #[error("refused: {}", .0.reason)]
    Refused(Refuse),
    /// The server does not know the key: it must not be trusted with a command.
    #[error("the server could not prove that it holds this key")]
    ServerProof,
    /// The server broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// A client before the challenge.
#[derive(Debug)]
pub struct Client {
    /// TLS or plain.
    pub mode: Mode,
    /// The pair of key and host.
    pub key: HostKey,
    /// Fresh from the operating system's generator.
    pub nonce: Nonce,
    /// What this client can do.
    pub features: Features,
    /// The TLS connection, or [`ChannelBinding::PLAIN`].
    pub binding: ChannelBinding,
}

/// A client that has sent its response.
#[derive(Debug)]
pub struct ClientAnswered {
    key: HostKey,
    transcript: Transcript,
}

impl Client {
    /// Takes the first frame of the connection and returns the `response` to send.
    pub fn answer(self, frame: &Frame) -> Result<(Frame, ClientAnswered), ClientFailure> {
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
        Ok((frame, ClientAnswered { key: self.key, transcript }))
    }
}

impl ClientAnswered {
    /// Takes the frame after the challenge: the client is in, or learns why not.
    pub fn finish(self, frame: &Frame) -> Result<ServerSays, ClientFailure> {
        if refuses_connection(frame) {
            return Err(ClientFailure::Refused(Refuse::from_frame(frame)?));
        }
        let Welcome { instance, features, channels, proof, version } = Welcome::from_frame(frame)?;
        if version.is_some() && !self.transcript.features.contains(Features::VERSION) {
            let detail = "it has a version, which the client did not request".into();
            return Err(ProtocolError::Malformed { kind: Kind::Welcome, detail }.into());
        }
        let said = ServerSays { instance, features, channels, version };
        self.transcript
            .verify_server(&self.key, &said, &proof)
            .map_err(|WrongProof| ClientFailure::ServerProof)?;
        Ok(said)
    }
}

/// A `refuse` of one command is not due before the client is in.
fn refuses_connection(frame: &Frame) -> bool {
    frame.kind == Kind::Refuse && frame.channel == ChannelId::CONNECTION
}

/// A server that is about to challenge.
#[derive(Debug)]
pub struct Server {
    mode: Mode,
    nonce: Nonce,
}

/// Why the server lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFailure {
    /// Unknown key, wrong proof, or a name other than TLS was asked for: one and the same.
    #[error("authentication failed")]
    Authentication,
    /// The client broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Proof that authentication succeeded: it can be made only here, and a session only from it.
#[derive(Debug)]
pub struct Authenticated {
    key: HostKey,
    transcript: Transcript,
}

impl Server {
    /// Takes a nonce fresh from the operating system's generator.
    pub fn new(mode: Mode, nonce: Nonce) -> Self {
        Self { mode, nonce }
    }

    /// The first frame of the connection.
    pub fn challenge(&self) -> Frame {
        Challenge { server_nonce: self.nonce }.frame(ChannelId::CONNECTION)
    }

    /// Reads the client's first frame. It must be a `response`.
    pub fn read(&self, frame: &Frame) -> Result<Response, ServerFailure> {
        Ok(Response::from_frame(frame)?)
    }

    /// Checks a response. `known` is the key by that name, `dummy` is what an unknown one is
    /// checked against, so that both take the same path; `asked_for` is the name in TLS's SNI, if
    /// there is TLS.
    pub fn verify(
        self,
        response: &Response,
        known: Option<&HostKey>,
        dummy: &HostKey,
        asked_for: Option<Name>,
        binding: ChannelBinding,
    ) -> Result<Authenticated, ServerFailure> {
        let known = known.filter(|_| asked_for.is_none_or(|name| name == response.name));
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
    /// The pair of key and host that was proven.
    pub fn key(&self) -> &HostKey {
        &self.key
    }

    /// What the client can do.
    pub fn features(&self) -> Features {
        self.transcript.features
    }

    /// The `welcome` to send. It holds the version if there is one and the client knows of
    /// versions.
    pub fn welcome(&self, mut said: ServerSays) -> Frame {
        said.version = said.version.filter(|_| self.features().contains(Features::VERSION));
        said.features = said.features.with(Features::VERSION, said.version.is_some());
        let proof = self.transcript.server_proof(&self.key, &said);
        let ServerSays { instance, features, channels, version } = said;
        Welcome { instance, features, channels, proof, version }.frame(ChannelId::CONNECTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{HostId, Key, KeyId, Secret};
    use crate::message::InstanceId;

    const SAID: ServerSays = ServerSays {
        instance: InstanceId([9; 16]),
        features: Features(0),
        channels: 10,
        version: None,
    };

    fn key(byte: u8, host: &str) -> HostKey {
        Key::new(KeyId::new("k").unwrap(), Secret::new([byte; 32]))
            .for_host(&HostId::new(host).unwrap())
    }

    /// The same from a server that has a version to say.
    fn said_with(version: &str) -> ServerSays {
        ServerSays { features: Features::VERSION, version: Some(version.into()), ..SAID }
    }

    /// A client and a server that have proven themselves, as far as the server knows.
    fn proven(features: Features) -> (ClientAnswered, Authenticated) {
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
    ) -> Result<(ClientAnswered, Authenticated), ServerFailure> {
        let server = Server::new(server_mode, Nonce([1; 32]));
        let (frame, answered) = client.answer(&server.challenge()).unwrap();
        let response = server.read(&frame).unwrap();
        let dummy = HostKey::dummy(Secret::new([0; 32]));
        server
            .verify(&response, known, &dummy, None, binding)
            .map(|authenticated| (answered, authenticated))
    }

    #[test]
    fn both_ends_believe_each_other() {
        let key = key(1, "lab07");
        let (answered, authenticated) =
            attempt(client(&key), Mode::Plain, Some(&key), ChannelBinding::PLAIN).unwrap();
        assert_eq!(answered.finish(&authenticated.welcome(SAID)).unwrap(), SAID);
    }

    #[test]
    fn wrong_key_wrong_host_wrong_mode_wrong_connection_and_unknown_fail_alike() {
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
    fn a_name_other_than_the_one_tls_was_asked_for_fails() {
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
    fn even_a_right_proof_under_the_dummy_key_does_not_let_in() {
        let dummy = HostKey::dummy(Secret::new([0; 32]));
        let outcome = attempt(client(&dummy), Mode::Plain, None, ChannelBinding::PLAIN);
        assert_eq!(outcome.unwrap_err(), ServerFailure::Authentication);
    }

    #[test]
    fn a_changed_welcome_is_not_believed() {
        let key = key(1, "lab07");
        let (answered, authenticated) =
            attempt(client(&key), Mode::Plain, Some(&key), ChannelBinding::PLAIN).unwrap();
        let mut welcome = Welcome::from_frame(&authenticated.welcome(SAID)).unwrap();
        welcome.features = Features(1);
        let frame = welcome.frame(ChannelId::CONNECTION);
        assert_eq!(answered.finish(&frame).unwrap_err(), ClientFailure::ServerProof);
    }

    #[test]
    fn the_version_is_told_to_whom_knows_of_versions_and_to_nobody_else() {
        let (answered, authenticated) = proven(Features::VERSION);
        let frame = authenticated.welcome(said_with("labshd 0.1.0"));
        assert_eq!(frame.body.len(), 60 + 8 + 12);
        assert_eq!(answered.finish(&frame).unwrap(), said_with("labshd 0.1.0"));

        let (answered, authenticated) = proven(Features::TERMINAL);
        let frame = authenticated.welcome(said_with("labshd 0.1.0"));
        assert_eq!(frame.body.len(), 60);
        assert_eq!(answered.finish(&frame).unwrap(), SAID);

        // A server without one announces none.
        let (answered, authenticated) = proven(Features::VERSION);
        let said = ServerSays { features: Features::VERSION, ..SAID };
        assert_eq!(answered.finish(&authenticated.welcome(said)).unwrap(), SAID);
    }

    #[test]
    fn a_changed_version_is_not_believed() {
        let (answered, authenticated) = proven(Features::VERSION);
        let mut welcome =
            Welcome::from_frame(&authenticated.welcome(said_with("labshd 0.1.0"))).unwrap();
        welcome.version = Some("labshd 0.1.1".into());
        let frame = welcome.frame(ChannelId::CONNECTION);
        assert_eq!(answered.finish(&frame).unwrap_err(), ClientFailure::ServerProof);
    }

    #[test]
    fn a_version_that_nobody_may_show_or_asked_for_is_a_violation() {
        let malformed = |features, version: &str| {
            let (answered, authenticated) = proven(features);
            let said = said_with(version);
            let proof = authenticated.transcript.server_proof(&authenticated.key, &said);
            let ServerSays { instance, features, channels, version } = said;
            let frame = Welcome { instance, features, channels, proof, version }
                .frame(ChannelId::CONNECTION);
            let error = answered.finish(&frame).unwrap_err();
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

        let (answered, authenticated) = proven(Features::VERSION);
        let longest = said_with(&"~".repeat(64));
        assert_eq!(answered.finish(&authenticated.welcome(longest.clone())).unwrap(), longest);
    }
}
