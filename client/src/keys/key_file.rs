//! Reading a key file, with the checks that it is private to its user.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use labsh_proto::key::{BadId, Key, KeyId};
use labsh_proto::key_text::BadLine;
use nix::fcntl::OFlag;
use nix::unistd::Uid;
use zeroize::Zeroizing;

use crate::terminal_text::shell_word;

/// The longest key file that is read, in bytes. A key is one line of less than 200 bytes.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// A byte order mark, which some editors write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a key cannot be used or created. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The directory for keys is not known.
    #[error("the home directory is not known; set HOME")]
    NoHome,
    /// The store contains no key.
    #[error("there is no key in {}; make one with `labsh key new`", directory.display())]
    NoKey {
        /// The store.
        directory: PathBuf,
    },
    /// The store contains several keys, and none was named.
    #[error("there are several keys ({}); name one of them (`labsh run` has --key for it)",
        ids.join(", "))]
    SeveralKeys {
        /// Their names.
        ids: Vec<String>,
    },
    /// The store contains no key of this name.
    #[error(
        "there is no key {id} in {}; `labsh key list` shows the keys there (write a file elsewhere \
         with a slash, as in ./{id})", directory.display()
    )]
    Unknown {
        /// The name.
        id: KeyId,
        /// The store.
        directory: PathBuf,
    },
    /// A key of this name already exists.
    #[error(
        "{} exists and is never overwritten; choose another name, or remove it with \
         `labsh key revoke --delete`", path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {cause}; {remedy}", path.display())]
    System {
        /// The action that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
        /// What the user can do.
        remedy: &'static str,
    },
    /// The path is a directory, a pipe, or a device.
    #[error("the key {} is not a regular file; name the file that `labsh key new` made",
        path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is another user's, who could change it. Of a symbolic link, the file that it points
    /// to counts.
    #[error(
        "the key file {}{} belongs to user {owner}, not to you; make a key of your own with \
         `labsh key new`, or `chown` it",
        path.display(),
        if *link { " is a symbolic link to a file that" } else { "" }
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whether it is a symbolic link.
        link: bool,
        /// The owner's user id.
        owner: u32,
    },
    /// Other users may read or write the file.
    #[error(
        "the key file {} is open to other users (mode {mode:04o}); run `chmod 600 {}`, and make a \
         new key if someone may have read this one",
        path.display(),
        shell_word(&path.to_string_lossy())
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is longer than any key.
    #[error("{} is longer than {MAX_KEY_FILE_BYTES} bytes, so it is not a key file; name another",
        path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// The file contains a private key of ssh or TLS (RFC 7468).
    #[error(
        "{} contains a key of another kind, such as ssh's; name a key of labsh, and make one with \
         `labsh key new` if there is none", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file does not contain a key.
    #[error("{} is not a key file: {error}; restore it, or make a new key with `labsh key new`",
        path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The error in its line.
        error: BadLine,
    },
    /// The file is not named after the key in it.
    #[error("{} contains the key {found}; rename it to {found}.key", path.display())]
    Renamed {
        /// The file.
        path: PathBuf,
        /// The key in it.
        found: KeyId,
    },
    /// The file's name is not a valid key id.
    #[error("{} cannot be the name of a key: {error}; rename the file", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The error in its name.
        error: BadId,
    },
    /// A line in the list of a key's hosts is invalid.
    #[error("{}:{line}: {text:?} is not a host id: {error}; correct or delete the line",
        path.display())]
    Host {
        /// The list.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// The line.
        text: String,
        /// The error in it.
        error: BadId,
    },
    /// The operating system returned no random bytes.
    #[error("the system's random number generator failed: {0}; nothing was written")]
    Random(rand::rngs::SysError),
}

/// Reads a key from a file, after checking that only this user can read it.
///
/// The checks are of the open file, which cannot be replaced between check and read. A symbolic
/// link is followed, and the file that it points to must belong to this user (or to root), like any
/// key file.
pub fn load(path: &Path) -> Result<Key, KeyFileError> {
    // Opening a device can already have an effect, so its kind is checked first as well.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    // Without O_NONBLOCK, opening a pipe would block.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(|cause| cannot_open(path, cause))?;
    let metadata = file.metadata().map_err(|cause| cannot_open(path, cause))?;
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path });
    }
    check_owner(&path, metadata.uid())?;
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyFileError::Mode { path, mode: metadata.mode() & 0o7777 });
    }
    // The buffer never grows: growing would leave copies of the key in freed memory.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize + 1));
    file.take(MAX_KEY_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|cause| cannot_open(&path, cause))?;
    if text.len() as u64 > MAX_KEY_FILE_BYTES {
        return Err(KeyFileError::Long { path });
    }
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    if text.starts_with(b"-----BEGIN ") {
        return Err(KeyFileError::Foreign { path });
    }
    Key::from_line(&String::from_utf8_lossy(text))
        .map_err(|error| KeyFileError::Line { path, error })
}

