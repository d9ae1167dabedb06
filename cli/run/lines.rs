//! Prints output line by line after the name of its host; lines are never mixed.

use std::io;

use bytes::{Bytes, BytesMut};
use labsh_client::terminal_text::escape_line;
use labsh_proto::message::Stream;
use unicode_width::UnicodeWidthStr;

use crate::fleet::screen::Screen;

/// The maximum length of a line in bytes; a longer one is printed in pieces.
const MAX_LINE: usize = 64 << 10;

/// The colours of the names, as SGR parameters; red is left to errors.
const COLOURS: [&str; 5] = ["36", "32", "33", "35", "34"];

pub(super) struct Lines {
    names: Vec<String>,
    width: usize,
    /// Whether names are coloured on a terminal.
    colour: bool,
    /// The incomplete last line of each host's stdout and stderr.
    rest: Vec<[BytesMut; 2]>,
}

impl Lines {
    pub(super) fn new(names: &[String], colour: bool) -> Self {
        let width = names.iter().map(|name| name.width()).max().unwrap_or(0);
        let rest = names.iter().map(|_| Default::default()).collect();
        Self { names: names.to_vec(), width, colour, rest }
    }

    pub(super) fn output(
        &mut self,
        screen: &mut Screen,
        host: usize,
        stream: Stream,
        bytes: &Bytes,
    ) -> io::Result<()> {
        let which = usize::from(stream == Stream::Stderr);
        self.rest[host][which].extend_from_slice(bytes);
        loop {
            let rest = &mut self.rest[host][which];
            // A line without end must not fill the memory.
            let end = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n').map(|at| at + 1);
            let Some(end) = end.or((rest.len() > MAX_LINE).then(|| whole(&rest[..MAX_LINE])))
            else {
                break;
            };
            let line = rest.split_to(end);
            self.write(screen, host, stream, &line)?;
        }
        Ok(())
    }

    /// Prints the incomplete last lines of a host.
    pub(super) fn over(&mut self, screen: &mut Screen, host: usize) -> io::Result<()> {
        for (at, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let line = self.rest[host][at].split();
            if !line.is_empty() {
                self.write(screen, host, stream, &line)?;
            }
        }
        Ok(())
    }

    fn write(
        &self,
        screen: &mut Screen,
        host: usize,
        stream: Stream,
        line: &[u8],
    ) -> io::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let name = &self.names[host];
        let blanks = self.width - name.width();
        screen.write(stream, |out, terminal| {
            if terminal && self.colour {
                let colour = COLOURS[host % COLOURS.len()];
                write!(out, "\x1b[{colour}m{name}\x1b[0m:{:blanks$} ", "")?;
            } else {
                write!(out, "{name}:{:blanks$} ", "")?;
            }
            if terminal {
                // The terminal is shared by all hosts, so their control sequences are escaped.
                out.write_all(escape_line(line).as_bytes())?;
            } else {
                out.write_all(line)?;
            }
            out.write_all(b"\n")
        })
    }
}

/// Returns how many bytes of a piece are complete characters; all bytes if it is not UTF-8.
fn whole(piece: &[u8]) -> usize {
    match str::from_utf8(piece) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => piece.len(),
    }
}
