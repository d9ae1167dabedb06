//! How the log is written: to stderr, an event a line, whatever its values hold.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{mem, thread};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};

/// The bytes of the log that may wait for whoever takes them.
const WAITING: usize = 1 << 20;

/// How long the end of labshd waits for what is still to be written.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Sends what is logged from now on to stderr. Without times where stderr is the journal, which has
/// its own.
///
/// Whoever logs never waits: a thread writes. Lines that stderr does not take in time are counted
/// and left out, and what it refuses (a full disk, a pipe without a reader) is lost.
///
/// # Errors
///
/// It has been called before; stderr cannot be duplicated; no thread can be started.
pub fn init(format: LogFormat, level: LogLevel) -> anyhow::Result<Log> {
    let lines = Arc::<Lines>::default();
    let writer = lines.clone();
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter(level))
        .with_target(false)
        // Colours are control characters, and none may pass.
        .with_ansi(false)
        // It would tell stderr, and panic if that cannot be told.
        .log_internal_errors(false)
        .with_writer(OneLine(move || Queued(writer.clone())));
    let result = match (format, stderr_is_journal()) {
        (LogFormat::Text, false) => builder.try_init(),
        (LogFormat::Text, true) => builder.without_time().try_init(),
        (LogFormat::Json, false) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Json, true) => builder.json().flatten_event(true).without_time().try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))?;
    // Past the lock around std's own stderr: while a write waits there, a panic could not be told.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let log = Log(lines.clone());
    thread::Builder::new().name("log".into()).spawn(move || lines.write_to(stderr))?;
    Ok(log)
}

/// The log as long as labshd runs. Dropping it waits, for five seconds at most, until the last line
/// is written.
#[must_use = "the last lines are written when it is dropped"]
#[derive(Debug)]
pub struct Log(Arc<Lines>);

impl Drop for Log {
    fn drop(&mut self) {
        let unwritten = |waiting: &mut Waiting| waiting.writing || !waiting.is_empty();
        // Whoever does not read by then does not want to know.
        let _ = self.0.changed.wait_timeout_while(self.0.waiting(), LAST_WORDS, unwritten);
    }
}

impl Waiting {
    /// Whether there is nothing to write and nothing to tell.
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.lost == 0
    }
}

/// Lines between those who log and the one thread that writes.
#[derive(Debug, Default)]
struct Lines {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines.
    text: Vec<u8>,
    /// How many lines found no room since `text` was last taken.
    lost: u64,
    /// What was taken is not written yet.
    writing: bool,
}

impl Lines {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        // Where one is missing all that follow are, until it can be said: a shorter line must not
        // hide the gap.
        if waiting.lost > 0 || waiting.text.len() + line.len() > WAITING {
            waiting.lost += 1;
        } else {
            waiting.text.extend_from_slice(line);
        }
        self.changed.notify_all();
    }

    /// Waits until there is something to write or to tell; returns it, and how many lines are
    /// missing behind it.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut waiting = self.waiting();
        waiting.writing = false;
        self.changed.notify_all();
        let mut waiting = self
            .changed
            .wait_while(waiting, |waiting| waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        waiting.writing = true;
        (mem::take(&mut waiting.text), mem::take(&mut waiting.lost))
    }

    fn write_to(&self, mut stderr: impl Write) {
        loop {
            let (text, lost) = self.take();
            if lost > 0 {
                tracing::warn!(
                    lines = lost,
                    "lines of the log are missing: nobody took them in time"
                );
            }
            // There is nobody who could be told.
            let _ = stderr.write_all(&text);
        }
    }
}

/// What the formatter writes to: each call is one line.
struct Queued(Arc<Lines>);

impl Write for Queued {
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

/// The service manager names the journal's device and inode; a process further down may have
/// inherited the variable with another stderr.
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

/// A text from elsewhere, for a log, a terminal or a table: control characters, and those that
/// change the direction of writing, appear as `\n` or `\u001b`.
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
            // JSON's own way of writing them, so that a line of JSON stays one. All are below
            // U+10000.
            c if harms(c) => write!(self.0, "\\u{:04x}", u32::from(c)),
            c => self.0.write_char(c),
        })
    }
}

fn harms(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes whatever is inside an event's line. The formatter does so for some characters and some
/// kinds of value only: a newline in a value shown with `%` would forge a line.
struct OneLine<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

impl<W: Write> Write for OneLine<W> {
    /// Takes one whole event, as the formatter writes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = String::with_capacity(text.len() + 1);
        // A String takes everything.
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

    const NASTY: &str = "x\nERROR forged\r\u{1b}[31m\u{9b}\u{7f}\u{202e}\t\0é粘";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let builder =
            tracing_subscriber::fmt().with_ansi(false).with_writer(OneLine(move || writer.clone()));
        let event = || tracing::info!(display = %NASTY, debug = ?NASTY, text = NASTY, "{NASTY}");
        match json {
            true => tracing::subscriber::with_default(
                builder.json().flatten_event(true).finish(),
                event,
            ),
            false => tracing::subscriber::with_default(builder.finish(), event),
        }
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_value_can_forge_a_line_or_reach_the_terminal() {
        for json in [false, true] {
            let log = logged(json);
            let line = log.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(harms), "{log:?}");
            assert!(line.contains("é粘"), "{log:?}");
        }
    }

    #[test]
    fn a_line_for_programs_stays_json() {
        let log = logged(true);
        // YAML and TOML share JSON's strings; TOML is what is at hand to read one.
        let start = log.find("\"display\":").unwrap() + "\"display\":".len();
        let end = start + log[start..].find("\",\"").unwrap() + 1;
        let value = toml::from_str::<toml::Table>(&format!("v = {}", &log[start..end])).unwrap();
        assert_eq!(value["v"].as_str(), Some(NASTY));
    }

    #[test]
    fn lines_that_nobody_takes_are_counted_and_later_ones_wait_for_the_count() {
        let lines = Lines::default();
        let long = vec![b'x'; WAITING / 4];
        (0..6).for_each(|_| lines.add(&long));
        lines.add(b"short\n");
        assert_eq!(lines.waiting().text.len(), WAITING);
        let (text, lost) = lines.take();
        assert_eq!((text.len(), lost), (WAITING, 3));
        lines.add(b"next\n");
        assert_eq!(lines.take(), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn a_line_that_never_fits_is_counted_and_silences_nothing() {
        let lines = Lines::default();
        lines.add(&vec![b'x'; WAITING + 1]);
        assert!(!lines.waiting().is_empty(), "nobody would come to tell of it");
        assert_eq!(lines.take(), (Vec::new(), 1));
        lines.add(b"next\n");
        assert_eq!(lines.take(), (b"next\n".to_vec(), 0));
    }

    #[test]
    fn what_comes_from_elsewhere_is_shown_harmlessly() {
        assert_eq!(Escaped("a\u{1b}[2J\u{202e}\n").to_string(), "a\\u001b[2J\\u202e\\n");
        assert_eq!(Escaped("粘包 ok").to_string(), "粘包 ok");
    }
}
