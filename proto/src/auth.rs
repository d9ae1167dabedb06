//! The transcript of a handshake and the two proofs over it (PROTOCOL.md, "Authentication").

use alloc::string::String;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::key::{HostKey, Secret, length_prefix};
use crate::message::{Features, InstanceId, Nonce, Proof};

/// How the frames travel; part of every proof, so that none can be moved from one mode to the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Inside TLS 1.3.
    Tls = 1,
    /// As they are: unix sockets, loopback, teaching.
    Plain = 2,
}

/// What ties the proofs to this very connection: the TLS exporter's 32 bytes, or zeros in plain
/// mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding(pub [u8; 32]);

impl ChannelBinding {
    /// The label under which TLS exports it (RFC 8446, section 7.5); the context is empty.
    pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-labsh-1";

    /// In plain mode there is nothing to bind to.
    pub const PLAIN: Self = Self([0; 32]);
}

/// All that both ends must agree on before either believes the other.
#[derive(Debug, Clone, Copy)]
pub struct Transcript {
    /// TLS or plain.
    pub mode: Mode,
    /// The client's features.
    pub features: Features,
    /// The server's challenge.
    pub server_nonce: Nonce,
    /// The client's.
    pub client_nonce: Nonce,
    /// The TLS connection.
    pub binding: ChannelBinding,
}

/// A proof that did not verify; deliberately says nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not match")]
pub struct WrongProof;

impl Transcript {
    /// The client's proof.
    pub fn client_proof(&self, key: &HostKey) -> Proof {
        finish(self.client_mac(key))
    }

    /// Compares in constant time.
    pub fn verify_client(&self, key: &HostKey, proof: &Proof) -> Result<(), WrongProof> {
        self.client_mac(key).verify_slice(&proof.0).map_err(|_| WrongProof)
    }

    /// The server's proof, which also covers what else `welcome` says.
    pub fn server_proof(&self, key: &HostKey, said: &ServerSays) -> Proof {
        finish(self.server_mac(key, said))
    }

    /// Compares in constant time.
    pub fn verify_server(
        &self,
        key: &HostKey,
        said: &ServerSays,
        proof: &Proof,
    ) -> Result<(), WrongProof> {
        self.server_mac(key, said).verify_slice(&proof.0).map_err(|_| WrongProof)
    }

    fn client_mac(&self, key: &HostKey) -> Hmac<Sha256> {
        self.mac(&key.client_proof_key(), b"labsh/1 client", key)
    }

    fn server_mac(&self, key: &HostKey, said: &ServerSays) -> Hmac<Sha256> {
        let mut mac = self.mac(&key.server_proof_key(), b"labsh/1 server", key);
        mac.update(&said.instance.0);
        mac.update(&said.features.0.to_be_bytes());
        mac.update(&said.channels.to_be_bytes());
        if let Some(version) = &said.version {
            mac.update(&length_prefix(version));
            mac.update(version.as_bytes());
        }
        mac
    }

    fn mac(&self, secret: &Secret, label: &[u8], key: &HostKey) -> Hmac<Sha256> {
        // RFC 2104 pads a short key with zeros to the hash's block of 64 bytes.
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(secret.expose());
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(label);
        mac.update(&[self.mode as u8]);
        for id in [key.key_id().as_str(), key.host_id().as_str()] {
            mac.update(&length_prefix(id));
            mac.update(id.as_bytes());
        }
        mac.update(&self.features.0.to_be_bytes());
        mac.update(&self.server_nonce.0);
        mac.update(&self.client_nonce.0);
        mac.update(&self.binding.0);
        mac
    }
}

/// What `welcome` says besides its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSays {
    /// This run of this server.
    pub instance: InstanceId,
    /// What the server can do.
    pub features: Features,
    /// How many channels the client may hold at once.
    pub channels: u32,
    /// Which version answers: 1 to [`crate::limits::MAX_VERSION`] printable ASCII characters.
    pub version: Option<String>,
}

fn finish(mac: Hmac<Sha256>) -> Proof {
    Proof(mac.finalize().into_bytes().into())
}
