//! Opens and reads the text files that people write.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::makedev;

use crate::LineIndex;

/// The largest file that is read as text, in bytes.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Opens a file that must be regular: another kind could block for ever or have no end. `/dev/null`
/// counts as an empty file, because a link to it is the usual way to mask a configuration.
///
/// # Errors
///
/// The errors of the system, and [`io::ErrorKind::InvalidInput`] for another kind of file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Opening a device can already have an effect, so its kind is checked first as well.
    check_regular(&fs::metadata(path)?)?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file as UTF-8, without a byte order mark at its start.
///
/// # Errors
///
/// The errors of [`open_regular`], [`io::ErrorKind::InvalidData`] for text in another encoding, and
/// [`io::ErrorKind::FileTooLarge`] for more than 64 MiB.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        let message = format!("it is larger than {} MiB", MAX_TEXT_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    String::from_utf8(bytes).map(without_bom).map_err(|error| {
        let line = LineIndex::new(error.as_bytes()).line(error.utf8_error().valid_up_to());
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })
}

/// Returns the text without a byte order mark at its start.
pub fn without_bom(mut text: String) -> String {
    remove_bom(&mut text);
    text
}

/// Removes a byte order mark, which some editors write, from the start of a text. The text stays
/// where it is in memory, so that a secret is not copied.
pub fn remove_bom(text: &mut String) {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
}

/// Returns what a file is, for the message that it is not a regular file.
pub fn kind(file_type: FileType) -> &'static str {
    match file_type {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_file() => "a regular file",
        _ => "a device",
    }
}

/// The number of `/dev/null` on Linux (null(4)).
const DEV_NULL: u64 = makedev(1, 3);

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    let file_type = metadata.file_type();
    let is_null = file_type.is_char_device() && metadata.rdev() == DEV_NULL;
    if file_type.is_file() || is_null {
        return Ok(());
    }
    let message = format!("it is {}, not a regular file", kind(file_type));
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        // TMPDIR may be too long for the path of a socket.
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let (fifo, socket) = (directory.path().join("fifo"), directory.path().join("socket"));
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, name) in [
            (fifo.as_path(), "a named pipe"),
            (&socket, "a socket"),
            (directory.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = read_text(path).unwrap_err();
            assert_eq!(error.to_string(), format!("it is {name}, not a regular file"));
        }
    }

    #[test]
    fn a_link_to_dev_null_is_an_empty_file() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("masked");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(read_text(&link).unwrap(), "");
    }

    #[test]
    fn what_is_not_text_is_refused_with_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        fs::write(&path, b"a\n\xff\n").unwrap();
        assert_eq!(read_text(&path).unwrap_err().to_string(), "line 2 is not UTF-8");
        // Editors of Windows may write UTF-16, with a mark of its own.
        fs::write(&path, b"\xff\xfea\0\n\0").unwrap();
        assert_eq!(read_text(&path).unwrap_err().to_string(), "line 1 is not UTF-8");
        // A file with a hole, which takes no space.
        File::create(&path).unwrap().set_len(MAX_TEXT_BYTES + 1).unwrap();
        assert_eq!(read_text(&path).unwrap_err().to_string(), "it is larger than 64 MiB");
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        fs::write(&path, "\u{feff}a\u{feff}b").unwrap();
        assert_eq!(read_text(&path).unwrap(), "a\u{feff}b");
    }
}
