//! The secret behind the identities that unknown names are shown; it lasts, so that they do not
//! give themselves away by changing.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use labsh_proto::key::Secret;
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use crate::private_file::{self, Holds};

/// Hidden, so that it is never taken for an entry.
const FILE: &str = ".dummy";

/// The secret kept in this directory, made if there is none. Where it can be neither read nor made,
/// one that lasts as long as this process, and a warning.
///
/// # Errors
///
/// The operating system gives no random bytes.
pub(crate) fn load_or_create(dir: &Path) -> io::Result<Secret> {
    if let Ok(secret) = load(dir) {
        return Ok(secret);
    }
    let secret = random()?;
    create(dir, secret).or_else(|problem| {
        tracing::warn!(
            directory = %dir.display(),
            problem,
            "unknown names will be shown other identities after a restart, and can be told from \
             known ones by that; \
             let labshd write to the directory once, or remove what is in the way"
        );
        of_this_process()
    })
}

/// A secret that lasts as long as this process.
///
/// # Errors
///
/// The operating system gives no random bytes.
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
    let text =
        private_file::read(&dir.join(FILE), Holds::Secret).map_err(|wrong| wrong.to_string())?;
    parse(text.trim())
        .ok_or_else(|| format!("{FILE} does not hold 64 hexadecimal digits (remove it)"))
}

fn create(dir: &Path, secret: Secret) -> Result<Secret, String> {
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in secret.expose() {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('\n');
    match private_file::create(&dir.join(FILE), &text) {
        Ok(()) => Ok(secret),
        // It is another process's, made in this moment; or what could not be read before, and says
        // so again.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(dir),
        Err(error) => Err(format!("{FILE} cannot be made: {error}")),
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
    fn it_is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), first);
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap(), first);
    }

    #[test]
    fn where_it_cannot_be_kept_it_lasts_as_long_as_the_process() {
        let missing = Path::new("/nonexistent/keys.d");
        assert_eq!(load_or_create(missing).unwrap(), load_or_create(missing).unwrap());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "not a secret").unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), of_this_process().unwrap());
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), b"not a secret");
    }
}
