//! Reads lists of hosts: files, pipes and standard input, as `^file` and `^-` name them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

use labsh_diagnostics::{LineIndex, text_file};
use labsh_nodeset::NamedBy;

/// The largest list of hosts that is read, in bytes.
const MAX_HOST_LIST_BYTES: u64 = 16 << 20;

/// The names of standard input. To open one of the paths would begin a file anew, and leave it to
/// the commands as their input.
const STDIN_NAMES: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Reads the list at `path`. Only the user can name a pipe or standard input: a command would wait
/// for one that a configuration names, or lose its input to it.
///
/// # Errors
///
/// Says which list cannot be read, and why.
pub(super) fn read(path: &str, named_by: NamedBy) -> Result<String, String> {
    match named_by {
        NamedBy::User if STDIN_NAMES.contains(&path) => stdin(),
        NamedBy::User => text(path, File::open(path)),
        NamedBy::Group => text(path, text_file::open_regular(Path::new(path))),
    }
}

/// Reads standard input, once for the whole command line: a second set can name it as well.
fn stdin() -> Result<String, String> {
    static LIST: OnceLock<Result<String, String>> = OnceLock::new();
    LIST.get_or_init(|| text("standard input", Ok(io::stdin().lock()))).clone()
}

/// Reads a list to its end. A pipe or a device may have none, so its length is limited.
fn text(name: &str, list: io::Result<impl Read>) -> Result<String, String> {
    let mut bytes = Vec::new();
    list.and_then(|list| list.take(MAX_HOST_LIST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read the hosts in {name}: {error}"))?;
    if bytes.len() as u64 > MAX_HOST_LIST_BYTES {
        return Err(format!(
            "cannot read the hosts in {name}: it is larger than {} MiB; is it a list of hosts?",
            MAX_HOST_LIST_BYTES >> 20
        ));
    }
    String::from_utf8(bytes).map(text_file::without_bom).map_err(|error| {
        let line = LineIndex::new(error.as_bytes()).line(error.utf8_error().valid_up_to());
        format!("{name}:{line}: that is not UTF-8; save the file in this encoding")
    })
}
