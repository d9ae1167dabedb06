//! Keys, the secrets derived from them for one host, and the identifiers of both (PROTOCOL.md,
//! "Keys").

use alloc::string::{String, ToString};
use core::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits;
use crate::message::Name;

const SALT: &[u8] = b"labsh/1";

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is longer than the limit.
    #[error("it is {length} bytes long, the limit is {limit}")]
    Long {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It contains a character that is not permitted.
    #[error("it contains {0:?}")]
    Character(char),
    /// It could be mistaken for an option.
    #[error("it begins with '-'")]
    Dash,
}

/// The identifier of a key: 1 to 64 letters, digits, `.`, `_`, `@`, `-`, not beginning with `-` or
/// `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// Checks the text against the rules above.
    pub fn new(text: &str) -> Result<Self, BadId> {
        check(text, limits::MAX_KEY_ID, |c| c.is_ascii_alphanumeric() || "._@-".contains(c))?;
        // The id is used as a file name, which must not be hidden or "..".
        if text.starts_with('.') {
            return Err(BadId::Character('.'));
        }
        Ok(Self(text.to_string()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The identifier of a host: 1 to 255 bytes without white space, control characters and upper-case
/// ASCII letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(String);

impl HostId {
    /// Checks the text against the rules above and converts ASCII letters to lower case.
    pub fn new(text: &str) -> Result<Self, BadId> {
        check(text, limits::MAX_HOST_ID, |c| !c.is_whitespace() && !c.is_control())?;
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Returns the text.
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

/// 32 secret bytes, which are wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Wraps the bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, for a cryptographic function or a key's own file.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// A user's key. It never leaves the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: KeyId,
    secret: Secret,
}

impl Key {
    /// Creates a key; the secret must be from the operating system's generator.
    pub fn new(id: KeyId, secret: Secret) -> Self {
        Self { id, secret }
    }

    /// Returns its identifier.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Derives the key for one host, which gives no access to any other host.
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

/// Returns the 16-bit length that precedes a string in the input of a hash.
pub(crate) fn length_prefix(text: &str) -> [u8; 2] {
    // Identifiers and versions are at most 255 bytes long.
    (text.len() as u16).to_be_bytes()
}

/// The key for one host, `K_host` in PROTOCOL.md, from which all other secrets are derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    key_id: KeyId,
    host_id: HostId,
    secret: Secret,
}

impl HostKey {
    /// Creates the key from an enrolment.
    pub fn new(key_id: KeyId, host_id: HostId, secret: Secret) -> Self {
        Self { key_id, host_id, secret }
    }

    /// Creates a dummy key for unknown names, so that they take as long as known ones.
    pub fn dummy(secret: Secret) -> Self {
        Self {
            key_id: KeyId(String::from("unknown")),
            host_id: HostId(String::from("unknown")),
            secret,
        }
    }

    /// Returns the identifier of the user's key.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Returns the identifier of the host.
    pub fn host_id(&self) -> &HostId {
        &self.host_id
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns the name that identifies this pair of key and host on the wire.
    pub fn name(&self) -> Name {
        let mut name = [0; 16];
        self.derive(b"labsh/1 name", &mut name);
        Name(name)
    }

    /// Returns the Ed25519 seed of the server's TLS identity.
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
            // It fails only for more than 255 blocks (RFC 5869, section 2.3).
            let _ = hkdf.expand(label, output);
        }
    }
}

/// Returns the TLS seed for an unknown name: different for each name, and the same each time.
pub fn dummy_tls_seed(dummy: &Secret, name: Name) -> Secret {
    if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(dummy.expose()) {
        return expand(&hkdf, &[b"labsh/1 dummy", &name.0]);
    }
    dummy.clone()
}

fn expand(prk: &Hkdf<Sha256>, info: &[&[u8]]) -> Secret {
    let mut bytes = [0; 32];
    // It fails only for more than 255 blocks (RFC 5869, section 2.3).
    let _ = prk.expand_multi_info(info, &mut bytes);
    Secret::new(bytes)
}
