//! Prints JSON: a line for each event, or one for the whole run.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use labsh_client::fanout::End;
use labsh_proto::message::{Program, Stream};

use crate::fleet::report::HostReport;
use crate::fleet::screen::Screen;
use crate::fleet::summary;
use crate::json::Event;
use crate::remote::record;

pub(super) fn started(screen: &mut Screen, host: &HostReport) -> io::Result<()> {
    line(screen, summary::started(host))
}

/// A line for each piece of output and each end of a host.
pub(super) struct Events {
    /// For each host's stdout and stderr, the incomplete character at the end of the last piece: at
    /// most three bytes.
    rest: Vec<[Vec<u8>; 2]>,
}

impl Events {
    pub(super) fn new(hosts: usize) -> Self {
        Self { rest: (0..hosts).map(|_| Default::default()).collect() }
    }

    /// Prints a piece of output. `index` is the index of the host. Output that is not UTF-8 becomes
    /// a list of bytes in a field of another name.
    pub(super) fn output(
        &mut self,
        screen: &mut Screen,
        (index, host): (usize, &str),
        stream: Stream,
        bytes: &Bytes,
    ) -> io::Result<()> {
        let rest = &mut self.rest[index][usize::from(stream == Stream::Stderr)];
        let mut piece = std::mem::take(rest);
        piece.extend_from_slice(bytes);
        // A character may arrive in two pieces; it must not be printed as bytes.
        if let Err(error) = str::from_utf8(&piece)
            && error.error_len().is_none()
        {
            *rest = piece.split_off(error.valid_up_to());
        }
        if piece.is_empty() { Ok(()) } else { self::output(screen, host, stream, &piece) }
    }

    /// Prints the end of a host, after the rest of its output.
    pub(super) fn over(
        &mut self,
        screen: &mut Screen,
        (index, host): (usize, &HostReport),
        end: &End,
        program: &Program,
        took: Duration,
    ) -> io::Result<()> {
        for (rest, stream) in self.rest[index].iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            if !rest.is_empty() {
                output(screen, &host.name, stream, &std::mem::take(rest))?;
            }
        }
        line(screen, summary::over(host, record::of_command(end, program), took))
    }
}

fn output(screen: &mut Screen, host: &str, stream: Stream, bytes: &[u8]) -> io::Result<()> {
    let event = Event::of_host("output", host).with("stream", stream.to_string());
    let event = match str::from_utf8(bytes) {
        Ok(text) => event.with("text", text),
        Err(_) => event.with("bytes", bytes),
    };
    line(screen, event)
}

/// Prints a line on stdout.
pub(super) fn line(screen: &mut Screen, event: Event) -> io::Result<()> {
    screen.write(Stream::Stdout, |out, _| out.write_all(event.line().as_bytes()))
}
