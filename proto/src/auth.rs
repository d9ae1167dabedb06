//! The transcript of a handshake, and the two proofs over it (PROTOCOL.md, "Authentication").

use alloc::string::String;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::key::{HostKey, Secret, length_prefix};
use crate::message::{Features, InstanceId, Nonce, Proof};

/// The mode of a connection. It is part of every proof, so that a proof is valid in one mode only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Frames over TLS 1.3.
    Tls = 1,
    /// Frames directly on the socket: for unix sockets, loopback and teaching.
    Plain = 2,
}

/// The value that binds the proofs to one connection: 32 bytes of the TLS exporter, or zeros in
/// plain mode (channel binding, RFC 5056).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding(pub [u8; 32]);

impl ChannelBinding {
    /// The label of the TLS exporter (RFC 8446, section 7.5); the context is empty.
    pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-labsh-1";

    /// The value in plain mode, where there is no secure channel to bind to.
    pub const PLAIN: Self = Self([0; 32]);
}

/// The values that both ends must agree on; the proofs cover them.
#[derive(Debug, Clone, Copy)]
pub struct Transcript {
    /// The mode of the connection.
    pub mode: Mode,
    /// The features of the client.
    pub features: Features,
    /// The server's nonce, from its challenge.
    pub server_nonce: Nonce,
    /// The client's nonce, from its response.
    pub client_nonce: Nonce,
    /// The binding to the TLS connection.
    pub binding: ChannelBinding,
}

/// A proof that is not valid; deliberately without a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not match")]
pub struct WrongProof;

impl Transcript {
    /// Returns the client's proof.
    pub fn client_proof(&self, key: &HostKey) -> Proof {
        finish(self.client_mac(key))
    }

    /// Verifies the client's proof, in constant time.
    pub fn verify_client(&self, key: &HostKey, proof: &Proof) -> Result<(), WrongProof> {
        self.client_mac(key).verify_slice(&proof.0).map_err(|_| WrongProof)
    }

    /// Returns the server's proof, which also covers the other fields of `welcome`.
    pub fn server_proof(&self, key: &HostKey, server: &ServerParameters) -> Proof {
        finish(self.server_mac(key, server))
    }

    /// Verifies the server's proof, in constant time.
    pub fn verify_server(
        &self,
        key: &HostKey,
        server: &ServerParameters,
        proof: &Proof,
    ) -> Result<(), WrongProof> {
        self.server_mac(key, server).verify_slice(&proof.0).map_err(|_| WrongProof)
    }

    fn client_mac(&self, key: &HostKey) -> Hmac<Sha256> {
        self.mac(&key.client_proof_key(), b"labsh/1 client", key)
    }

    fn server_mac(&self, key: &HostKey, server: &ServerParameters) -> Hmac<Sha256> {
        let mut mac = self.mac(&key.server_proof_key(), b"labsh/1 server", key);
        mac.update(&server.instance.0);
        mac.update(&server.features.0.to_be_bytes());
        mac.update(&server.channels.to_be_bytes());
        if let Some(version) = &server.version {
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

/// The fields of `welcome` without its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerParameters {
    /// The id of this server process.
    pub instance: InstanceId,
    /// The features of the server.
    pub features: Features,
    /// The number of channels that the client may hold at the same time.
    pub channels: u32,
    /// Program and version: 1 to [`crate::limits::MAX_VERSION`] printable ASCII characters.
    pub version: Option<String>,
}

fn finish(mac: Hmac<Sha256>) -> Proof {
    Proof(mac.finalize().into_bytes().into())
}
