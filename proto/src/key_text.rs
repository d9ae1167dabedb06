//! Keys as lines of text: the content of a key file, and the enrolment line for a host
//! (PROTOCOL.md, "Keys").

use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::key::{BadId, HostId, HostKey, Key, KeyId, Secret};

const KEY_PREFIX: &str = "labsh-key-1";
const HOST_PREFIX: &str = "labsh-host-1";

/// Why a line is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It does not begin with this word.
    #[error("it does not begin with \"{0}\"")]
    Prefix(&'static str),
    /// It is a user's key, and not an enrolment line.
    #[error(
        "it is a user's key, which must never leave its owner; make a line for this host with \
         `labsh key enroll`"
    )]
    UserKey,
    /// It is an enrolment line, and not a user's key.
    #[error(
        "it is an enrolment line, which belongs on a host (`labshd key add`), not a user's key"
    )]
    EnrolmentLine,
    /// It has too few or too many words.
    #[error("it has {got} words, not {expected}: it is cut short or joined with something else")]
    Fields {
        /// The number of words in the line.
        got: usize,
        /// The number of words of such a line.
        expected: usize,
    },
    /// An identifier is not valid.
    #[error("the name of the {what} is not valid: {error}")]
    Id {
        /// What it identifies: a key or a host.
        what: &'static str,
        /// Why it is not valid.
        error: BadId,
    },
    /// The secret is not 64 hexadecimal digits.
    #[error("its secret is not 64 hexadecimal digits")]
    Secret,
    /// The checksum does not match: a character was changed or lost.
    #[error("its checksum does not match: a character was changed or lost on the way")]
    Checksum,
}

impl Key {
    /// Returns `labsh-key-1 KEY-ID SECRET CHECKSUM`, without a newline.
    pub fn to_line(&self) -> String {
        with_checksum(alloc::format!("{KEY_PREFIX} {} {}", self.id(), hex(self.secret().expose())))
    }

    /// Parses such a line; white space around it is ignored.
    pub fn from_line(line: &str) -> Result<Self, BadLine> {
        let [id, secret] = fields_of::<2>(line, KEY_PREFIX)?;
        Ok(Self::new(key_id(id)?, unhex(secret)?))
    }
}

impl HostKey {
    /// Returns `labsh-host-1 KEY-ID HOST-ID SECRET CHECKSUM`, without a newline.
    pub fn to_line(&self) -> String {
        with_checksum(alloc::format!(
            "{HOST_PREFIX} {} {} {}",
            self.key_id(),
            self.host_id(),
            hex(self.secret().expose())
        ))
    }

    /// Parses such a line; white space around it is ignored.
    pub fn from_line(line: &str) -> Result<Self, BadLine> {
        let [key, host, secret] = fields_of::<3>(line, HOST_PREFIX)?;
        let host = HostId::new(host).map_err(|error| BadLine::Id { what: "host", error })?;
        Ok(Self::new(key_id(key)?, host, unhex(secret)?))
    }
}

/// Returns the first four bytes of the text's SHA-256 digest: it detects typing errors, and does
/// not protect against attackers.
fn checksum(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..4])
}

fn with_checksum(text: String) -> String {
    let checksum = checksum(&text);
    text + " " + &checksum
}

fn fields_of<'line, const FIELDS: usize>(
    line: &'line str,
    prefix: &'static str,
) -> Result<[&'line str; FIELDS], BadLine> {
    let line = line.trim();
    let words: Vec<&str> = line.split(' ').collect();
    match words[0] {
        "" => return Err(BadLine::Empty),
        first if first == prefix => {}
        KEY_PREFIX => return Err(BadLine::UserKey),
        HOST_PREFIX => return Err(BadLine::EnrolmentLine),
        _ => return Err(BadLine::Prefix(prefix)),
    }
    let wrong_count = BadLine::Fields { got: words.len(), expected: FIELDS + 2 };
    let [_, fields @ .., sum] = words.as_slice() else { return Err(wrong_count) };
    let fields: [&str; FIELDS] = fields.try_into().map_err(|_| wrong_count)?;
    let checked = &line[..line.len() - sum.len() - 1];
    if checksum(checked) != *sum {
        return Err(BadLine::Checksum);
    }
    Ok(fields)
}

fn key_id(text: &str) -> Result<KeyId, BadLine> {
    KeyId::new(text).map_err(|error| BadLine::Id { what: "key", error })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<Secret, BadLine> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(BadLine::Secret);
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new(KeyId::new("alice@lab").unwrap(), Secret::new([7; 32]))
    }

    #[test]
    fn a_written_line_is_parsed_to_the_same_key() {
        assert_eq!(Key::from_line(&key().to_line()).unwrap(), key());
        let host = key().for_host(&HostId::new("Lab07.Example").unwrap());
        assert_eq!(host.host_id().as_str(), "lab07.example");
        assert_eq!(HostKey::from_line(&(host.to_line() + "\n")).unwrap(), host);
    }

    #[test]
    fn every_changed_or_missing_character_is_detected() {
        let line = key().to_line();
        for at in 0..line.len() {
            assert!(Key::from_line(&line[..at]).is_err(), "truncated at {at}");
            let mut changed = line.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Key::from_line(&changed).is_err(), "changed at {at}: {changed}");
        }
    }

    #[test]
    fn a_line_of_the_other_kind_is_named() {
        let host = key().for_host(&HostId::new("h").unwrap());
        assert_eq!(Key::from_line(&host.to_line()), Err(BadLine::EnrolmentLine));
        assert_eq!(HostKey::from_line(&key().to_line()), Err(BadLine::UserKey));
    }

    #[test]
    fn dangerous_identifiers_are_refused() {
        for bad in ["", "-x", "a b", "a\n", "../x", ".hidden", "a/b"] {
            assert!(KeyId::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "-oProxyCommand", "a b", "a\nb", "\u{7f}"] {
            assert!(HostId::new(bad).is_err(), "{bad:?}");
        }
    }
}
