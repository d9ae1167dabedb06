//! Keys, what is derived from them for one host, and the identifiers of both (PROTOCOL.md, "Keys").

use alloc::string::{String, ToString};
use core::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits;
use crate::message::Name;

const SALT: &[u8] = b"labsh/1";

/// Why a string is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Longer than the limit.
    #[error("it is {length} bytes long, the limit is {limit}")]
    Long {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A character that has no place in it.
    #[error("it holds {0:?}")]
    Character(char),
    /// It would be taken for an option.
    #[error("it begins with '-'")]
    Dash,
}

/// The name of a key: 1 to 64 letters, digits, `.`, `_`, `@`, `-`, not beginning with `-` or `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// Checks the rules above.
    pub fn new(text: &str) -> Result<Self, BadId> {
        check(text, limits::MAX_KEY_ID, |c| c.is_ascii_alphanumeric() || "._@-".contains(c))?;
        // It names files: no hidden ones, and never "..".
        if text.starts_with('.') {
            return Err(BadId::Character('.'));
        }
        Ok(Self(text.to_string()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name under which a host was enrolled: 1 to 255 bytes without blanks, control characters or
/// upper case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(String);

impl HostId {
    /// Turns the text to lower case (ASCII) and checks the rules above.
    pub fn new(text: &str) -> Result<Self, BadId> {
        check(text, limits::MAX_HOST_ID, |c| !c.is_whitespace() && !c.is_control())?;
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str, limit: usize, allowed: impl Fn(char) -> bool) -> Result<(), BadId> {
    if text.is_empty() {
        return Err(BadId::Empty);
    }
    if text.len() > limit {
        return Err(BadId::Long { length: text.len(), limit });
    }
    if text.starts_with('-') {
        return Err(BadId::Dash);
    }
    text.chars().find(|c| !allowed(*c)).map_or(Ok(()), |c| Err(BadId::Character(c)))
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// 32 secret bytes; wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a cryptographic function or a key's own file.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// A user's key: it stays with the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: KeyId,
    secret: Secret,
}

impl Key {
    /// A key of 32 bytes from the operating system's generator.
    pub fn new(id: KeyId, secret: Secret) -> Self {
        Self { id, secret }
    }

    /// Its name.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What one host keeps of this key: useless against any other host.
    pub fn for_host(&self, host_id: &HostId) -> HostKey {
        let (_, prk) = Hkdf::<Sha256>::extract(Some(SALT), self.secret.expose());
        let secret = expand(
            &prk,
            &[
                b"labsh/1 host",
                &length_prefix(self.id.as_str()),
                self.id.as_str().as_bytes(),
                &length_prefix(host_id.as_str()),
                host_id.as_str().as_bytes(),
            ],
        );
        HostKey::new(self.id.clone(), host_id.clone(), secret)
    }
}

/// The 16-bit length that goes before a string wherever strings are hashed.
pub(crate) fn length_prefix(text: &str) -> [u8; 2] {
    // Identifiers and versions are at most 255 bytes long.
    (text.len() as u16).to_be_bytes()
}

/// The key of one pair of key and host, `K_host` in PROTOCOL.md; everything else is derived from
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    key_id: KeyId,
    host_id: HostId,
    secret: Secret,
}

impl HostKey {
    /// The key as it was enrolled.
    pub fn new(key_id: KeyId, host_id: HostId, secret: Secret) -> Self {
        Self { key_id, host_id, secret }
    }

    /// A stand-in for pairs that do not exist, so that they cost what a known one costs.
    pub fn dummy(secret: Secret) -> Self {
        Self {
            key_id: KeyId(String::from("unknown")),
            host_id: HostId(String::from("unknown")),
            secret,
        }
    }

    /// The key's name.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The host's name.
    pub fn host_id(&self) -> &HostId {
        &self.host_id
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The pseudonym by which client and server speak of this pair.
    pub fn name(&self) -> Name {
        let mut name = [0; 16];
        self.derive(b"labsh/1 name", &mut name);
        Name(name)
    }

    /// The Ed25519 seed of the server's TLS identity.
    pub fn tls_seed(&self) -> Secret {
        self.subkey(b"labsh/1 tls seed")
    }

    pub(crate) fn client_proof_key(&self) -> Secret {
        self.subkey(b"labsh/1 client proof key")
    }

    pub(crate) fn server_proof_key(&self) -> Secret {
        self.subkey(b"labsh/1 server proof key")
    }

    fn subkey(&self, label: &[u8]) -> Secret {
        let mut bytes = [0; 32];
        self.derive(label, &mut bytes);
        Secret::new(bytes)
    }

    fn derive(&self, label: &[u8], output: &mut [u8]) {
        if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(self.secret.expose()) {
            // Both lengths are constants far inside RFC 5869's bounds.
            let _ = hkdf.expand(label, output);
        }
    }
}

/// The TLS seed shown to a server name that is not enrolled: another for each name, the same at
/// each visit.
pub fn dummy_tls_seed(dummy: &Secret, name: Name) -> Secret {
    if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(dummy.expose()) {
        return expand(&hkdf, &[b"labsh/1 dummy", &name.0]);
    }
    dummy.clone()
}

fn expand(prk: &Hkdf<Sha256>, info: &[&[u8]]) -> Secret {
    let mut bytes = [0; 32];
    // 32 bytes are far inside RFC 5869's bound of 255 blocks.
    let _ = prk.expand_multi_info(info, &mut bytes);
    Secret::new(bytes)
}
