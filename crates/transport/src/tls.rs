//! TLS 1.3 with raw public keys (RFC 7250) derived from labsh's own (PROTOCOL.md, "TLS mode"). The
//! only file that names the cryptographic provider.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use labsh_proto::auth::ChannelBinding;
use labsh_proto::frame::Frame;
use labsh_proto::key::{HostKey, Secret};
use labsh_proto::message::Name;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self as provider, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use zeroize::Zeroizing;

pub use rustls::Error as TlsError;

use crate::framing;
use crate::socket::Socket;

const ALPN: &[u8] = b"labsh/1";

/// The most encrypted data that waits for the socket, in bytes: a whole batch of frames, so that
/// one system call sends it.
const MAX_UNSENT: usize = 320 << 10;

/// The first byte of every TLS connection: the type of a handshake record (RFC 8446, section 5.1).
pub const FIRST_BYTE: u8 = 0x16;

/// The bytes before the 32 seed bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
const PKCS8_PREFIX: &[u8; 16] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Returns the provider with one key exchange, so that no connection needs a further round trip to
/// negotiate it.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768],
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..provider::default_provider()
    })
}

/// Derives the server's TLS identity for a pair of key and host, which only the two ends can.
fn identity(seed: &Secret) -> Result<CertifiedKey, Error> {
    let mut pkcs8 = Zeroizing::new([0; 48]);
    pkcs8[..16].copy_from_slice(PKCS8_PREFIX);
    pkcs8[16..].copy_from_slice(seed.expose());
    let key = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))?;
    let public =
        key.public_key().ok_or(Error::General("an Ed25519 key without a public half".into()))?;
    Ok(CertifiedKey::new(vec![CertificateDer::from(public.to_vec())], key))
}

/// Returns the name to send in SNI: `k` and 32 hexadecimal digits, as a name of digits alone would
/// not be a DNS name.
fn server_name(name: Name) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(format!("k{name}")).map_err(|error| Error::General(error.to_string()))
}

fn name_in(server_name: &str) -> Option<Name> {
    let digits = server_name.strip_prefix('k')?;
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut name = [0; 16];
    for (index, byte) in name.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(Name(name))
}

// ---- Client ----

/// A verifier that accepts one public key.
#[derive(Debug)]
struct PinnedKey {
    public: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.public {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not supported".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(cert.as_ref()),
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Why the client could not establish TLS.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server has another key: it is another host, the key is not enrolled there, or the
    /// connection is intercepted.
    #[error("the server could not prove that it is this host")]
    WrongServer,
    /// The server is labsh in plain mode.
    #[error("the port speaks labsh's plain mode, not TLS")]
    PlainMode,
    /// The server uses another protocol; the text is its first bytes.
    #[error("the port does not speak labsh: it answered {0:?}")]
    Foreign(String),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Any other error of TLS.
    #[error("TLS failed: {0}")]
    Tls(#[from] Error),
}

/// The system's clock for rustls, whose own panics before 1970. Nothing here depends on the time:
/// the keys are pinned, and there are no tickets.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// Connects as a client to the server that holds `key`.
pub async fn connect(
    socket: Socket,
    key: &HostKey,
) -> Result<(TlsStream<Socket>, ChannelBinding), ConnectError> {
    let provider = provider();
    let public = identity(&key.tls_seed())?.cert.remove(0);
    let verifier = PinnedKey { public, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Clock))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = match connector.connect(server_name(key.name())?, socket).into_fallible().await {
        Ok(stream) => stream,
        Err((error, socket)) => return Err(connect_error(error, socket.first_bytes())),
    };
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(Error::NoApplicationProtocol.into());
    }
    let binding = connection
        .export_keying_material([0; 32], ChannelBinding::EXPORTER_LABEL, None)
        .map(ChannelBinding)?;
    Ok((TlsStream::Client(stream), binding))
}

