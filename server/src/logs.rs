//! Writes the log to stderr, one line for each event, and escapes control characters in it.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{mem, thread};

use labsh_diagnostics::characters::is_unseen;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};

/// Limit on log lines that wait for stderr, in bytes.
const MAX_QUEUED_BYTES: usize = 1 << 20;

/// Limit on the time that the end of labshd waits until the log is written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends log events to stderr from now on, with timestamps unless stderr is the journal, which adds
/// its own.
///
/// Logging never blocks, as a separate thread writes. If stderr is too slow, lines are dropped and
/// counted. Lines that cannot be written (a full disk, a pipe without a reader) are lost.
///
/// # Errors
///
/// When it was called before, stderr cannot be duplicated, or no thread can be started.
pub fn init(format: LogFormat, level: LogLevel) -> anyhow::Result<Log> {
    let queue = Arc::<Queue>::default();
    let writer = queue.clone();
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter(level))
        .with_target(false)
        // Colors are control characters, which would be escaped.
        .with_ansi(false)
        // They would be written to stderr directly, with a panic if that fails.
        .log_internal_errors(false)
        .with_writer(EscapingWriter(move || QueueWriter(writer.clone())));
    let result = match (format, stderr_is_journal()) {
        (LogFormat::Text, false) => builder.try_init(),
        (LogFormat::Text, true) => builder.without_time().try_init(),
        (LogFormat::Json, false) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Json, true) => builder.json().flatten_event(true).without_time().try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))?;
    // Not through std's stderr: while a write blocks there, its lock would block a panic message.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let log = Log(queue.clone());
    thread::Builder::new().name("log".into()).spawn(move || queue.write_to(stderr))?;
    Ok(log)
}

/// A guard of the log. Dropping it waits up to five seconds until the last line is written.
#[must_use = "dropping it writes the last lines"]
#[derive(Debug)]
pub struct Log(Arc<Queue>);

impl Drop for Log {
    fn drop(&mut self) {
        let unwritten = |state: &mut QueueState| state.writing || !state.is_empty();
        let _ = self.0.changed.wait_timeout_while(self.0.state(), FLUSH_TIMEOUT, unwritten);
    }
}

impl QueueState {
    /// Returns whether there is no line to write and no loss to report.
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.dropped == 0
    }
}

/// The lines between the threads that log and the one that writes.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Complete lines.
    text: Vec<u8>,
    /// The number of lines that were dropped since `text` was last taken.
    dropped: u64,
    /// Whether the text that was taken is not written yet.
    writing: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.state();
        // After a dropped line all lines are dropped until the writer has reported the gap, so that
        // a shorter line does not hide it.
        if state.dropped > 0 || state.text.len() + line.len() > MAX_QUEUED_BYTES {
            state.dropped += 1;
        } else {
            state.text.extend_from_slice(line);
        }
        self.changed.notify_all();
    }

    /// Waits for lines, and takes them with the number of lines that were dropped after them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut state = self.state();
        state.writing = false;
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |state| state.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.writing = true;
        (mem::take(&mut state.text), mem::take(&mut state.dropped))
    }

    fn write_to(&self, mut stderr: impl Write) {
        loop {
            let (text, dropped) = self.take();
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "lines of the log are missing: stderr was not read in time"
                );
            }
            // A failure cannot be reported anywhere.
            let _ = stderr.write_all(&text);
        }
    }
}

/// Adds each line that the formatter writes to the queue.
struct QueueWriter(Arc<Queue>);

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Returns whether stderr is the journal, by the device and inode that the service manager names. A
/// process may inherit that variable with another stderr.
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

/// Text from another program or machine, escaped for a log, terminal or table: control characters,
/// those that change the text direction and invisible ones appear as `\n` or `\u001b`.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(formatter), "{}", self.0)
    }
}

struct Escaping<W>(W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\n' => self.0.write_str("\\n"),
            '\r' => self.0.write_str("\\r"),
            '\t' => self.0.write_str("\\t"),
            // JSON's notation, so that a line of JSON remains valid.
            c if is_unseen(c) => c
                .encode_utf16(&mut [0; 2])
                .iter()
                .try_for_each(|unit| write!(self.0, "\\u{unit:04x}")),
            c => self.0.write_char(c),
        })
    }
}

/// Escapes each event's line. The formatter itself escapes only some characters of some kinds of
/// values: a newline in a value shown with `%` would forge a line.
struct EscapingWriter<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for EscapingWriter<M> {
    type Writer = EscapingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for EscapingWriter<W> {
    /// Takes one complete event, as the formatter writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = String::with_capacity(text.len() + 1);
        // Writing to a String cannot fail.
        let _ = Escaping(&mut line).write_str(text.trim_end_matches('\n'));
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const NASTY: &str = "x\nERROR forged\r\u{1b}[31m\u{9b}\u{7f}\u{202e}\u{ad}\u{200d}\t\0é粘";

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let builder = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(EscapingWriter(move || writer.clone()));
        let event = || tracing::info!(display = %NASTY, debug = ?NASTY, text = NASTY, "{NASTY}");
        match json {
            true => tracing::subscriber::with_default(
                builder.json().flatten_event(true).finish(),
                event,
            ),
            false => tracing::subscriber::with_default(builder.finish(), event),
        }
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_value_can_forge_a_line_or_control_the_terminal() {
        for json in [false, true] {
            let log = logged(json);
            let line = log.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_unseen), "{log:?}");
            assert!(line.contains("é粘"), "{log:?}");
        }
    }

    #[test]
    fn a_line_of_json_remains_valid() {
        let log = logged(true);
        // A JSON string is also a TOML string, and there is a TOML parser here.
        let start = log.find("\"display\":").unwrap() + "\"display\":".len();
        let end = start + log[start..].find("\",\"").unwrap() + 1;
        let value = toml::from_str::<toml::Table>(&format!("v = {}", &log[start..end])).unwrap();
        assert_eq!(value["v"].as_str(), Some(NASTY));
    }

    #[test]
    fn dropped_lines_are_counted_and_later_ones_follow_the_count() {
        let queue = Queue::default();
        let long = vec![b'x'; MAX_QUEUED_BYTES / 4];
        for _ in 0..6 {
            queue.add(&long);
        }
        queue.add(b"short\n");
        assert_eq!(queue.state().text.len(), MAX_QUEUED_BYTES);
        let (text, dropped) = queue.take();
        assert_eq!((text.len(), dropped), (MAX_QUEUED_BYTES, 3));
        queue.add(b"next\n");
        assert_eq!(queue.take(), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn a_line_that_is_too_long_is_counted_and_blocks_no_other() {
        let queue = Queue::default();
        queue.add(&vec![b'x'; MAX_QUEUED_BYTES + 1]);
        assert!(!queue.state().is_empty(), "the writer must be woken to report it");
        assert_eq!(queue.take(), (Vec::new(), 1));
        queue.add(b"next\n");
        assert_eq!(queue.take(), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(Escaped("a\u{1b}[2J\u{202e}\n").to_string(), "a\\u001b[2J\\u202e\\n");
        assert_eq!(Escaped("lab\u{ad}07\u{e0041}").to_string(), "lab\\u00ad07\\udb40\\udc41");
        assert_eq!(Escaped("粘包 ok").to_string(), "粘包 ok");
    }
}
