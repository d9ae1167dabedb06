//! The secret from which the TLS identities for unknown names are derived. It is stored in a file:
//! if those identities changed at a restart, clients could tell unknown names from known ones.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use labsh_proto::key::Secret;
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use crate::private_file::{self, FileContent};

/// The name of its file in `keys.d`, hidden so that it is not read as an entry.
const FILE: &str = ".dummy";

/// Loads the secret from a directory, or creates it. If neither is possible, logs a warning and
/// uses a secret that lasts as long as this process.
///
/// # Errors
///
/// When the operating system provides no random bytes.
pub(crate) fn load_or_create(dir: &Path) -> io::Result<Secret> {
    if let Ok(secret) = load(dir) {
        return Ok(secret);
    }
    let secret = random()?;
    create(dir, secret).or_else(|problem| {
        tracing::warn!(
            directory = %dir.display(),
            problem,
            "the identities of unknown names will change at a restart, so clients can tell \
             unknown names from known ones; let labshd write to the directory once, or remove the \
             file in the way"
        );
        of_this_process()
    })
}

/// Returns a secret that lasts as long as this process.
///
/// # Errors
///
/// When the operating system provides no random bytes.
pub(crate) fn of_this_process() -> io::Result<Secret> {
    static SECRET: OnceLock<Secret> = OnceLock::new();
    match SECRET.get() {
        Some(secret) => Ok(secret.clone()),
        None => {
            let secret = random()?;
            Ok(SECRET.get_or_init(|| secret).clone())
        }
    }
}

fn load(dir: &Path) -> Result<Secret, String> {
    let text = private_file::read(&dir.join(FILE), FileContent::Secret)
        .map_err(|problem| problem.to_string())?;
    parse(text.trim())
        .ok_or_else(|| format!("{FILE} does not contain 64 hexadecimal digits; remove it"))
}

fn create(dir: &Path, secret: Secret) -> Result<Secret, String> {
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in secret.expose() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    match private_file::create(&dir.join(FILE), &text) {
        Ok(()) => Ok(secret),
        // Another process has just created it, or it could not be read before, and fails again.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(dir),
        Err(error) => Err(format!("{FILE} cannot be created: {error}")),
    }
}

fn parse(text: &str) -> Option<Secret> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(Secret::new(bytes))
}

fn random() -> io::Result<Secret> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_secret_is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), first);
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap(), first);
    }

    #[test]
    fn a_secret_that_cannot_be_stored_lasts_as_long_as_the_process() {
        let missing = Path::new("/nonexistent/keys.d");
        assert_eq!(load_or_create(missing).unwrap(), load_or_create(missing).unwrap());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "not a secret").unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), of_this_process().unwrap());
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"not a secret");
    }
}