fn cannot_open(path: &Path, cause: io::Error) -> KeyFileError {
    // If the file is another user's, that explains "permission denied" better.
    let owner = fs::metadata(path).map(|metadata| check_owner(path, metadata.uid()));
    if let Ok(Err(error)) = owner {
        return error;
    }
    let remedy = match cause.kind() {
        io::ErrorKind::NotFound => "check the path, or make a key with `labsh key new`",
        _ => "check the permissions of the file and of the directories above it",
    };
    KeyFileError::System { action: "read the key file", path: path.to_owned(), cause, remedy }
}

fn check_owner(path: &Path, owner: u32) -> Result<(), KeyFileError> {
    if owner == Uid::effective().as_raw() || owner == 0 {
        return Ok(());
    }
    Err(KeyFileError::Owner { path: path.to_owned(), link: path.is_symlink(), owner })
}

pub(crate) fn cannot_write(path: &Path, cause: io::Error) -> KeyFileError {
    let remedy = "check the permissions of the directory and the space on its disk";
    KeyFileError::System { action: "write", path: path.to_owned(), cause, remedy }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use labsh_proto::key::Secret;
    use nix::sys::stat::Mode;
    use nix::unistd::{chown, mkfifo};
    use tempfile::TempDir;

    use super::*;

    fn key() -> Key {
        Key::new(KeyId::new("alice").unwrap(), Secret::new([7; 32]))
    }

    fn file(directory: &TempDir, text: &str, mode: u32) -> PathBuf {
        let path = directory.path().join("alice.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_private_file_is_read_directly_and_through_a_link() {
        let directory = TempDir::new().unwrap();
        let path = file(&directory, &(key().to_line() + "\n"), 0o600);
        assert_eq!(load(&path).unwrap(), key());
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(load(&link).unwrap(), key());
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(load(&path).unwrap(), key());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_the_message_has_the_remedy() {
        let directory = TempDir::new().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let path = file(&directory, &key().to_line(), mode);
            let text = load(&path).unwrap_err().to_string();
            assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
            let path = path.to_string_lossy();
            assert!(text.contains(&format!("chmod 600 {}", shell_word(&path))), "{text}");
        }
    }

    #[test]
    fn a_link_to_another_users_file_is_refused_and_says_so() {
        let directory = TempDir::new().unwrap();
        let path = file(&directory, &key().to_line(), 0o600);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        if !Uid::effective().is_root() {
            // Only root can change a file's owner; other users can test the check alone.
            let error = check_owner(&link, Uid::effective().as_raw() + 1).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{error}");
            return;
        }
        chown(&path, Some(Uid::from_raw(4242)), None).unwrap();
        let text = load(&link).unwrap_err().to_string();
        assert!(
            text.contains("symbolic link") && text.contains("belongs to user 4242, not to you"),
            "{text}"
        );
        let text = load(&path).unwrap_err().to_string();
        assert!(!text.contains("symbolic link") && text.contains("belongs to user 4242"), "{text}");
    }

    #[test]
    fn a_key_file_may_begin_with_a_byte_order_mark() {
        let directory = TempDir::new().unwrap();
        let text = format!("\u{feff}{}\r\n", key().to_line());
        assert_eq!(load(&file(&directory, &text, 0o600)).unwrap().id(), key().id());
    }

    #[test]
    fn a_pipe_instead_of_a_key_file_does_not_block() {
        let directory = TempDir::new().unwrap();
        let pipe = directory.path().join("pipe");
        mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(load(&pipe), Err(KeyFileError::NotAFile { .. })));
        assert!(matches!(load(directory.path()), Err(KeyFileError::NotAFile { .. })));
    }

    #[test]
    fn a_file_that_is_not_a_key_is_refused_and_named() {
        let directory = TempDir::new().unwrap();
        for text in ["", "labsh-key-1 alice", "\u{0}\u{0}", &key().to_line().replace('7', "8")] {
            let path = file(&directory, text, 0o600);
            let error = load(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Line { .. }), "{text:?}: {error}");
            assert!(error.to_string().contains("alice.key"), "{error}");
        }
        let ssh =
            "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----\n";
        let error = load(&file(&directory, ssh, 0o600)).unwrap_err();
        assert!(matches!(error, KeyFileError::Foreign { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        let two = format!("{0}\n{0}\n", key().to_line());
        assert!(matches!(load(&file(&directory, &two, 0o600)), Err(KeyFileError::Line { .. })));
        let long = key().to_line() + &" ".repeat(5000);
        assert!(matches!(load(&file(&directory, &long, 0o600)), Err(KeyFileError::Long { .. })));
        let missing = load(&directory.path().join("missing")).unwrap_err().to_string();
        assert!(missing.contains("missing") && missing.contains("labsh key new"), "{missing}");
    }
}
