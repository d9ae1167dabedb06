//! A TLS client that accepts any server, so that it gets further than a correct client.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use labsh_proto::auth::ChannelBinding;
use labsh_proto::message::Name;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    version,
};

use super::Peer;
use crate::support::TEST_TIMEOUT;

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

pub type TlsPeer = Peer<StreamOwned<ClientConnection, TcpStream>>;

/// A connection through TLS, the identity that the server presented, and the channel binding.
pub fn connect(address: SocketAddr, name: Name) -> (TlsPeer, Vec<u8>, ChannelBinding) {
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"labsh/1".to_vec()];
    let server_name = ServerName::try_from(format!("k{name}")).unwrap();
    let connection = ClientConnection::new(Arc::new(config), server_name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream.flush().unwrap();
    let shown = stream.conn.peer_certificates().unwrap()[0].to_vec();
    let binding =
        stream.conn.export_keying_material([0; 32], ChannelBinding::EXPORTER_LABEL, None).unwrap();
    (Peer::over(stream), shown, ChannelBinding(binding))
}
