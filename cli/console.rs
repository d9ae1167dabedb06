//! What labsh itself writes: messages on stderr, text on stdout, and its own exit statuses.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Context;
use labsh_client::terminal_text::escape;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// The exit status of everything that was refused or failed before a command ran.
pub(crate) const REFUSED: u8 = 125;

/// The exit status when the reader of stdout has gone: a shell's for SIGPIPE, which Rust's programs
/// ignore.
pub(crate) const READER_GONE: u8 = 141;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing at all.
    Nothing,
    /// What went wrong.
    Errors,
    /// Also what is worth knowing while nothing is wrong.
    Everything,
}

struct Diagnostics {
    level: Level,
    file: Option<File>,
}

static DIAGNOSTICS: OnceLock<Diagnostics> = OnceLock::new();

/// Decides for the rest of the process how much is said, and to which file instead of stderr.
/// Unless this is called, all of it goes to stderr. The first call counts.
pub(crate) fn set(level: Level, file: Option<&Path>) -> anyhow::Result<()> {
    let open = |path: &Path| {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        file.with_context(|| format!("cannot write to {}", path.display()))
    };
    let file = file.map(open).transpose()?;
    let _ = DIAGNOSTICS.set(Diagnostics { level, file });
    Ok(())
}

/// Says what went wrong, in one line, whatever the text holds.
pub(crate) fn note(text: &str) {
    say(Level::Errors, text);
}

/// Says what is worth knowing while nothing is wrong, in one line.
pub(crate) fn remark(text: &str) {
    say(Level::Everything, text);
}

fn say(level: Level, text: &str) {
    let line = format!("labsh: {}\n", escape(text));
    // When stderr is closed or the disk is full there is nobody to tell.
    let _ = match DIAGNOSTICS.get() {
        Some(diagnostics) if diagnostics.level < level => Ok(()),
        Some(Diagnostics { file: Some(file), .. }) => (&*file).write_all(line.as_bytes()),
        _ => io::stderr().write_all(line.as_bytes()),
    };
}

/// Writes all of it to stdout; `println!` would panic when that is closed.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Lets a write beyond the limit for a file's size (RLIMIT_FSIZE) fail with an error that is
/// reported, instead of ending labsh by SIGXFSZ (setrlimit(2)). Needs a runtime; what labsh starts
/// has the signal as it was.
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(Signal::SIGXFSZ as i32)).map(drop)
}