/// Returns the cause of a failed handshake, from the error and the first bytes of the server.
fn connect_error(error: io::Error, first_bytes: &[u8]) -> ConnectError {
    // A challenge's header is 00 00 00 20 01 00 00 00; a TLS record begins with 14 to 17.
    match first_bytes {
        [0, 0, _, _, kind, _, 0, 0, ..] if *kind == 0x01 || *kind == 0x04 => {
            return ConnectError::PlainMode;
        }
        [0x14..=0x17, ..] | [] => {}
        other => return ConnectError::Foreign(String::from_utf8_lossy(other).into_owned()),
    }
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(_)) => ConnectError::WrongServer,
        Some(tls) => ConnectError::Tls(tls.clone()),
        None => ConnectError::Io(error),
    }
}

// ---- Server ----

/// A source of the server's TLS identities. An unknown name has a dummy identity at the same cost.
pub trait Identities: fmt::Debug + Send + Sync + 'static {
    /// Returns the Ed25519 seed of the identity for a client that requests this name.
    fn tls_seed(&self, name: Name) -> Secret;
}

#[derive(Debug)]
struct Resolver<I>(I);

impl<I: Identities> ResolvesServerCert for Resolver<I> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = name_in(hello.server_name()?)?;
        identity(&self.0.tls_seed(name)).ok().map(Arc::new)
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts TLS connections; made once, and shared by all of them.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Acceptor")
    }
}

/// A client after the TLS handshake, which is not authenticated yet.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TlsStream<Socket>,
    /// The name that the client requested in SNI.
    pub name: Name,
    /// The value that the client's proof must cover.
    pub binding: ChannelBinding,
}

impl Acceptor {
    /// Creates an acceptor without tickets, resumption and early data. The challenge is sent with
    /// the server's last handshake message.
    pub fn new(identities: impl Identities) -> Result<Self, Error> {
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(Clock))
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(identities)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_half_rtt_data = true;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Performs the TLS handshake and sends `challenge` as early as TLS permits.
    pub async fn accept(&self, socket: Socket, challenge: &Frame) -> io::Result<Accepted> {
        let bytes = framing::to_bytes(challenge);
        let mut stream = self
            .0
            .accept_with(socket, |connection| {
                connection.set_buffer_limit(Some(MAX_UNSENT));
                // Buffered until TLS permits it. If the buffer were too small for 44 bytes, the
                // client would report a missing challenge.
                let _ = connection.writer().write_all(&bytes);
            })
            .await?;
        tokio::io::AsyncWriteExt::flush(&mut stream).await?;
        let connection = stream.get_ref().1;
        let invalid = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(invalid(Error::NoApplicationProtocol));
        }
        let name = connection.server_name().and_then(name_in);
        let name = name.ok_or_else(|| invalid(Error::General("no server name".into())))?;
        let binding = connection
            .export_keying_material([0; 32], ChannelBinding::EXPORTER_LABEL, None)
            .map_err(invalid)?;
        Ok(Accepted { stream: TlsStream::Server(stream), name, binding: ChannelBinding(binding) })
    }
}

/// Why a handshake with a client failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The client rejected the server's identity: it holds another key.
    WrongKey,
    /// The client requests what no client of labsh requests.
    Foreign,
    /// The connection ended, or was never more than that.
    Closed,
    /// Any other error.
    Other,
}

/// Returns why [`Acceptor::accept`] failed.
pub fn rejection(error: &io::Error) -> Rejection {
    use rustls::AlertDescription as Alert;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        // What rustls and other libraries send for an identity that they do not accept.
        Some(Error::AlertReceived(
            Alert::AccessDenied
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate,
        )) => Rejection::WrongKey,
        Some(
            Error::PeerIncompatible(_)
            | Error::NoApplicationProtocol
            | Error::NoCertificatesPresented
            | Error::General(_)
            | Error::InvalidMessage(_),
        ) => Rejection::Foreign,
        Some(_) => Rejection::Other,
        None if error.kind() == io::ErrorKind::UnexpectedEof => Rejection::Closed,
        None => Rejection::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_from_the_server_name() {
        let name = Name(*b"0123456789abcdef");
        let ServerName::DnsName(text) = server_name(name).unwrap() else { panic!("a DNS name") };
        assert_eq!(name_in(text.as_ref()), Some(name));
        for bad in [
            "",
            "k",
            "localhost",
            &"k0".repeat(17),
            &format!("k{}", "é".repeat(16)),
            &format!("k+{}", "0".repeat(31)),
        ] {
            assert_eq!(name_in(bad), None, "{bad}");
        }
    }
}
