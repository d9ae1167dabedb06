//! Our stdout and stderr, and the line at the bottom of a terminal that shows how far the run has
//! come.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use labsh_client::terminal_text::escape;
use labsh_nodeset::NodeSet;
use labsh_proto::message::Stream;
use nix::sys::stat::{SFlag, fstat};
use unicode_width::UnicodeWidthChar;

use crate::fleet::report::{HostReport, Kind, State, seconds};

/// How often the progress line is drawn again where nothing happens.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The progress line is drawn no more often than this.
const REDRAW: Duration = Duration::from_millis(100);

/// Removes the line at the bottom, of which a window made narrower may have made several.
pub(crate) const CLEAR: &str = "\r\x1b[J";

/// What draws a text as the line at the bottom. The cursor goes back to its beginning: where a
/// window made narrower breaks the line, the cursor stays there, so that all of it can be removed.
/// Meanwhile the terminal does not begin new lines by itself (DECAWM): the window may have become
/// narrower on the way there.
pub(crate) fn bottom_line(text: String) -> String {
    format!("{CLEAR}\x1b[?7l{text}\x1b[?7h\r")
}

fn is_pipe(stream: impl AsFd) -> bool {
    // What cannot be asked about is no pipe.
    fstat(stream)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

pub(crate) struct Screen {
    stdout: BufWriter<io::Stdout>,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    /// Whether what goes to stdout is coloured.
    pub(crate) colour: bool,
    progress: bool,
    shown: bool,
    drawn: Option<Instant>,
}

impl Screen {
    /// The progress line is for a terminal on stderr only, and only if it is wanted. Where stdout
    /// is a pipe, whoever reads it may well write to the same terminal (`| head`, `| less`), in the
    /// middle of that line.
    pub(crate) fn new(progress: bool) -> Self {
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            stdout: BufWriter::with_capacity(64 << 10, io::stdout()),
            stdout_is_terminal: stdout,
            stderr_is_terminal: stderr,
            colour: stdout && colours(),
            progress: progress && stderr && !is_pipe(io::stdout()),
            shown: false,
            drawn: None,
        }
    }

    /// Writes to one of the two; tells whether that is a terminal, which must not be steered by
    /// what hosts say.
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
        // What was written before it should be seen before it.
        self.stdout.flush()?;
        let mut stderr = BufWriter::new(io::stderr());
        // A closed stderr leaves nobody to tell.
        let _ = write(&mut stderr, self.stderr_is_terminal).and_then(|()| stderr.flush());
        Ok(())
    }

    /// Says a line of our own on stderr.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        self.write(Stream::Stderr, |out, _| writeln!(out, "labsh: {}", escape(text)))
    }

    /// Lets everything be seen that was written, and the progress line below it.
    pub(crate) fn settle(&mut self, hosts: &[HostReport]) -> io::Result<()> {
        self.settle_on(|| progress(hosts))
    }

    /// The same with a progress line of the caller's, already safe for a terminal.
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

    /// Whether the progress line was last drawn long enough ago to be drawn in the middle of a
    /// flood.
    pub(crate) fn due(&self) -> bool {
        self.progress && self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW)
    }

    /// Removes the progress line for good.
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

/// Whether colours are wanted on a terminal: its user has not said NO_COLOR.
pub(crate) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How far it has come: `37/40 done, 1 failed, 2 running, lab07 for 12 s`.
fn progress(hosts: &[HostReport]) -> String {
    let (mut done, mut failed, mut running) = (0, 0, 0);
    let mut slowest: Option<(Instant, &str)> = None;
    for host in hosts {
        match &host.state {
            State::Over(end, _) => {
                done += 1;
                failed += usize::from(Kind::of(end) != Kind::Ok);
            }
            State::Running(since) => {
                running += 1;
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
    if let Some((since, name)) = slowest {
        text += &format!(", {running} running, {name} for {}", seconds(since.elapsed()));
    }
    text
}

/// Who has not ended yet, folded.
pub(crate) fn still_running(hosts: &[HostReport]) -> NodeSet {
    let running = hosts.iter().filter(|host| matches!(host.state, State::Running(_)));
    running.map(|host| host.name.as_str()).collect()
}

/// How wide the terminal on stderr is.
pub(crate) fn columns() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0.max(20).into())
}

/// As much of a text as fits.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    let mut width = 0;
    text.chars()
        .take_while(|c| {
            width += c.width().unwrap_or(0);
            width <= columns
        })
        .collect()
}
