//! Prints output line by line after the name of its host; lines are never mixed.

use std::io;

use bytes::Bytes;
use labsh_client::terminal_text::escape_line;
use labsh_proto::message::Stream;
use unicode_width::UnicodeWidthStr;

use crate::fleet::screen::Screen;

/// The longest line that is printed whole, in bytes; a longer one is printed in pieces, so that a
/// line without end does not fill the memory.
const MAX_LINE_BYTES: usize = 16 << 20;

/// The bound of the unfinished lines of all hosts, in bytes. Beyond it, the longest is printed.
const MAX_UNFINISHED_BYTES: usize = 256 << 20;

/// What ends a piece of a line, except its last one.
const CONTINUES: &[u8] = b" [line continues]";

/// The colours of the names, as SGR parameters; red is left to errors.
const COLOURS: [&str; 5] = ["36", "32", "33", "35", "34"];

pub(super) struct Lines {
    names: Vec<String>,
    width: usize,
    /// Whether names are coloured on a terminal.
    colour: bool,
    /// The unfinished last line of each host's stdout and stderr.
    unfinished: Vec<[Vec<u8>; 2]>,
    /// The bytes in all of them.
    unfinished_bytes: usize,
}

impl Lines {
    pub(super) fn new(names: &[String], colour: bool) -> Self {
        let width = names.iter().map(|name| name.width()).max().unwrap_or(0);
        let unfinished = names.iter().map(|_| Default::default()).collect();
        Self { names: names.to_vec(), width, colour, unfinished, unfinished_bytes: 0 }
    }

    pub(super) fn output(
        &mut self,
        screen: &mut Screen,
        host: usize,
        stream: Stream,
        bytes: &Bytes,
    ) -> io::Result<()> {
        let mut bytes = &bytes[..];
        while let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') {
            let (end, rest) = bytes.split_at(newline + 1);
            let mut line = self.take(host, stream);
            if line.is_empty() {
                self.write(screen, host, stream, end)?;
            } else {
                line.extend_from_slice(end);
                self.write(screen, host, stream, &line)?;
            }
            bytes = rest;
        }
        let line = &mut self.unfinished[host][index(stream)];
        line.extend_from_slice(bytes);
        self.unfinished_bytes += bytes.len();
        if line.len() > MAX_LINE_BYTES {
            self.write_piece(screen, host, stream)?;
        }
        while self.unfinished_bytes > MAX_UNFINISHED_BYTES {
            let longest = (0..self.names.len())
                .flat_map(|host| [Stream::Stdout, Stream::Stderr].map(|stream| (host, stream)))
                .max_by_key(|(host, stream)| self.unfinished[*host][index(*stream)].len());
            let Some((host, stream)) = longest else { break };
            self.write_piece(screen, host, stream)?;
        }
        Ok(())
    }

    /// Prints the unfinished last lines of a host.
    pub(super) fn over(&mut self, screen: &mut Screen, host: usize) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = self.take(host, stream);
            if !line.is_empty() {
                self.write(screen, host, stream, &line)?;
            }
        }
        Ok(())
    }

    /// Takes an unfinished line, with its memory.
    fn take(&mut self, host: usize, stream: Stream) -> Vec<u8> {
        let line = std::mem::take(&mut self.unfinished[host][index(stream)]);
        self.unfinished_bytes -= line.len();
        line
    }

    /// Prints what there is of an unfinished line.
    fn write_piece(&mut self, screen: &mut Screen, host: usize, stream: Stream) -> io::Result<()> {
        let mut piece = self.take(host, stream);
        let character = piece.split_off(whole(&piece));
        piece.extend_from_slice(CONTINUES);
        self.unfinished_bytes += character.len();
        self.unfinished[host][index(stream)] = character;
        self.write(screen, host, stream, &piece)
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

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

/// Returns how many bytes of a piece are complete characters; all bytes if it is not UTF-8.
fn whole(piece: &[u8]) -> usize {
    match str::from_utf8(piece) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => piece.len(),
    }
}
