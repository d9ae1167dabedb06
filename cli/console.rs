//! What labsh itself writes: messages on stderr, text on stdout, and its own exit statuses.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use labsh_client::terminal_text::escape;

use crate::json::Event;

/// The exit status of everything that was refused or failed before a command ran.
pub(crate) const REFUSED: u8 = 125;

/// The exit status when the connection failed, or the outcome is not known.
pub(crate) const CONNECTION_FAILED: u8 = 255;

/// The context of an error when stdout cannot be written.
pub(crate) const STDOUT: &str = "cannot write to standard output";

/// The exit status when the reader of stdout has gone: a shell's for SIGPIPE, which Rust's programs
/// ignore.
pub(crate) const READER_GONE: u8 = 141;

/// How much labsh writes about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing at all.
    Nothing,
    /// Errors and warnings.
    Errors,
    /// Also information while nothing is wrong.
    Everything,
}

static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Sets the name of the program with which its messages begin; without a call that is `labsh`.
pub(crate) fn set_program(name: &'static str) {
    let _ = PROGRAM.set(name);
}

/// Returns the name of the program with which its messages begin.
pub(crate) fn program() -> &'static str {
    PROGRAM.get().copied().unwrap_or("labsh")
}

struct Diagnostics {
    level: Level,
    file: Option<File>,
}

static DIAGNOSTICS: OnceLock<Diagnostics> = OnceLock::new();

/// Whether messages are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Writes messages as lines of JSON for the rest of the process, and no progress.
pub(crate) fn use_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Whether messages are lines of JSON.
pub(crate) fn uses_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Returns a message as the line that is written; control characters in the text are escaped.
pub(crate) fn message(text: &str) -> String {
    match uses_json() {
        true => Event::new("note").with("text", text).line(),
        false => format!("{}: {}\n", program(), escape(text)),
    }
}

/// Sets for the rest of the process how much labsh writes about itself, and to which file instead
/// of stderr. Without a call, everything goes to stderr; a second call has no effect.
pub(crate) fn set(level: Level, file: Option<&Path>) -> anyhow::Result<()> {
    let open = |path: &Path| {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        file.with_context(|| format!("cannot write to {}", path.display()))
    };
    let file = file.map(open).transpose()?;
    let _ = DIAGNOSTICS.set(Diagnostics { level, file });
    Ok(())
}

/// Writes an error or a warning as one line; see [`message`].
pub(crate) fn note(text: &str) {
    write(Level::Errors, &message(text));
}

/// Writes information as one line; see [`message`].
pub(crate) fn remark(text: &str) {
    write(Level::Everything, &message(text));
}

/// Writes a line of JSON in place of a message.
pub(crate) fn note_json(event: Event) {
    write(Level::Errors, &event.line());
}

fn write(level: Level, line: &str) {
    // A closed stderr or a full disk cannot be reported anywhere.
    let _ = match DIAGNOSTICS.get() {
        Some(diagnostics) if diagnostics.level < level => Ok(()),
        Some(Diagnostics { file: Some(file), .. }) => (&*file).write_all(line.as_bytes()),
        _ => io::stderr().write_all(line.as_bytes()),
    };
}

/// Writes the text to stdout and flushes it; `println!` would panic on a closed stdout.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).context(STDOUT)
}
