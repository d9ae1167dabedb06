//! Whole handshakes, both roles in one thread, and the derivation of their keys.

use anyhow::{Context, anyhow};
use labsh_proto::auth::{ChannelBinding, Mode, ServerParameters};
use labsh_proto::handshake::{Client, Server};
use labsh_proto::key::{HostId, HostKey, Key, KeyId, Secret};
use labsh_proto::limits;
use labsh_proto::message::{Features, InstanceId, Name, Nonce};
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{self, FrameReader};
use labsh_transport::socket::Socket;
use labsh_transport::tls;
use tokio::net::UnixStream;

const SERVER_NONCE: Nonce = Nonce([1; 32]);
const CLIENT_NONCE: Nonce = Nonce([2; 32]);

fn says() -> ServerParameters {
    let version = Some("labshd 0.1.0".to_owned());
    ServerParameters {
        instance: InstanceId([3; 16]),
        features: Features::SUPPORTED,
        channels: 256,
        version,
    }
}

/// A user's key, always the same.
///
/// # Errors
///
/// None in practice: its name is a right one.
pub fn key() -> anyhow::Result<Key> {
    Ok(Key::new(KeyId::new("alice@desk")?, Secret::new([4; 32])))
}

/// The host that all handshakes are with.
///
/// # Errors
///
/// None in practice: its name is a right one.
pub fn host() -> anyhow::Result<HostId> {
    Ok(HostId::new("lab07.example.org")?)
}

/// All that is derived from a key for one host before its first connection: the key of the pair,
/// its pseudonym and the seed of the server's identity in TLS.
pub fn key_schedule(key: &Key, host: &HostId) -> (HostKey, Name, Secret) {
    let pair = key.for_host(host);
    let (name, seed) = (pair.name(), pair.tls_seed());
    (pair, name, seed)
}

/// Challenge, response and welcome, without anything between the two ends.
///
/// # Errors
///
/// None in practice: both hold the same key.
pub fn plain(key: &HostKey, dummy: &HostKey) -> anyhow::Result<ServerParameters> {
    let server = Server::new(Mode::Plain, SERVER_NONCE);
    let (response, answered) =
        client(key, Mode::Plain, ChannelBinding::PLAIN).answer(&server.challenge())?;
    let response = server.read(&response)?;
    let authenticated = server.verify(&response, Some(key), dummy, None, ChannelBinding::PLAIN)?;
    Ok(answered.finish(&authenticated.welcome(says()))?)
}

/// The decoy key for unknown names.
pub fn dummy() -> HostKey {
    HostKey::dummy(Secret::new([5; 32]))
}

fn client(key: &HostKey, mode: Mode, binding: ChannelBinding) -> Client {
    Client { mode, key: key.clone(), nonce: CLIENT_NONCE, features: Features::SUPPORTED, binding }
}

#[derive(Debug)]
struct OnePair(HostKey);

impl tls::Identities for OnePair {
    fn tls_seed(&self, _: Name) -> Secret {
        self.0.tls_seed()
    }
}

/// A server's side of TLS that knows this pair alone.
///
/// # Errors
///
/// What the provider of cryptography objects to.
pub fn acceptor(key: &HostKey) -> anyhow::Result<tls::Acceptor> {
    Ok(tls::Acceptor::new(OnePair(key.clone()))?)
}

/// TLS, then challenge, response and welcome, over a pair of unix sockets: all that both ends do
/// for one connection.
///
/// TLS takes its own random bytes, so the number of instructions differs a little from one time to
/// the next.
///
/// # Errors
///
/// None in practice, save for descriptors that run out.
pub async fn tls(
    acceptor: &tls::Acceptor,
    key: &HostKey,
    dummy: &HostKey,
) -> anyhow::Result<ServerParameters> {
    let (near, far) = UnixStream::pair()?;
    let server = async {
        let server = Server::new(Mode::Tls, SERVER_NONCE);
        let accepted = acceptor.accept(Socket::unix(far), &server.challenge()).await?;
        let mut reader = FrameReader::new(Carrier::Tls(Box::new(accepted.stream)));
        let frame =
            reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await?.context("a response")?;
        let response = server.read(&frame)?;
        let authenticated =
            server.verify(&response, Some(key), dummy, Some(accepted.name), accepted.binding)?;
        framing::write(reader.get_mut(), &[authenticated.welcome(says())]).await?;
        anyhow::Ok(reader)
    };
    let client = async {
        let (stream, binding) = tls::connect(Socket::unix(near), key).await?;
        let mut reader = FrameReader::new(Carrier::Tls(Box::new(stream)));
        let challenge =
            reader.next(limits::MAX_BODY_BEFORE_AUTHENTICATION).await?.context("a challenge")?;
        let (response, answered) = client(key, Mode::Tls, binding).answer(&challenge)?;
        framing::write(reader.get_mut(), &[response]).await?;
        let welcome = reader.next(limits::MAX_BODY).await?.context("a welcome")?;
        answered.finish(&welcome).map_err(|failure| anyhow!(failure))
    };
    let (_held, says) = tokio::try_join!(server, client)?;
    Ok(says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_handshakes_come_to_their_end() {
        let (pair, name, seed) = key_schedule(&key().unwrap(), &host().unwrap());
        assert_eq!((pair.name(), pair.tls_seed()), (name, seed));
        assert_eq!(plain(&pair, &dummy()).unwrap(), says());
        assert_eq!(tls(&acceptor(&pair).unwrap(), &pair, &dummy()).await.unwrap(), says());
    }
}
