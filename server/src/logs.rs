//! How the log is written: to stderr, an event a line, whatever its values hold.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};

/// Sends what is logged from now on to stderr. Without times where stderr is the journal, which has its own.
///
/// # Errors
///
/// It has been called before.
pub fn init(format: LogFormat, level: LogLevel) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter(level))
        .with_target(false)
        // Colours are control characters, and none may pass.
        .with_ansi(false)
        .with_writer(OneLine(io::stderr));
    let result = match (format, stderr_is_journal()) {
        (LogFormat::Text, false) => builder.try_init(),
        (LogFormat::Text, true) => builder.without_time().try_init(),
        (LogFormat::Json, false) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Json, true) => builder.json().flatten_event(true).without_time().try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))
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

/// The service manager names the journal's device and inode; a process further down may have inherited the
/// variable with another stderr.
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

/// A text from elsewhere, for a log, a terminal or a table: control characters, and those that change the
/// direction of writing, appear as `\n` or `\u001b`.
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
            // JSON's own way of writing them, so that a line of JSON stays one. All are below U+10000.
            c if harms(c) => write!(self.0, "\\u{:04x}", u32::from(c)),
            c => self.0.write_char(c),
        })
    }
}

fn harms(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes whatever is inside an event's line. The formatter does so for some characters and some kinds of
/// value only: a newline in a value shown with `%` would forge a line.
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
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(OneLine(move || writer.clone()));
        let event = || tracing::info!(display = %NASTY, debug = ?NASTY, text = NASTY, "{NASTY}");
        match json {
            true => tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), event),
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
    fn what_comes_from_elsewhere_is_shown_harmlessly() {
        assert_eq!(Escaped("a\u{1b}[2J\u{202e}\n").to_string(), "a\\u001b[2J\\u202e\\n");
        assert_eq!(Escaped("粘包 ok").to_string(), "粘包 ok");
    }
}
