//! Writes to stdout and stderr, and draws the progress line at the bottom of the terminal.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use labsh_nodeset::NodeSet;
use labsh_proto::message::Stream;
use nix::sys::stat::{SFlag, fstat};
use unicode_width::UnicodeWidthChar;

use crate::console;
use crate::fleet::report::{HostReport, Kind, State, seconds};

/// How often the progress line is drawn again while nothing happens.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The minimum time between two drawings of the progress line.
const MIN_REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Clears the progress line, which a narrower window may have broken into several rows.
pub(crate) const CLEAR: &str = "\r\x1b[J";

/// Returns the control sequences that draw a text as the progress line. The cursor returns to its
/// first column: if a narrower window breaks the line, the cursor stays at its start, so that all
/// rows can be cleared. Automatic line wrap (DECAWM) is off meanwhile, because the window may
/// already be narrower.
pub(crate) fn bottom_line(text: String) -> String {
    format!("{CLEAR}\x1b[?7l{text}\x1b[?7h\r")
}

fn is_pipe(stream: impl AsFd) -> bool {
    // A descriptor that fstat(2) refuses is no pipe.
    fstat(stream)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

pub(crate) struct Screen {
    stdout: BufWriter<io::Stdout>,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    /// Whether stdout is coloured.
    pub(crate) colour: bool,
    progress: bool,
    shown: bool,
    drawn: Option<Instant>,
}

impl Screen {
    /// Opens stdout and stderr. The progress line needs a terminal on stderr that has control
    /// sequences. It is not drawn if stdout is a pipe, because its reader (`head`, `less`) may
    /// write to the same terminal, and not among messages in JSON.
    pub(crate) fn new(progress: bool) -> Self {
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            stdout: BufWriter::with_capacity(64 << 10, io::stdout()),
            stdout_is_terminal: stdout,
            stderr_is_terminal: stderr,
            colour: stdout && colours(),
            progress: progress
                && has_progress_line()
                && !is_pipe(io::stdout())
                && !console::uses_json(),
            shown: false,
            drawn: None,
        }
    }

    /// Writes to one of the two streams. `write` gets whether that is a terminal, on which output
    /// of hosts must be escaped.
    pub(crate) fn write(
        &mut self,
        stream: Stream,
        write: impl FnOnce(&mut dyn Write, bool) -> io::Result<()>,
    ) -> io::Result<()> {
        if stream == Stream::Stderr || self.stdout_is_terminal {
            self.clear();
        }
        if stream != Stream::Stderr {
            return write(&mut self.stdout, self.stdout_is_terminal);
        }
        // Keeps the order of both streams on a common terminal.
        self.stdout.flush()?;
        let mut stderr = BufWriter::new(io::stderr());
        // A closed stderr cannot be reported anywhere.
        let _ = write(&mut stderr, self.stderr_is_terminal).and_then(|()| stderr.flush());
        Ok(())
    }

    /// Writes a line of labsh's own to stderr.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        self.write(Stream::Stderr, |out, _| out.write_all(console::message(text).as_bytes()))
    }

    /// Flushes stdout and draws the progress line of the run.
    pub(crate) fn settle(&mut self, hosts: &[HostReport]) -> io::Result<()> {
        self.settle_on(|| progress(hosts))
    }

    /// Flushes stdout and draws a progress line, which the caller has escaped.
    pub(crate) fn settle_on(&mut self, progress: impl FnOnce() -> String) -> io::Result<()> {
        self.stdout.flush()?;
        if self.progress && (!self.shown || self.due()) {
            self.drawn = Some(Instant::now());
            let (text, columns) = (progress(), columns());
            let mut stderr = io::stderr();
            let _ = stderr
                .write_all(bottom_line(cut(&text, columns.saturating_sub(1))).as_bytes())
                .and_then(|()| stderr.flush());
            self.shown = true;
        }
        Ok(())
    }

    /// Whether the progress line may be drawn again while output keeps coming.
    pub(crate) fn due(&self) -> bool {
        self.progress && self.drawn.is_none_or(|drawn| drawn.elapsed() >= MIN_REDRAW_INTERVAL)
    }

    /// Removes the progress line and draws no other.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.clear();
        self.progress = false;
        self.stdout.flush()
    }

    fn clear(&mut self) {
        if self.shown {
            let mut stderr = io::stderr();
            let _ = stderr.write_all(CLEAR.as_bytes()).and_then(|()| stderr.flush());
            self.shown = false;
        }
    }
}

/// Whether a terminal may be coloured: it has control sequences, and NO_COLOR is not set
/// (https://no-color.org).
pub(crate) fn colours() -> bool {
    variable("NO_COLOR").is_none() && has_control_sequences()
}

/// Whether a progress line can be drawn on stderr.
pub(crate) fn has_progress_line() -> bool {
    io::stderr().is_terminal() && has_control_sequences()
}

/// Whether terminals interpret control sequences: TERM is set, and not to `dumb`.
fn has_control_sequences() -> bool {
    variable("TERM").is_some_and(|name| name != "dumb")
}

/// Returns an environment variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the progress line: `36/40 done, 1 failed, 1 connecting, 2 running, lab07 for 12 s`.
fn progress(hosts: &[HostReport]) -> String {
    let (mut done, mut failed, mut connecting, mut running) = (0, 0, 0, 0);
    let mut slowest: Option<(Instant, &str)> = None;
    for host in hosts {
        match &host.state {
            State::Over(end, _) => {
                done += 1;
                failed += usize::from(Kind::of(end) != Kind::Ok);
            }
            State::Connecting(since) | State::Running(since) | State::Leftovers(since) => {
                let count = match host.state {
                    State::Connecting(_) => &mut connecting,
                    _ => &mut running,
                };
                *count += 1;
                if slowest.is_none_or(|(earliest, _)| *since < earliest) {
                    slowest = Some((*since, &host.name));
                }
            }
            State::Waiting => {}
        }
    }
    let mut text = format!("{done}/{} done", hosts.len());
    if failed > 0 {
        text += &format!(", {failed} failed");
    }
    for (count, what) in [(connecting, "connecting"), (running, "running")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    if let Some((since, name)) = slowest {
        text += &format!(", {name} for {}", seconds(since.elapsed()));
    }
    text
}

/// Returns the hosts on which the command is still running.
pub(crate) fn still_running(hosts: &[HostReport]) -> NodeSet {
    those(hosts, |state| matches!(state, State::Running(_)))
}

/// Returns the hosts whose connection is still being opened.
pub(crate) fn still_connecting(hosts: &[HostReport]) -> NodeSet {
    those(hosts, |state| matches!(state, State::Connecting(_)))
}

/// Returns the hosts whose command has ended while other processes hold its output open.
pub(crate) fn with_leftovers(hosts: &[HostReport]) -> NodeSet {
    those(hosts, |state| matches!(state, State::Leftovers(_)))
}

fn those(hosts: &[HostReport], are: impl Fn(&State) -> bool) -> NodeSet {
    hosts.iter().filter(|host| are(&host.state)).map(|host| host.name.as_str()).collect()
}

/// Returns the width of the terminal on stderr, in columns.
pub(crate) fn columns() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0.max(20).into())
}

/// Cuts a text to a width in columns.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    let mut width = 0;
    text.chars()
        .take_while(|c| {
            width += c.width().unwrap_or(0);
            width <= columns
        })
        .collect()
}
