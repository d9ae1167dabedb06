//! Reads and writes the files that control access, and checks who else can change them.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use labsh_diagnostics::text_file;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::diagnostics::Problem;

/// Limit on the size of a file, in bytes.
const MAX_FILE_SIZE: u64 = 64 * 1024;

/// What a file contains, which decides how it must be protected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileContent {
    /// Settings, which other users may read. A symbolic link is followed.
    Settings,
    /// A secret, which other users must not be able to read. A symbolic link is refused.
    Secret,
}

/// Reads a regular file of at most 64 KiB that only its owner, root or this user, can change.
pub(crate) fn read(path: &Path, content: FileContent) -> Result<Zeroizing<String>, Problem> {
    // Opening a device can already have an effect, so its kind is checked first as well.
    if let Ok(metadata) = fs::metadata(path) {
        check_regular(&metadata)?;
    }
    // Without O_NONBLOCK, opening a named pipe would block.
    let mut flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if content == FileContent::Secret {
        flags |= OFlag::O_NOFOLLOW;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    check_regular(&metadata)?;
    check_owner(path, &metadata)?;
    match content {
        FileContent::Secret if metadata.mode() & 0o077 != 0 => {
            let problem = format!(
                "it contains a secret, and other users can access it: mode {}",
                mode(&metadata)
            );
            return Err(Problem::new(problem, format!("chmod 600 {}", path.display())));
        }
        FileContent::Settings => check_writers(path, &metadata)?,
        FileContent::Secret => {}
    }
    let mut text =
        Zeroizing::new(String::with_capacity(metadata.len().min(MAX_FILE_SIZE) as usize + 1));
    let length = (&mut file)
        .take(MAX_FILE_SIZE + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(path, &error))?;
    if length as u64 > MAX_FILE_SIZE {
        return Err(Problem::new(
            "it is longer than 64 KiB",
            "it is probably the wrong file: replace it",
        ));
    }
    text_file::remove_bom(&mut text);
    Ok(text)
}

fn check_regular(metadata: &Metadata) -> Result<(), Problem> {
    if metadata.is_file() {
        return Ok(());
    }
    let problem = format!("it is {}, not a regular file", text_file::kind(metadata.file_type()));
    Err(Problem::new(problem, "replace it with a regular file"))
}

/// Checks that only its owner, root or this user, can add files to a directory.
pub(crate) fn check_directory(path: &Path) -> Result<(), Problem> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_dir() {
        return Err(Problem::new("it is not a directory", "replace it with a directory"));
    }
    check_owner(path, &metadata)?;
    check_writers(path, &metadata)
}

/// Creates a directory of mode 0700, if it does not exist, and its parents with the default mode.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Creates a file of mode 0600 atomically; fails with `AlreadyExists` if it exists.
pub(crate) fn create(path: &Path, text: &str) -> io::Result<()> {
    let temporary = Temporary::write(path, text)?;
    // Unlike rename(2), link(2) does not replace an existing file.
    fs::hard_link(&temporary.0, path)?;
    drop(temporary);
    sync_directory(path)
}

/// Creates or replaces a file of mode 0600 atomically.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = Temporary::write(path, text)?;
    fs::rename(&temporary.0, path)?;
    sync_directory(path)
}

/// A temporary file in the directory of its target, removed when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn write(target: &Path, text: &str) -> io::Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name =
            format!(".new-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let path = target.with_file_name(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let temporary = Self(path);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails after a rename, as the file has moved.
        let _ = fs::remove_file(&self.0);
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), Problem> {
    let own = geteuid().as_raw();
    if metadata.uid() == 0 || metadata.uid() == own {
        return Ok(());
    }
    let problem = format!("it belongs to user {}, who could change access rights", metadata.uid());
    Err(Problem::new(problem, format!("chown {own} {}", path.display())))
}

fn check_writers(path: &Path, metadata: &Metadata) -> Result<(), Problem> {
    if metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let problem = format!("other users could change access rights: mode {}", mode(metadata));
    Err(Problem::new(problem, format!("chmod go-w {}", path.display())))
}

fn mode(metadata: &Metadata) -> String {
    format!("{:04o}", metadata.mode() & 0o7777)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let remedy = match error.kind() {
        _ if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            "replace it with the file itself, not a symbolic link".to_owned()
        }
        io::ErrorKind::NotFound => "create it, or name another file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("let the user that runs labshd read it: ls -ld {}", path.display())
        }
        io::ErrorKind::InvalidData => "write it in UTF-8".to_owned(),
        _ => "make it readable".to_owned(),
    };
    Problem::new(format!("it cannot be read: {error}"), remedy)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn problem(path: &Path, content: FileContent) -> String {
        read(path, content).unwrap_err().to_string()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_created_atomically_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        create(&file, "one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(create(&file, "two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(*read(&file, FileContent::Secret).unwrap(), "one");
        replace(&file, "two").unwrap();
        assert_eq!(*read(&file, FileContent::Secret).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn a_secret_that_other_users_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        create(&file, "x").unwrap();
        chmod(&file, 0o640);
        let text = problem(&file, FileContent::Secret);
        assert!(text.contains("mode 0640") && text.contains("chmod 600"), "{text}");
        assert!(read(&file, FileContent::Settings).is_ok());
        chmod(&file, 0o664);
        assert!(problem(&file, FileContent::Settings).contains("chmod go-w"));
    }

    #[test]
    fn links_pipes_and_large_files_are_refused_as_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| dir.path().join(name));
        create(&file, &"x".repeat(MAX_FILE_SIZE as usize + 1)).unwrap();
        symlink(&file, &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(problem(&file, FileContent::Secret).contains("64 KiB"));
        assert!(problem(&link, FileContent::Secret).contains("symbolic link"));
        for content in [FileContent::Secret, FileContent::Settings] {
            let problem = problem(&pipe, content);
            assert!(problem.contains("it is a named pipe, not a regular file"), "{problem}");
        }
        let problem = problem(dir.path(), FileContent::Secret);
        assert!(problem.contains("it is a directory, not a regular file"), "{problem}");
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        create(&file, "\u{feff}a\n").unwrap();
        for content in [FileContent::Secret, FileContent::Settings] {
            assert_eq!(*read(&file, content).unwrap(), "a\n");
        }
    }

    #[test]
    fn a_directory_that_other_users_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("made/keys.d");
        create_directory(&keys).unwrap();
        create_directory(&keys).unwrap();
        assert_eq!(fs::metadata(&keys).unwrap().mode() & 0o777, 0o700);
        check_directory(&keys).unwrap();
        chmod(&keys, 0o777);
        assert!(check_directory(&keys).unwrap_err().remedy.contains("chmod go-w"));
    }
}
