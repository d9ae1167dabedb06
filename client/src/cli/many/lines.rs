//! Line by line, each behind the name of its host: whole lines, never mixed inside one.

use std::io;

use bytes::{Bytes, BytesMut};
use labsh_proto::message::Stream;
use unicode_width::UnicodeWidthStr;

use super::screen::Screen;
use crate::terminal_text::escape_line;

/// A line that is longer than this is shown in pieces, in bytes.
const LONGEST: usize = 64 << 10;

/// The colours of the names, as SGR parameters; red is for errors.
const COLOURS: [&str; 5] = ["36", "32", "33", "35", "34"];

pub(super) struct Lines {
    prefixes: Vec<String>,
    /// What has come of the line that is not whole yet, for stdout and stderr.
    rest: Vec<[BytesMut; 2]>,
}

impl Lines {
    pub(super) fn new(names: &[String], colour: bool) -> Self {
        let width = names.iter().map(|name| name.width()).max().unwrap_or(0);
        let prefixes = names.iter().enumerate().map(|(index, name)| {
            let blanks = " ".repeat(width - name.width());
            match colour {
                true => format!("\x1b[{}m{name}\x1b[0m:{blanks} ", COLOURS[index % COLOURS.len()]),
                false => format!("{name}:{blanks} "),
            }
        });
        Self { prefixes: prefixes.collect(), rest: names.iter().map(|_| Default::default()).collect() }
    }

    pub(super) fn output(
        &mut self,
        screen: &mut Screen,
        host: usize,
        stream: Stream,
        bytes: &Bytes,
    ) -> io::Result<()> {
        let rest = &mut self.rest[host][usize::from(stream == Stream::Stderr)];
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n').map(|at| at + 1).or_else(|| {
            // A line without end must not fill the memory.
            (rest.len() > LONGEST).then_some(LONGEST)
        }) {
            let line = rest.split_to(end);
            write(screen, &self.prefixes[host], stream, &line)?;
        }
        Ok(())
    }

    /// What a host has written behind its last line's end.
    pub(super) fn over(&mut self, screen: &mut Screen, host: usize) -> io::Result<()> {
        for (at, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let line = self.rest[host][at].split();
            if !line.is_empty() {
                write(screen, &self.prefixes[host], stream, &line)?;
            }
        }
        Ok(())
    }
}

fn write(screen: &mut Screen, prefix: &str, stream: Stream, line: &[u8]) -> io::Result<()> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    screen.write(stream, |out, terminal| {
        out.write_all(prefix.as_bytes())?;
        if terminal {
            // Two hundred hosts share this terminal: none of them may steer it.
            out.write_all(escape_line(line).as_bytes())?;
        } else {
            out.write_all(line)?;
        }
        out.write_all(b"\n")
    })
}
